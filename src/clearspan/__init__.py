"""Clearspan: a self-hosted store for LLM traces that deletes on request and proves it.

The package is a server and a command line, not a library: the names below are all that others may rely on.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
