"""The first schema; `gateway.edges.schema` says what each table is for."""

import uuid
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FOLDED_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _where(condition: str) -> dict[str, Any]:
    """A partial index, on both databases."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Make everything, and the namespace under which this site mints its keys."""
    op.create_table(
        "messages",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("received_at", sa.Text(), nullable=False),
        sa.Column("listener", sa.Text(), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("control_id", sa.Text(), nullable=False),
        sa.Column("message_type", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("disposition", sa.Text(), nullable=False),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("mapping", sa.Text(), nullable=False),
        sa.Column("search_keys", sa.Text(), nullable=False),
        sa.Column("replay_of", NUMBER, nullable=True),
        sa.PrimaryKeyConstraint("id", name="messages_pk"),
    )
    op.create_index("messages_by_control_id", "messages", ["listener", "sender", "control_id"])
    op.create_index("messages_held", "messages", ["id"], **_where("disposition = 'held'"))
    op.create_table(
        "meta",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="meta_pk"),
    )
    op.create_table(
        "patients",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("merged_into", NUMBER, nullable=True),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["merged_into"], ["patients.id"], name="patients_merged_into_fk"),
        sa.PrimaryKeyConstraint("id", name="patients_pk"),
    )
    op.create_index("patients_by_merged_into", "patients", ["merged_into"], **_where("merged_into IS NOT NULL"))
    op.create_index("patients_by_patient_id", "patients", ["patient_id"])
    op.create_table(
        "performed_requests",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("calling_ae_title", sa.Text(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="performed_requests_pk"),
    )
    op.create_index("performed_requests_by_instance", "performed_requests", ["sop_instance_uid"])
    op.create_table(
        "message_keys",
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("message_id", NUMBER, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name="message_keys_message_id_fk"),
        sa.PrimaryKeyConstraint("value", "message_id", "kind", name="message_keys_pk"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outbox",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("patient_id", NUMBER, nullable=True),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["patient_id"], ["patients.id"], name="outbox_patient_id_fk"),
        sa.PrimaryKeyConstraint("id", name="outbox_pk"),
    )
    op.create_index("outbox_in_order", "outbox", ["destination", "patient_id", "id"])
    op.create_table(
        "patient_identifiers",
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("patient_id", NUMBER, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("retired", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["patient_id"], ["patients.id"], name="patient_identifiers_patient_id_fk"),
        sa.PrimaryKeyConstraint("value", "issuer", name="patient_identifiers_pk"),
        sqlite_with_rowid=False,
    )
    op.create_index("patient_identifiers_by_patient", "patient_identifiers", ["patient_id", "position"])
    op.create_table(
        "patient_names",
        sa.Column("patient_id", NUMBER, nullable=False),
        sa.Column("folded", FOLDED_TEXT, nullable=False),
        sa.ForeignKeyConstraint(["patient_id"], ["patients.id"], name="patient_names_patient_id_fk"),
        sa.PrimaryKeyConstraint("patient_id", "folded", name="patient_names_pk"),
        sqlite_with_rowid=False,
    )
    op.create_index("patient_names_by_folded", "patient_names", ["folded", "patient_id"])
    op.create_table(
        "performed_steps",
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("calling_ae_title", sa.Text(), nullable=False),
        sa.Column("patient_id", NUMBER, nullable=True),
        sa.Column("quarantined", sa.Integer(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["patient_id"], ["patients.id"], name="performed_steps_patient_id_fk"),
        sa.PrimaryKeyConstraint("sop_instance_uid", name="performed_steps_pk"),
    )
    op.create_index("performed_steps_by_patient", "performed_steps", ["patient_id"])
    op.create_index("performed_steps_open", "performed_steps", ["sop_instance_uid"], **_where("state = 'IN PROGRESS'"))
    op.create_index("performed_steps_quarantined", "performed_steps", ["sop_instance_uid"], **_where("quarantined = 1"))
    op.create_table(
        "visits",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("patient_id", NUMBER, nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["patient_id"], ["patients.id"], name="visits_patient_id_fk"),
        sa.PrimaryKeyConstraint("id", name="visits_pk"),
    )
    op.create_index("visits_by_number", "visits", ["patient_id", "number", "issuer"])
    op.create_table(
        "orders",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("patient_id", NUMBER, nullable=False),
        sa.Column("visit_id", NUMBER, nullable=True),
        sa.Column("placer", sa.Text(), nullable=True),
        sa.Column("placer_issuer", sa.Text(), nullable=False),
        sa.Column("filler", sa.Text(), nullable=True),
        sa.Column("filler_issuer", sa.Text(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["patient_id"], ["patients.id"], name="orders_patient_id_fk"),
        sa.ForeignKeyConstraint(["visit_id"], ["visits.id"], name="orders_visit_id_fk"),
        sa.PrimaryKeyConstraint("id", name="orders_pk"),
    )
    op.create_index(
        "orders_by_filler", "orders", ["filler", "filler_issuer"], unique=True, **_where("filler IS NOT NULL")
    )
    op.create_index("orders_by_patient", "orders", ["patient_id"])
    op.create_index(
        "orders_by_placer", "orders", ["placer", "placer_issuer"], unique=True, **_where("placer IS NOT NULL")
    )
    op.create_index("orders_by_visit", "orders", ["visit_id"], **_where("visit_id IS NOT NULL"))
    op.create_table(
        "requested_procedures",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("order_id", NUMBER, nullable=False),
        sa.Column("study_instance_uid", sa.Text(), nullable=True),
        sa.Column("requested_procedure_id", sa.Text(), nullable=False),
        sa.Column("accession", sa.Text(), nullable=True),
        sa.Column("accession_issuer", sa.Text(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("minted", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="requested_procedures_order_id_fk"),
        sa.PrimaryKeyConstraint("id", name="requested_procedures_pk"),
    )
    op.create_index(
        "requested_procedures_by_accession",
        "requested_procedures",
        ["accession", "accession_issuer"],
        **_where("accession IS NOT NULL"),
    )
    op.create_index("requested_procedures_by_order", "requested_procedures", ["order_id"])
    op.create_index("requested_procedures_by_rp_id", "requested_procedures", ["requested_procedure_id"])
    op.create_index(
        "requested_procedures_by_study",
        "requested_procedures",
        ["study_instance_uid"],
        unique=True,
        **_where("study_instance_uid IS NOT NULL"),
    )
    op.create_table(
        "steps",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("procedure_id", NUMBER, nullable=False),
        sa.Column("order_id", NUMBER, nullable=False),
        sa.Column("patient_id", NUMBER, nullable=False),
        sa.Column("sps_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("listed", sa.Integer(), nullable=False),
        sa.Column("start_local", sa.Text(), nullable=False),
        sa.Column("start_offset", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("modality", sa.Text(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("minted", sa.Integer(), nullable=False),
        sa.Column("revision", NUMBER, nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="steps_order_id_fk"),
        sa.ForeignKeyConstraint(["patient_id"], ["patients.id"], name="steps_patient_id_fk"),
        sa.ForeignKeyConstraint(["procedure_id"], ["requested_procedures.id"], name="steps_procedure_id_fk"),
        sa.PrimaryKeyConstraint("id", name="steps_pk"),
        sa.UniqueConstraint("procedure_id", "sps_id", name="steps_procedure_id_sps_id_uq"),
        sqlite_autoincrement=True,
    )
    op.create_index("steps_by_patient", "steps", ["patient_id"])
    op.create_index("steps_by_sps_id", "steps", ["sps_id"])
    op.create_index("steps_by_start", "steps", ["listed", "start_local", "id", "modality"])
    op.create_table(
        "performed_step_links",
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column("step_id", NUMBER, nullable=False),
        sa.ForeignKeyConstraint(
            ["sop_instance_uid"], ["performed_steps.sop_instance_uid"], name="performed_step_links_sop_instance_uid_fk"
        ),
        sa.ForeignKeyConstraint(["step_id"], ["steps.id"], name="performed_step_links_step_id_fk"),
        sa.PrimaryKeyConstraint("sop_instance_uid", "step_id", name="performed_step_links_pk"),
        sqlite_with_rowid=False,
    )
    op.create_index("performed_step_links_by_step", "performed_step_links", ["step_id"])
    op.create_table(
        "performed_waiting",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sop_instance_uid"], ["performed_steps.sop_instance_uid"], name="performed_waiting_sop_instance_uid_fk"
        ),
        sa.PrimaryKeyConstraint("kind", "value", "sop_instance_uid", name="performed_waiting_pk"),
        sqlite_with_rowid=False,
    )
    op.create_index("performed_waiting_by_instance", "performed_waiting", ["sop_instance_uid"])
    op.create_table(
        "step_history",
        sa.Column("step_id", NUMBER, nullable=False),
        sa.Column("revision", NUMBER, nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("start_local", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["step_id"], ["steps.id"], name="step_history_step_id_fk"),
        sa.PrimaryKeyConstraint("step_id", "revision", name="step_history_pk"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "step_stations",
        sa.Column("step_id", NUMBER, nullable=False),
        sa.Column("ae_title", sa.Text(), nullable=False),
        sa.Column("listed", sa.Integer(), nullable=False),
        sa.Column("start_local", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["step_id"], ["steps.id"], name="step_stations_step_id_fk"),
        sa.PrimaryKeyConstraint("step_id", "ae_title", name="step_stations_pk"),
        sqlite_with_rowid=False,
    )
    op.create_index("step_stations_by_station", "step_stations", ["ae_title", "listed", "start_local", "step_id"])
    site_namespace = sa.text("INSERT INTO meta (name, value) VALUES ('site_namespace', :value)")
    op.execute(site_namespace.bindparams(value=str(uuid.uuid4())))
