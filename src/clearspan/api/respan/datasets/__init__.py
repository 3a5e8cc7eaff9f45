"""Respan's datasets API: definitions, rows (`logs`), their import from traces and their deletion.

docs/experiments.md says what of it is the contract's and what is ours.
"""
