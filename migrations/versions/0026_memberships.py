"""Memberships: other owners in a project, with their role, and invites for them.

Deploy order: before the code that uses it; the previous version does not use it.
"""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_UP = """
CREATE TABLE membership (
    project_id BIGINT NOT NULL,
    owner_id BIGINT NOT NULL,
    role TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT membership_pkey PRIMARY KEY (project_id, owner_id),
    CONSTRAINT membership_project_id_fkey FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE,
    CONSTRAINT membership_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES owner (id),
    CONSTRAINT membership_role_check CHECK (role IN ('viewer', 'member', 'lead'))
);
COMMENT ON TABLE membership IS 'Owners other than the project''s own in a project, with their role.';
CREATE INDEX membership_owner_id_idx ON membership (owner_id);
ALTER TABLE membership ENABLE ROW LEVEL SECURITY;
CREATE POLICY project_scope ON membership USING (
    coalesce(current_setting('llm_bus.project_scope', true), '') IN ('', project_id::text));
CREATE POLICY read_all ON membership FOR SELECT USING (true);

ALTER TABLE invite ADD COLUMN role TEXT;
ALTER TABLE invite ADD CONSTRAINT invite_role_check CHECK (role IN ('viewer', 'member', 'lead'));
ALTER TABLE invite ADD CONSTRAINT invite_person_check
    CHECK (role IS NULL OR participant_id IS NULL AND participant_name IS NULL AND NOT is_admin);
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    # A participation of another owner in a project is unknown to the previous version, which would give it full access.
    op.execute(
        """
        UPDATE token t SET revoked_at = clock_timestamp()
        FROM participation p JOIN participant pt ON pt.id = p.participant_id JOIN project pj ON pj.id = p.project_id
        WHERE t.participation_id = p.id AND pt.owner_id <> pj.owner_id AND t.revoked_at IS NULL;
        UPDATE participation p SET removed_at = clock_timestamp()
        FROM participant pt, project pj
        WHERE pt.id = p.participant_id AND pj.id = p.project_id AND pt.owner_id <> pj.owner_id AND p.removed_at IS NULL;
        DELETE FROM invite WHERE role IS NOT NULL;
        ALTER TABLE invite DROP COLUMN role;
        DROP TABLE membership;
        """
    )
