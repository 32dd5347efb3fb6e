"""Tables of job definitions, job runs, processes and ledger growth samples."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from bus.db.columns import CLOCK_TIMESTAMP, TIMESTAMPTZ, id_column, length_check, metadata, one_of_check
from bus.rules.enums import PROCESS_KINDS

JOB_OUTCOMES = ("running", "ok", "failed", "alarm")
job_run = sa.Table(
    "job_run",
    metadata,
    id_column(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("started_at", TIMESTAMPTZ, nullable=False, server_default=CLOCK_TIMESTAMP),
    sa.Column("finished_at", TIMESTAMPTZ),
    sa.Column("outcome", sa.Text, nullable=False, server_default=sa.text("'running'")),
    sa.Column("counts", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("error", sa.Text),
    # Handle of the operator who requested this run; null for a scheduled run.
    sa.Column("asked_by", sa.Text),
    sa.CheckConstraint(one_of_check("outcome", JOB_OUTCOMES), "outcome"),
    sa.CheckConstraint("(outcome = 'running') = (finished_at IS NULL)", "finished"),
    sa.CheckConstraint(length_check("name", 64), "name"),
)
sa.Index(None, job_run.c.name, job_run.c.id)

job_definition = sa.Table(
    "job",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("about", sa.Text, nullable=False),
    sa.Column("every_seconds", sa.Double, nullable=False),
    sa.Column("rest_seconds", sa.Double, nullable=False),
    sa.Column("seen_at", TIMESTAMPTZ, nullable=False, server_default=CLOCK_TIMESTAMP),
    sa.CheckConstraint(length_check("name", 64), "name"),
    comment="Job definitions, written by the workers for the web, which cannot query them.",
)

run_request = sa.Table(
    "job_request",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("asked_by", sa.Text, nullable=False),
    sa.Column("asked_at", TIMESTAMPTZ, nullable=False, server_default=CLOCK_TIMESTAMP),
    comment="Runs that an operator requested and no worker has begun; at most one per job.",
)

process = sa.Table(
    "process",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("started_at", TIMESTAMPTZ, nullable=False),
    sa.Column("seen_at", TIMESTAMPTZ, nullable=False, server_default=CLOCK_TIMESTAMP),
    sa.Column("settings", JSONB, nullable=False),
    sa.Column("figures", JSONB, nullable=False),
    sa.CheckConstraint(one_of_check("kind", PROCESS_KINDS), "kind"),
    sa.CheckConstraint(length_check("id", 64), "id"),
    sa.CheckConstraint(length_check("host", 255), "host"),
    # Updated every few seconds: the free space keeps the new row version on the same page.
    postgresql_with={"fillfactor": 50},
    comment="Process registry: each process writes its own row; one not seen for a minute has ended.",
)

service_sample = sa.Table(
    "service_sample",
    metadata,
    id_column(),
    sa.Column("at", TIMESTAMPTZ, nullable=False, server_default=CLOCK_TIMESTAMP),
    # Sum of the project clocks; decreases after a purge.
    sa.Column("standing", sa.BigInteger, nullable=False),
    sa.Column("written", sa.BigInteger, nullable=False),
    comment="Periodic samples of the number of events ever written; `written` never decreases.",
)
sa.Index(None, service_sample.c.at)
