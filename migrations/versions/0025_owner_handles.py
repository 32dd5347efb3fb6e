"""Every handle that an owner has or had, so that a former one still finds its owner and is never given out again.

Deploy order: before the code that uses it. The previous version changes no handle; a trigger writes those of owners
that it creates.
"""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_UPGRADE = """
CREATE TABLE owner_handle (
    handle TEXT NOT NULL,
    owner_id BIGINT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT owner_handle_pkey PRIMARY KEY (handle),
    CONSTRAINT owner_handle_owner_id_fkey FOREIGN KEY(owner_id) REFERENCES owner (id)
);
CREATE INDEX owner_handle_owner_id_idx ON owner_handle (owner_id);
COMMENT ON TABLE owner_handle IS
    'Every handle that an owner has or had, written by a trigger; a handle is never given out again.';

-- Of two owners who take a handle at once, the second waits for the first and is refused by the primary key.
CREATE FUNCTION reserve_handle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM owner_handle h WHERE h.handle = NEW.handle AND h.owner_id = NEW.id) THEN
        INSERT INTO owner_handle (handle, owner_id) VALUES (NEW.handle, NEW.id);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER owner_reserve_handle AFTER INSERT OR UPDATE OF handle ON owner
    FOR EACH ROW EXECUTE FUNCTION reserve_handle();
INSERT INTO owner_handle (handle, owner_id, created_at) SELECT handle, id, created_at FROM owner;
"""


def upgrade() -> None:
    op.execute(_UPGRADE)


def downgrade() -> None:
    op.execute("DROP TRIGGER owner_reserve_handle ON owner; DROP FUNCTION reserve_handle(); DROP TABLE owner_handle")
