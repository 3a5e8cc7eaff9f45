"""Respan's experiments API (v2): definitions, their traces, summaries, histograms, exports, and running them.

docs/experiments.md says what of it is the contract's and what is ours.
"""
