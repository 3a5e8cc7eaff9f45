"""Who may do what: organisations, projects, API keys, shares, the ledger of deletions and its jobs."""

from clearspan.catalog.access import ApiKey, NewKey
from clearspan.catalog.catalog import Catalog, OwnerKey
from clearspan.catalog.jobs import Job
from clearspan.catalog.ledger import LedgerEntry
from clearspan.catalog.principal import ALL_SCOPES, KeyPolicy, KeyScope, Principal
from clearspan.catalog.shares import Share
from clearspan.catalog.signers import Signer, StoredKey
from clearspan.catalog.tenants import Organisation, Project

__all__ = [
    "ALL_SCOPES",
    "ApiKey",
    "Catalog",
    "Job",
    "KeyPolicy",
    "KeyScope",
    "LedgerEntry",
    "NewKey",
    "Organisation",
    "OwnerKey",
    "Principal",
    "Project",
    "Share",
    "Signer",
    "StoredKey",
]
