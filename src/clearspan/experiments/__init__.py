"""Experiments: items of datasets, the runner that takes them through a workflow, scores, results and comparisons.

What an experiment or a dataset is called and consists of stands in the Catalog; items and results are traces, written
through the ingest path and removed by deletions like any other.
"""
