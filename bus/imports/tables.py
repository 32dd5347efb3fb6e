"""Tables of imports: the state of each imported project, and the former ids of what was imported."""

import sqlalchemy as sa

from bus.db.columns import TIMESTAMPTZ, created_at_column, length_check, metadata, one_of_check, primary_key_column

IMPORTED_KINDS = ("event", "post", "task", "beads", "agent_mail")

project_import = sa.Table(
    "project_import",
    metadata,
    primary_key_column("project_id"),
    # The id of the project in the original's database.
    sa.Column("original_id", sa.BigInteger, nullable=False),
    # How many rows of the original's ledger have been read, in the order of the import; an import goes on from here.
    sa.Column("rows_read", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    # The last event of the import. Integrity checks of sequences begin after it. Null until the import is complete.
    sa.Column("last_seq", sa.BigInteger),
    created_at_column(),
    sa.Column("finished_at", TIMESTAMPTZ),
    sa.CheckConstraint("(last_seq IS NULL) = (finished_at IS NULL)", "finished"),
    comment="Projects that were imported from the original; such a project is archived until its import is complete.",
)

imported_id = sa.Table(
    "imported_id",
    metadata,
    primary_key_column("project_id"),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("original_id", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.CheckConstraint(one_of_check("kind", IMPORTED_KINDS), "kind"),
    sa.CheckConstraint(length_check("original_id", 200), "original_id"),
    comment="The number here of an event, a post or a task that had another id where it was imported from.",
)
