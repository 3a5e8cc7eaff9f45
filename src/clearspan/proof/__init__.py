"""What makes a deletion provable: hashes, trees, signatures and receipts. Pure: no store, no file, no network.

An auditor's program needs this package and nothing else of Clearspan.
"""
