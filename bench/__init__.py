"""Benchmarks: what design.md's budgets promise, measured over HTTP against the real server."""
