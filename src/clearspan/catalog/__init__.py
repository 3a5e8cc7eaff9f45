"""Who may do what: organisations, projects, API keys, shares, the ledger of deletions and its jobs."""

from clearspan.catalog.access import ApiKey, NewKey
from clearspan.catalog.annotation_configs import AnnotationConfig, AnnotationConfigs, ConfigDefinition
from clearspan.catalog.catalog import Catalog, OwnerKey
from clearspan.catalog.datasets import Dataset, Datasets, DatasetSettings, SourcePolicy
from clearspan.catalog.evaluators import Evaluator, Evaluators
from clearspan.catalog.experiments import Experiment, ExperimentDefinition, Experiments, ExperimentStatus
from clearspan.catalog.jobs import Job
from clearspan.catalog.ledger import LedgerEntry
from clearspan.catalog.principal import ALL_SCOPES, KeyPolicy, KeyScope, Principal
from clearspan.catalog.projects import Project, ProjectPurpose, ProjectSettings, ProjectState
from clearspan.catalog.run_shares import RunShare, RunShares
from clearspan.catalog.shares import Share
from clearspan.catalog.signers import Signer, StoredKey
from clearspan.catalog.tenants import Organisation

__all__ = [
    "ALL_SCOPES",
    "AnnotationConfig",
    "AnnotationConfigs",
    "ApiKey",
    "Catalog",
    "ConfigDefinition",
    "Dataset",
    "DatasetSettings",
    "Datasets",
    "Evaluator",
    "Evaluators",
    "Experiment",
    "ExperimentDefinition",
    "ExperimentStatus",
    "Experiments",
    "Job",
    "KeyPolicy",
    "KeyScope",
    "LedgerEntry",
    "NewKey",
    "Organisation",
    "OwnerKey",
    "Principal",
    "Project",
    "ProjectPurpose",
    "ProjectSettings",
    "ProjectState",
    "RunShare",
    "RunShares",
    "Share",
    "Signer",
    "SourcePolicy",
    "StoredKey",
]
