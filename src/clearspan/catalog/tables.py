"""The catalog's tables, as SQLAlchemy Core sees them. Who may do what: no trace content, no personal data of traces.

Rows are named by two ids: a small integer inside the catalog and in traces.db, and an opaque public id for the world.
Times are Unix nanoseconds. The tables are made by the Alembic migrations; a test holds the two to each other.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

metadata = MetaData()

# SQLite hands out row numbers only for a column of exactly this type.
_ID = BigInteger().with_variant(Integer, "sqlite")

instance = Table(
    "instance",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("public_id", String(64), nullable=False),
    Column("secret", LargeBinary(32), nullable=False),  # keys the hashes that stand for trace ids
    Column("created_at_ns", BigInteger, nullable=False),
)

organisation = Table(
    "organisation",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("public_id", String(64), nullable=False, unique=True),
    Column("name", String(255), nullable=False),
    Column("created_at_ns", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

app_user = Table(
    "app_user",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("public_id", String(64), nullable=False, unique=True),
    Column("org_id", _ID, ForeignKey("organisation.id"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("role", String(16), nullable=False),  # "owner" | "admin" | "member" | "viewer"
    Column("created_at_ns", BigInteger, nullable=False),
    Column("email", String(320), nullable=True),
    UniqueConstraint("org_id", "name", name="app_user_name"),
    Index("app_user_email", "org_id", "email", unique=True),
)

project = Table(
    "project",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("public_id", String(64), nullable=False, unique=True),
    Column("org_id", _ID, ForeignKey("organisation.id"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("created_at_ns", BigInteger, nullable=False),
    # What its operator wrote about it: no trace content. See projects.Project.
    Column("uuid", String(32), nullable=False, server_default=""),
    Column("state", String(16), nullable=False, server_default="live"),
    Column("description", Text, nullable=True),
    Column("extra", Text, nullable=True),  # JSON object
    Column("options", Text, nullable=True),  # JSON object
    Column("start_ns", BigInteger, nullable=True),
    Column("end_ns", BigInteger, nullable=True),
    Column("updated_at_ns", BigInteger, nullable=True),
    Column("reference_dataset_id", String(32), nullable=True),
    Column("default_dataset_id", String(32), nullable=True),
    Column("trace_tier", String(16), nullable=True),
    Column("left_name", String(255), nullable=True),  # of a project that is being removed
    Column("deletion_id", String(64), nullable=True),  # which deletion takes its traces
    Column("purpose", String(16), nullable=False, server_default="traces"),  # "traces" | "experiment" | "dataset"
    UniqueConstraint("org_id", "name", name="project_name"),
    Index("project_uuid", "org_id", "uuid", unique=True),
    # A number is never used again: tombstones in traces.db name projects by it.
    sqlite_autoincrement=True,
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("public_id", String(64), nullable=False, unique=True),
    Column("org_id", _ID, ForeignKey("organisation.id"), nullable=False),
    Column("user_id", _ID, ForeignKey("app_user.id"), nullable=True),  # whom it acts for; NULL: a machine
    Column("name", String(255), nullable=False),
    Column("prefix", String(32), nullable=False),  # the visible part, by which a presented key is looked up
    Column("digest", LargeBinary(32), nullable=False, unique=True),  # SHA-256 of the whole key
    Column("scopes", Text, nullable=False),  # JSON array of text
    Column("project_ids", Text, nullable=True),  # JSON array of project.id; NULL: every project
    Column("environment", String(64), nullable=True),
    Column("created_at_ns", BigInteger, nullable=False),
    Column("expires_at_ns", BigInteger, nullable=True),
    Column("revoked_at_ns", BigInteger, nullable=True),
    Column("delete_max_traces", BigInteger, nullable=True),  # see principal.KeyPolicy; NULL: no limit
    Column("delete_max_share_ppm", Integer, nullable=True),
    Column("delete_require_reason", Boolean, nullable=False, server_default=false()),
    Column("delete_forbid_all", Boolean, nullable=False, server_default=false()),
    Column("delete_strict_window", Boolean, nullable=False, server_default=false()),
    Column("description", Text, nullable=True),
    Index("api_key_prefix", "prefix"),
    Index("api_key_org", "org_id"),
)

share = Table(
    "share",
    metadata,
    # HMAC of the trace id: the id itself is trace content and must not stay here.
    Column("trace_key", LargeBinary(32), primary_key=True),
    Column("project_id", _ID, ForeignKey("project.id"), primary_key=True, autoincrement=False),
    Column("visible_fields", Text, nullable=False),  # JSON array of field names
    Column("created_at_ns", BigInteger, nullable=False),
)

run_share = Table(
    "run_share",
    metadata,
    Column("trace_key", LargeBinary(32), primary_key=True),  # as in `share`
    Column("project_id", _ID, ForeignKey("project.id"), primary_key=True, autoincrement=False),
    Column("token_key", LargeBinary(32), nullable=False, unique=True),  # HMAC of the token
    # Each readable only with what the other one holds: see run_shares.
    Column("sealed_trace", LargeBinary, nullable=False),
    Column("sealed_token", LargeBinary, nullable=False),
    Column("created_at_ns", BigInteger, nullable=False),
)

annotation_config = Table(
    "annotation_config",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("public_id", String(64), nullable=False, unique=True),
    Column("org_id", _ID, ForeignKey("organisation.id"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("type", String(16), nullable=False),  # "continuous" | "categorical" | "freeform"
    Column("direction", String(16), nullable=False),  # "maximize" | "minimize" | "none"
    Column("lower_bound", Float, nullable=True),
    Column("upper_bound", Float, nullable=True),
    Column("threshold", Float, nullable=True),
    Column("categories", Text, nullable=False),  # JSON array of [label, value or null]
    Column("description", Text, nullable=True),
    Column("created_at_ns", BigInteger, nullable=False),
    Column("updated_at_ns", BigInteger, nullable=False),
    UniqueConstraint("org_id", "name", name="annotation_config_name"),
    sqlite_autoincrement=True,
)

annotation_config_project = Table(
    "annotation_config_project",
    metadata,
    Column("config_id", _ID, ForeignKey("annotation_config.id"), primary_key=True, autoincrement=False),
    Column("project_id", _ID, ForeignKey("project.id"), primary_key=True, autoincrement=False),
)

dataset = Table(
    "dataset",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("uuid", String(32), nullable=False),
    Column("org_id", _ID, ForeignKey("organisation.id"), nullable=False),
    Column("project_id", _ID, ForeignKey("project.id"), nullable=False, unique=True),  # whose traces are its items
    Column("name", String(255), nullable=False),
    Column("left_name", String(255), nullable=True),  # of one that is being removed
    Column("description", Text, nullable=True),
    Column("data_type", String(16), nullable=False),  # "kv" | "llm" | "chat"
    Column("extra", Text, nullable=True),  # JSON object, as the next two
    Column("inputs_schema", Text, nullable=True),
    Column("outputs_schema", Text, nullable=True),
    Column("transformations", Text, nullable=True),  # JSON array
    Column("on_source_deleted", String(16), nullable=False),  # "erase" | "redact" | "detach"
    Column("tags", Text, nullable=True),  # JSON object: name of a version → its time in ns
    Column("created_at_ns", BigInteger, nullable=False),
    Column("updated_at_ns", BigInteger, nullable=False),
    UniqueConstraint("org_id", "name", name="dataset_name"),
    UniqueConstraint("org_id", "uuid", name="dataset_uuid"),
    sqlite_autoincrement=True,
)

evaluator = Table(
    "evaluator",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("uuid", String(32), nullable=False, unique=True),
    Column("org_id", _ID, ForeignKey("organisation.id"), nullable=False),
    Column("slug", String(255), nullable=False),  # what its scores are called
    Column("name", String(255), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("config", Text, nullable=False),  # JSON object
    Column("score_type", String(64), nullable=False),
    Column("description", Text, nullable=True),
    Column("created_at_ns", BigInteger, nullable=False),
    Column("updated_at_ns", BigInteger, nullable=False),
    UniqueConstraint("org_id", "slug", name="evaluator_slug"),
    sqlite_autoincrement=True,
)

experiment = Table(
    "experiment",
    metadata,
    # Its name, description and dataset stand in `project`, where those of LangSmith's experiments stand as well.
    Column("project_id", _ID, ForeignKey("project.id"), primary_key=True, autoincrement=False),
    Column("public_id", String(255), nullable=False),  # perhaps chosen by the client
    Column("org_id", _ID, ForeignKey("organisation.id"), nullable=False),
    Column("status", String(16), nullable=False),  # "pending" | "running" | "completed" | "failed" | "cancelled"
    Column("workflow", Text, nullable=False),  # JSON array of objects
    Column("evaluator_ids", Text, nullable=False),  # JSON array of evaluator.uuid
    Column("evaluator_workflow_ids", Text, nullable=False),  # JSON array of text
    Column("batch_size", Integer, nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("enable_tracing", Boolean, nullable=False),
    Column("span_workflow_name", String(255), nullable=False),
    Column("generation_method", String(64), nullable=True),
    Column("tags", Text, nullable=False),  # JSON array
    Column("error_code", String(64), nullable=True),
    Column("error_message", String(1000), nullable=True),  # never from a trace
    Column("version_ns", BigInteger, nullable=False),  # the items as they were then
    Column("created_at_ns", BigInteger, nullable=False),
    Column("started_at_ns", BigInteger, nullable=True),
    Column("completed_at_ns", BigInteger, nullable=True),
    UniqueConstraint("org_id", "public_id", name="experiment_public_id"),
)

ledger_entry = Table(
    "ledger_entry",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # 0, 1, 2 … without a gap
    Column("at_ns", BigInteger, nullable=False),
    Column("org_id", BigInteger, nullable=True),
    Column("kind", String(64), nullable=False),
    Column("deletion_id", String(64), nullable=True),
    Column("step", String(64), nullable=True),  # tells repeats of one kind apart; see ledger.append
    Column("body", Text, nullable=False),
    Column("prev_hash", LargeBinary(32), nullable=False),
    Column("entry_hash", LargeBinary(32), nullable=False),
    UniqueConstraint("deletion_id", "kind", "step", name="ledger_step"),
)

ledger_node = Table(
    "ledger_node",
    metadata,
    # The root over entries position * 2^level … (position + 1) * 2^level - 1; level 0 is ledger_entry.entry_hash.
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
)

signing_key = Table(
    "signing_key",
    metadata,
    Column("key_id", String(64), primary_key=True),  # RFC 7638 thumbprint
    Column("public", LargeBinary(32), nullable=False),
    Column("seed", LargeBinary(32), nullable=True),  # the private part; erased when the key is retired
    Column("created_at_ns", BigInteger, nullable=False),
    Column("retired_at_ns", BigInteger, nullable=True),
)

tree_head = Table(
    "tree_head",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("key_id", String(64), ForeignKey("signing_key.key_id"), primary_key=True),
    Column("at_ns", BigInteger, nullable=False),
    Column("jws", Text, nullable=False),
)

receipt = Table(
    "receipt",
    metadata,
    Column("deletion_id", String(64), primary_key=True),  # one receipt for each deletion
    Column("org_id", BigInteger, nullable=True),
    Column("seq", BigInteger, ForeignKey("ledger_entry.seq"), nullable=False),  # the entry that it proves
    Column("key_id", String(64), ForeignKey("signing_key.key_id"), nullable=False),
    Column("jws", Text, nullable=False),
)

job = Table(
    "job",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("org_id", BigInteger, nullable=True),
    Column("kind", String(64), nullable=False),
    Column("state", String(32), nullable=False),  # "ready" | "running" | "done" | "failed" | "cancelled"
    Column("body", Text, nullable=False),  # JSON, no personal data
    Column("cursor", String(255), nullable=True),
    Column("counts", Text, nullable=False),  # JSON object of integers
    Column("error", String(64), nullable=True),  # a code, never a text
    Column("attempt", Integer, nullable=False),
    Column("not_before_ns", BigInteger, nullable=False),
    Column("lease_owner", String(64), nullable=True),
    Column("lease_until_ns", BigInteger, nullable=True),
    Column("heartbeat_at_ns", BigInteger, nullable=True),
    Column("created_at_ns", BigInteger, nullable=False),
    Column("updated_at_ns", BigInteger, nullable=False),
    Index("job_open", "state", "not_before_ns"),
)
