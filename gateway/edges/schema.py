"""The tables of the store, once, for both databases (design D3, D10, D13). No statement and no connection here.

Attribute sets are JSON text in the DICOM JSON Model. Events happen in UTC (ISO 8601, fixed width, so that text
order is time order); scheduled starts are 14 digits of the department's wall clock and never pass through UTC.
A key that is not known is NULL where it has to be unique when known, and '' elsewhere. Every change here needs a
migration with the next number; a test compares the two.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

SCHEMA_REVISION = "0007"
"""The Alembic revision this code works with. Revisions are numbers, so that newer and older can be told apart."""

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "fk": "%(table_name)s_%(column_0_name)s_fk",
        "uq": "%(table_name)s_%(column_0_N_name)s_uq",
    }
)

_Number = BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers rows only in an INTEGER key
_FoldedText = Text().with_variant(Text(collation="C"), "postgresql")  # prefix bounds need code point order


def _id() -> Column[int]:
    return Column("id", _Number, primary_key=True)


def _of(name: str, target: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, _Number, ForeignKey(target), nullable=nullable)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _maybe(name: str) -> Column[str]:
    return Column(name, Text)


def _stamps() -> Column[str]:
    """When what of the record was said (`domain.facts`); '' where it is not known."""
    return Column("stamps", Text, nullable=False, server_default=text("''"))


def _site() -> Column[str]:
    """Whose order it is, where one gateway serves several sites; '' for none."""
    return Column("site", Text, nullable=False, server_default=text("''"))


# One row per person ever heard of. `patient_id` repeats (0010,0020) for the index. A merged row keeps its
# attributes for the record and points to the survivor; nothing else belongs to it any more.
patients = Table(
    "patients",
    metadata,
    _id(),
    _text("patient_id"),
    _of("merged_into", "patients.id", nullable=True),
    _text("attributes"),
    _text("created_at"),
    _text("updated_at"),
    _stamps(),
    Index("patients_by_patient_id", "patient_id"),
    Index("patients_by_merged_into", "merged_into", sqlite_where=text("merged_into IS NOT NULL"),
          postgresql_where=text("merged_into IS NOT NULL")),
)  # fmt: skip

patient_identifiers = Table(
    "patient_identifiers",
    metadata,
    _text("value"),
    _text("issuer"),
    _of("patient_id", "patients.id"),
    Column("position", Integer, nullable=False),  # 0 is the primary identifier
    Column("retired", Integer, nullable=False),  # 1: it finds the patient and is said to nobody any more
    Column("merged_from", _Number),  # the record that bore a retired one; NULL where an earlier release retired it
    PrimaryKeyConstraint("value", "issuer"),
    Index("patient_identifiers_by_patient", "patient_id", "position"),
    sqlite_with_rowid=False,
)

# What the patient's name is found by, as `names.name_index` makes it, for prefix bounds.
patient_names = Table(
    "patient_names",
    metadata,
    _of("patient_id", "patients.id"),
    Column("folded", _FoldedText, nullable=False),
    PrimaryKeyConstraint("patient_id", "folded"),
    Index("patient_names_by_folded", "folded", "patient_id"),
    sqlite_with_rowid=False,
)

# `number` is '' for the visit without one. Not unique: after a merge both persons' visits stay with their orders.
visits = Table(
    "visits",
    metadata,
    _id(),
    _of("patient_id", "patients.id"),
    _text("number"),
    _text("issuer"),
    _text("attributes"),
    _text("created_at"),
    _text("updated_at"),
    _stamps(),
    Index("visits_by_number", "patient_id", "number", "issuer"),
)

orders = Table(
    "orders",
    metadata,
    _id(),
    _of("patient_id", "patients.id"),
    _of("visit_id", "visits.id", nullable=True),
    _maybe("placer"),
    _text("placer_issuer"),
    _maybe("filler"),
    _text("filler_issuer"),
    _text("attributes"),
    _text("created_at"),
    _text("updated_at"),
    _site(),
    _stamps(),
    Column("by_hand", Integer, nullable=False, server_default=text("0")),  # 1: an order of the RIS takes it over
    Index("orders_by_patient", "patient_id"),
    Index("orders_by_hand", "patient_id", sqlite_where=text("by_hand = 1"), postgresql_where=text("by_hand = 1")),
    Index("orders_by_visit", "visit_id", sqlite_where=text("visit_id IS NOT NULL"),
          postgresql_where=text("visit_id IS NOT NULL")),
    Index("orders_by_placer", "placer", "placer_issuer", unique=True, sqlite_where=text("placer IS NOT NULL"),
          postgresql_where=text("placer IS NOT NULL")),
    Index("orders_by_filler", "filler", "filler_issuer", unique=True, sqlite_where=text("filler IS NOT NULL"),
          postgresql_where=text("filler IS NOT NULL")),
)  # fmt: skip

# `accession` may be shared between procedures; a Study Instance UID never is.
requested_procedures = Table(
    "requested_procedures",
    metadata,
    _id(),
    _of("order_id", "orders.id"),
    _maybe("study_instance_uid"),
    _text("requested_procedure_id"),
    _maybe("accession"),
    _text("accession_issuer"),
    _text("attributes"),
    Column("minted", Integer, nullable=False),  # bits: Study Instance UID, accession number, RP ID not given by a feed
    _stamps(),
    Index("requested_procedures_by_order", "order_id"),
    Index("requested_procedures_by_study", "study_instance_uid", unique=True,
          sqlite_where=text("study_instance_uid IS NOT NULL"),
          postgresql_where=text("study_instance_uid IS NOT NULL")),
    Index("requested_procedures_by_accession", "accession", "accession_issuer",
          sqlite_where=text("accession IS NOT NULL"), postgresql_where=text("accession IS NOT NULL")),
    Index("requested_procedures_by_rp_id", "requested_procedure_id"),
)  # fmt: skip

# `order_id`, `patient_id` and `site` repeat what the procedure's order says, so that an item is one join and a change
# of a patient finds its steps in one look; only `save_order` and `hand_over` move them. `listed` repeats whether
# the status is one of LISTED. Numbers are never used again (AUTOINCREMENT): (id, revision) names an item's content for
# ever (design D2).
steps = Table(
    "steps",
    metadata,
    _id(),
    _of("procedure_id", "requested_procedures.id"),
    _of("order_id", "orders.id"),
    _of("patient_id", "patients.id"),
    _maybe("sps_id"),
    _text("status"),
    Column("listed", Integer, nullable=False),
    _text("start_local"),
    _text("start_offset"),  # what the sender said of its zone, such as +0100
    _text("zone"),  # the department's zone by name when the start was written
    _text("modality"),
    _text("attributes"),
    Column("minted", Integer, nullable=False),  # 1: no feed gave the SPS ID
    Column("revision", _Number, nullable=False),
    _site(),
    _stamps(),
    UniqueConstraint("procedure_id", "sps_id"),
    Index("steps_by_patient", "patient_id"),
    Index("steps_by_sps_id", "sps_id"),
    Index("steps_by_start", "listed", "start_local", "id", "modality"),
    sqlite_autoincrement=True,
)

# `listed` and `start_local` repeat the step's, so that "my station, today" is a range of one index.
step_stations = Table(
    "step_stations",
    metadata,
    _of("step_id", "steps.id"),
    _text("ae_title"),
    Column("listed", Integer, nullable=False),
    _text("start_local"),
    PrimaryKeyConstraint("step_id", "ae_title"),
    Index("step_stations_by_station", "ae_title", "listed", "start_local", "step_id"),
    sqlite_with_rowid=False,
)

# What happened to a step, under the revision it made.
step_history = Table(
    "step_history",
    metadata,
    _of("step_id", "steps.id"),
    Column("revision", _Number, nullable=False),
    _text("at"),
    _text("status"),
    _text("start_local"),
    _text("cause"),
    PrimaryKeyConstraint("step_id", "revision"),
    sqlite_with_rowid=False,
)

# What happened to patients' identities: merges, moves, links and changes of identifiers, and what each changed, so that
# it can be taken back. `details` is JSON of `workflow.patients`. `undone_at` is '' while it holds.
identity_log = Table(
    "identity_log",
    metadata,
    _id(),
    _text("at"),
    _text("kind"),
    _text("cause"),
    _of("patient_id", "patients.id"),
    _of("other_id", "patients.id", nullable=True),
    _text("details"),
    _text("undone_at"),
    Index("identity_log_by_patient", "patient_id"),
    Index("identity_log_by_other", "other_id", sqlite_where=text("other_id IS NOT NULL"),
          postgresql_where=text("other_id IS NOT NULL")),
)  # fmt: skip

# Mappings as they were when they read something, by version: what a message's trace is made again from.
mapping_versions = Table(
    "mapping_versions",
    metadata,
    Column("version", Text, primary_key=True),
    _text("content"),
    _text("first_used_at"),
)

# The archive: input, outcome and answer of everything received and sent. `search_keys` are the business keys as JSON
# pairs; `message_keys` is the index of them. `replay_of` has no foreign key: what was replayed may be pruned before its
# replay. Numbers rise with time, so a time is found by halving and no index of times is kept. The columns of
# `messages_by_kind` have a few values each: whatever is asked of them is some dozens of ranges, each in order.
messages = Table(
    "messages",
    metadata,
    _id(),
    _text("received_at"),
    _text("listener"),
    _text("peer"),
    _text("sender"),
    _text("control_id"),
    _text("message_type"),
    Column("digest", LargeBinary, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    _text("disposition"),
    _text("reasons"),
    Column("answer", LargeBinary, nullable=False),
    _text("mapping"),
    _text("search_keys"),
    Column("replay_of", _Number),
    Column("direction", Text, nullable=False, server_default=text("'in'")),  # in, or out for what we sent
    Column("made_at", Text, nullable=False, server_default=text("''")),  # what its sender said (MSH-7), in UTC
    Index("messages_by_control_id", "control_id", "listener", "sender"),
    Index("messages_by_kind", "listener", "direction", "message_type", "disposition"),
    Index("messages_held", "id", sqlite_where=text("disposition = 'held'"),
          postgresql_where=text("disposition = 'held'")),
)  # fmt: skip

# No foreign key to the message: to delete a message it would be looked for by a number that nothing is indexed by.
message_keys = Table(
    "message_keys",
    metadata,
    _text("value"),
    Column("message_id", _Number, nullable=False),
    _text("kind"),
    PrimaryKeyConstraint("value", "message_id", "kind"),
    sqlite_with_rowid=False,
)

# What an outbound mapping wrote a message from (`workflow.kept_reports`); goes with its message.
message_reports = Table(
    "message_reports",
    metadata,
    Column("message_id", _Number, primary_key=True, autoincrement=False),
    Column("report", LargeBinary, nullable=False),
)

# `attention` is why a person should look at it (`domain.performed.Attention`), '' where nobody needs to.
performed_steps = Table(
    "performed_steps",
    metadata,
    Column("sop_instance_uid", Text, primary_key=True),
    _text("state"),
    _text("calling_ae_title"),
    _of("patient_id", "patients.id", nullable=True),
    _text("attributes"),
    _text("created_at"),
    _text("updated_at"),
    Column("attention", Text, nullable=False, server_default=text("''")),
    Index("performed_steps_by_patient", "patient_id", "created_at", "sop_instance_uid"),
    Index("performed_steps_by_caller", "calling_ae_title", "created_at", "sop_instance_uid"),
    Index("performed_steps_by_state", "state", "created_at", "sop_instance_uid"),
    Index("performed_steps_by_time", "created_at", "sop_instance_uid"),
    Index("performed_steps_for_people", "attention", "created_at", "sop_instance_uid",
          sqlite_where=text("attention <> ''"), postgresql_where=text("attention <> ''")),
)  # fmt: skip

performed_step_links = Table(
    "performed_step_links",
    metadata,
    Column("sop_instance_uid", Text, ForeignKey("performed_steps.sop_instance_uid"), nullable=False),
    _of("step_id", "steps.id"),
    PrimaryKeyConstraint("sop_instance_uid", "step_id"),
    Index("performed_step_links_by_step", "step_id"),
    sqlite_with_rowid=False,
)

# The keys of performed steps that name a scheduled step nobody holds yet: an order with one of them may link it.
# `kind` is study or accession. A step that waits no longer has no rows.
performed_waiting = Table(
    "performed_waiting",
    metadata,
    _text("kind"),
    _text("value"),
    Column("sop_instance_uid", Text, ForeignKey("performed_steps.sop_instance_uid"), nullable=False),
    PrimaryKeyConstraint("kind", "value", "sop_instance_uid"),
    Index("performed_waiting_by_instance", "sop_instance_uid"),
    sqlite_with_rowid=False,
)

# Every N-CREATE and N-SET as it came, also refused ones, whose instance may not exist: no foreign key.
performed_requests = Table(
    "performed_requests",
    metadata,
    _id(),
    _text("sop_instance_uid"),
    _text("operation"),
    _text("calling_ae_title"),
    Column("raw", LargeBinary, nullable=False),
    Column("status", Integer, nullable=False),
    _text("comment"),
    _text("at"),
    Column("transfer_syntax", Text, nullable=False, server_default=text("''")),
    Index("performed_requests_by_instance", "sop_instance_uid"),
)

# What people and rules decided about performed steps, with who it was: links, unlinks, releases, closings. `details` is
# JSON of `workflow.reconcile`.
performed_log = Table(
    "performed_log",
    metadata,
    _id(),
    _text("at"),
    _text("sop_instance_uid"),
    _text("action"),
    _text("actor"),
    _text("details"),
    Index("performed_log_by_instance", "sop_instance_uid", "id"),
)

# What each destination got of a performed step last, with its answer: the outbox forgets what was sent.
performed_sent = Table(
    "performed_sent",
    metadata,
    _text("sop_instance_uid"),
    _text("destination"),
    _text("operation"),
    _text("answer"),
    _text("at"),
    PrimaryKeyConstraint("sop_instance_uid", "destination"),
    sqlite_with_rowid=False,
)

# What is to be told to others, in order per destination and lane (design D8): HL7 v2 messages by patient, performed
# steps by instance. Written in the transaction that causes it; what was sent leaves. `archive_id` is its number in
# `messages` or `performed_requests`, by `kind`; no foreign key: the archive leaves what waits alone.
outbox = Table(
    "outbox",
    metadata,
    _id(),
    _text("kind"),
    Column("archive_id", _Number, nullable=False),
    _text("destination"),
    _text("lane"),
    _text("control_id"),
    Column("payload", LargeBinary, nullable=False),
    _text("operation"),
    _text("transfer_syntax"),
    _text("created_at"),
    _text("due_at"),
    _text("state"),
    Column("attempts", Integer, nullable=False),
    Column("errors", Integer, nullable=False),
    _text("reason"),
    Column("head", Integer, nullable=False),  # 1: the oldest of its destination and lane that waits
    Index("outbox_in_order", "destination", "state", "id"),
    Index("outbox_by_lane", "destination", "state", "lane", "id"),
    Index("outbox_next", "destination", "due_at", "id", sqlite_where=text("head = 1"),
          postgresql_where=text("head = 1")),
    Index("outbox_heads", "destination", "lane", unique=True, sqlite_where=text("head = 1"),
          postgresql_where=text("head = 1")),
    sqlite_autoincrement=True,  # who wrote a number down finds that message or none
)  # fmt: skip

# Lanes that lead into another one, as long as something waits there: orders went from one patient to another while
# something about them waited. See `store_outbox.share_lane`.
outbox_lanes = Table(
    "outbox_lanes",
    metadata,
    _text("destination"),
    _text("lane"),
    _text("leads_to"),
    PrimaryKeyConstraint("destination", "lane"),
    sqlite_with_rowid=False,
)

# One row per destination that was ever told anything, changed with its rows of the outbox, so that counting costs
# nothing however much waits. `held` is 1 while a person keeps it back.
queues = Table(
    "queues",
    metadata,
    Column("destination", Text, primary_key=True),
    Column("waiting", Integer, nullable=False),
    Column("parked", Integer, nullable=False),
    Column("held", Integer, nullable=False),
    _text("last_error"),
    _text("last_error_at"),
    _text("last_sent_at"),
)

# What people decided about queues and what was in them, with who it was. `details` is JSON of
# `workflow.queue_decisions`.
queue_log = Table(
    "queue_log",
    metadata,
    _id(),
    _text("at"),
    _text("destination"),
    _text("action"),
    _text("actor"),
    _text("details"),
    Index("queue_log_by_destination", "destination", "id"),
)

# Which messages a line of it is about: by `kind` numbers in `messages` or `performed_requests`, as in `outbox`.
queue_log_messages = Table(
    "queue_log_messages",
    metadata,
    _text("kind"),
    Column("archive_id", _Number, nullable=False),
    _of("log_id", "queue_log.id"),
    PrimaryKeyConstraint("kind", "archive_id", "log_id"),
    sqlite_with_rowid=False,
)

# Worklist queries as they were asked and answered, the newest of each caller (`StoreUnit.add_queries`). Written after
# the answer, in batches; a crash may lose the last second of them. `notes` is a JSON list. Numbers are never used
# again: who wrote one down finds that query or none.
queries = Table(
    "queries",
    metadata,
    _id(),
    _text("at"),
    _text("calling_ae_title"),
    _text("called_ae_title"),
    _text("remote_host"),
    _text("transfer_syntax"),
    Column("identifier", LargeBinary, nullable=False),
    Column("status", Integer, nullable=False),
    Column("matches", Integer, nullable=False),
    Column("milliseconds", Float, nullable=False),
    Column("negotiation", LargeBinary, nullable=False),
    _text("notes"),
    Index("queries_by_caller", "calling_ae_title", "id"),
    sqlite_autoincrement=True,
)

# Who knocked and was not let in, one row for each AE title, address and certificate; bounded (`workflow.knocks`).
# `reason` is of the last time, as is all but `first_at` and `times`.
knocks = Table(
    "knocks",
    metadata,
    _text("ae_title"),
    _text("address"),
    _text("called_ae_title"),
    _text("reason"),
    _text("first_at"),
    _text("last_at"),
    _text("implementation_version"),
    Column("tls", Integer, nullable=False),
    _text("fingerprint"),
    _text("common_name"),
    Column("times", _Number, nullable=False),
    PrimaryKeyConstraint("ae_title", "address", "fingerprint"),
    sqlite_with_rowid=False,
)

# FHIR resources in their current version. `source` is whose name space `resource_id` is of: one of our bases, or the
# server of a feed. A deleted one keeps its row without content, so that it is known and its next version has another
# number.
resources = Table(
    "resources",
    metadata,
    _id(),
    _text("source"),
    _text("type"),
    _text("resource_id"),
    Column("version", Integer, nullable=False),
    _text("updated_at"),
    Column("deleted", Integer, nullable=False),
    _text("release"),
    _text("content"),
    _text("overruled"),  # what its sender says of elements in which our word stands, as JSON; '' for none
    UniqueConstraint("source", "type", "resource_id"),
    Index("resources_by_update", "source", "type", "deleted", "updated_at", "id"),
)

# What resources are found by (`domain.resources.Indexed`). `type` is the resource's, '' for what is looked for across
# types: who refers to this. Prefixes and ranges of `value` need code point order.
resource_index = Table(
    "resource_index",
    metadata,
    _text("source"),
    _text("type"),
    _text("name"),
    Column("value", _FoldedText, nullable=False),
    _text("system"),
    _of("resource", "resources.id"),
    PrimaryKeyConstraint("source", "type", "name", "value", "system", "resource"),
    Index("resource_index_by_resource", "resource", "name", "value"),
    sqlite_with_rowid=False,
)

# Which resources speak of an order that is held, of which of its procedures and steps. The key is a resource's own, for
# one that was taken away may still be meant.
order_resources = Table(
    "order_resources",
    metadata,
    _of("order_id", "orders.id"),
    _text("source"),
    _text("type"),
    _text("resource_id"),
    _text("requested_procedure_id"),
    _text("sps_id"),
    PrimaryKeyConstraint("order_id", "source", "type", "resource_id", "requested_procedure_id", "sps_id"),
    Index("order_resources_by_resource", "source", "type", "resource_id"),
    sqlite_with_rowid=False,
)

# How far each feed has read from its server; what the text says is the feed's own.
feed_marks = Table("feed_marks", metadata, Column("name", Text, primary_key=True), _text("content"))

# Facts about the site as a whole: `site_namespace`, the UUID under which keys are minted (design D10).
meta = Table("meta", metadata, Column("name", Text, primary_key=True), _text("value"))
