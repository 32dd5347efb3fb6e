"""Tables of owners, projects, participants, tokens and invites; all but the project clock are rarely written."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB

from bus.db.columns import (
    CLOCK_TIMESTAMP,
    EMPTY_DEFAULT,
    FALSE_DEFAULT,
    TIMESTAMPTZ,
    created_at_column,
    id_column,
    length_check,
    metadata,
    one_of_check,
    primary_key_column,
)
from bus.rules.enums import MEMBER_ROLES, PARTICIPANT_KINDS
from bus.scopes import FULL_SCOPE, SCOPES

FULL_SCOPE_DEFAULT = sa.text(f"'{FULL_SCOPE}'")

owner = sa.Table(
    "owner",
    metadata,
    id_column(),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("handle", sa.Text, nullable=False),
    sa.Column("operator", sa.Boolean, nullable=False, server_default=FALSE_DEFAULT),
    created_at_column(),
    sa.Column("suspended_at", TIMESTAMPTZ),
    sa.Column("suspended_reason", sa.Text),
    sa.CheckConstraint(r"handle ~ '^[a-z0-9](-?[a-z0-9])*$' AND char_length(handle) <= 64", "handle"),
    sa.CheckConstraint(length_check("email", 254, 3), "email"),
    sa.UniqueConstraint("handle"),
)
sa.Index("owner_email_key", sa.func.lower(owner.c.email), unique=True)

owner_handle = sa.Table(
    "owner_handle",
    metadata,
    sa.Column("handle", sa.Text, primary_key=True),
    sa.Column("owner_id", sa.ForeignKey("owner.id"), nullable=False, index=True),
    created_at_column(),
    comment="Every handle that an owner has or had, written by a trigger; a handle is never given out again.",
)

project = sa.Table(
    "project",
    metadata,
    id_column(),
    sa.Column("owner_id", sa.ForeignKey("owner.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("name_key", sa.Text, nullable=False),
    sa.Column("presence_window_seconds", sa.Integer, nullable=False, server_default=sa.text("900")),
    sa.Column("stall_window_seconds", sa.Integer),
    created_at_column(),
    sa.Column("archived_at", TIMESTAMPTZ),
    sa.Column("purging_at", TIMESTAMPTZ),
    sa.Column("gone_window_seconds", sa.Integer, nullable=False, server_default=sa.text("3600")),
    sa.Column("escalation_pause_seconds", sa.Integer, nullable=False, server_default=sa.text("300")),
    sa.Column("escalation_email", sa.Text),
    sa.Column("case_insensitive_paths", sa.Boolean, nullable=False, server_default=FALSE_DEFAULT),
    sa.Column(
        "ref_patterns",
        JSONB,
        nullable=False,
        server_default=sa.text("'[]'"),
        comment="Pairs of a pattern of RE2 and the address of its references.",
    ),
    sa.CheckConstraint("jsonb_typeof(ref_patterns) = 'array'", "ref_patterns"),
    sa.CheckConstraint(length_check("name", 64), "name"),
    sa.CheckConstraint("presence_window_seconds BETWEEN 60 AND 86400", "presence_window"),
    sa.CheckConstraint("gone_window_seconds BETWEEN 60 AND 2592000", "gone_window"),
    sa.CheckConstraint("stall_window_seconds BETWEEN 60 AND 2592000", "stall_window"),
    sa.CheckConstraint("escalation_pause_seconds BETWEEN 10 AND 86400", "escalation_pause"),
    sa.CheckConstraint(length_check("escalation_email", 254, 3), "escalation_email"),
    sa.UniqueConstraint("owner_id", "name_key"),
)

project_clock = sa.Table(
    "project_clock",
    metadata,
    primary_key_column("project_id"),
    sa.Column("last_seq", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("last_at", TIMESTAMPTZ, nullable=False, server_default=CLOCK_TIMESTAMP),
    sa.Column("last_task", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    # Archived or being purged. Kept here so that a transaction that waited for the clock reads it after the wait.
    sa.Column("closed", sa.Boolean, nullable=False, server_default=FALSE_DEFAULT),
    postgresql_with={"fillfactor": 10},
    comment="The hot row: locked until the writing transaction commits, so that seq order is commit order.",
)

participant = sa.Table(
    "participant",
    metadata,
    id_column(),
    sa.Column("owner_id", sa.ForeignKey("owner.id"), nullable=False, index=True),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    created_at_column(),
    sa.Column("removed_at", TIMESTAMPTZ),
    sa.CheckConstraint(f"{length_check('label', 64, 0)} AND position('/' in label) = 0", "label"),
    sa.CheckConstraint(one_of_check("kind", PARTICIPANT_KINDS), "kind"),
)

participant_name = sa.Table(
    "participant_name",
    metadata,
    sa.Column("owner_id", sa.ForeignKey("owner.id"), primary_key=True),
    sa.Column("label_key", sa.Text, primary_key=True),
    sa.Column("participant_id", sa.ForeignKey("participant.id"), nullable=False, index=True),
    comment="Every name that a participant of the owner has or had; a name is never given out again.",
)

participation = sa.Table(
    "participation",
    metadata,
    id_column(),
    sa.Column("project_id", sa.ForeignKey("project.id"), nullable=False),
    sa.Column("participant_id", sa.ForeignKey("participant.id"), nullable=False, index=True),
    sa.Column("lane", sa.Text),
    sa.Column("is_admin", sa.Boolean, nullable=False, server_default=FALSE_DEFAULT),
    created_at_column(),
    sa.Column("removed_at", TIMESTAMPTZ),
    sa.CheckConstraint(length_check("lane", 64), "lane"),
    sa.UniqueConstraint("project_id", "participant_id"),
)

membership = sa.Table(
    "membership",
    metadata,
    sa.Column("project_id", sa.ForeignKey("project.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("owner_id", sa.ForeignKey("owner.id"), primary_key=True, index=True),
    sa.Column("role", sa.Text, nullable=False),
    created_at_column(),
    sa.CheckConstraint(one_of_check("role", MEMBER_ROLES), "role"),
    comment="Owners other than the project's own in a project, with their role.",
)

token = sa.Table(
    "token",
    metadata,
    id_column(),
    sa.Column("participation_id", sa.ForeignKey("participation.id"), nullable=False, index=True),
    sa.Column("sha256", BYTEA, nullable=False, unique=True),
    sa.Column("hint", sa.Text, nullable=False),
    sa.Column("label", sa.Text, nullable=False, server_default=EMPTY_DEFAULT),
    created_at_column(),
    sa.Column("expires_at", TIMESTAMPTZ),
    sa.Column("last_used_at", TIMESTAMPTZ),
    sa.Column("revoked_at", TIMESTAMPTZ),
    # Issued by the original and imported, so it has the original's form.
    sa.Column("legacy", sa.Boolean, nullable=False, server_default=FALSE_DEFAULT),
    # The token of the connected client whose access token this is (client_grant); null for all others.
    sa.Column("parent_id", sa.ForeignKey("token.id", ondelete="CASCADE")),
    # Never changed: processes cache it (bus/ctx.py).
    sa.Column("scope", sa.Text, nullable=False, server_default=FULL_SCOPE_DEFAULT),
    sa.CheckConstraint("octet_length(sha256) = 32", "sha256"),
    sa.CheckConstraint(length_check("label", 64, 0), "label"),
    sa.CheckConstraint(one_of_check("scope", SCOPES), "scope"),
)
sa.Index(None, token.c.parent_id, postgresql_where=token.c.parent_id.is_not(None))

invite = sa.Table(
    "invite",
    metadata,
    id_column(),
    sa.Column("project_id", sa.ForeignKey("project.id"), nullable=False, index=True),
    sa.Column("sha256", BYTEA, nullable=False, unique=True),
    sa.Column("hint", sa.Text, nullable=False),
    sa.Column("participant_name", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("lane", sa.Text),
    sa.Column("is_admin", sa.Boolean, nullable=False, server_default=FALSE_DEFAULT),
    sa.Column("uses", sa.Integer, nullable=False),
    sa.Column("used", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("created_by", sa.Text, nullable=False),
    created_at_column(),
    sa.Column("expires_at", TIMESTAMPTZ, nullable=False),
    sa.Column("revoked_at", TIMESTAMPTZ),
    # When its expiry was written to the audit log; expires_at decides whether it has expired.
    sa.Column("expired_at", TIMESTAMPTZ),
    # The existing participant that gets one more token.
    sa.Column("participant_id", sa.ForeignKey("participant.id"), index=True),
    # The only verified address that may accept the invite.
    sa.Column("email", sa.Text),
    # The project-admin that created it and the token of that call, without which it is void; null for the owner.
    sa.Column("created_by_participation_id", sa.BigInteger),
    sa.Column("created_by_token_id", sa.BigInteger),
    # For a person, who becomes a member with this role; null for a participant of the project's owner.
    sa.Column("role", sa.Text),
    # Of the e-mail with the link: its message in the outbox, and the code that was sent last.
    sa.Column("mail_id", sa.BigInteger),
    sa.Column("mailed_sha256", BYTEA, unique=True),
    sa.CheckConstraint("octet_length(mailed_sha256) = 32", "mailed_sha256"),
    sa.CheckConstraint("uses BETWEEN 1 AND 50 AND used BETWEEN 0 AND uses", "uses"),
    sa.CheckConstraint(one_of_check("kind", PARTICIPANT_KINDS), "kind"),
    sa.CheckConstraint("octet_length(sha256) = 32", "sha256"),
    sa.CheckConstraint(length_check("email", 254, 3), "email"),
    sa.CheckConstraint("participant_id IS NULL OR uses = 1", "chosen"),
    sa.CheckConstraint(one_of_check("role", MEMBER_ROLES), "role"),
    sa.CheckConstraint(
        "role IS NULL OR participant_id IS NULL AND participant_name IS NULL AND NOT is_admin", "person"
    ),
)

sa.Index(
    "invite_due_idx",
    invite.c.expires_at,
    postgresql_where=sa.and_(invite.c.revoked_at.is_(None), invite.c.expired_at.is_(None)),
)

invite_redemption = sa.Table(
    "invite_redemption",
    metadata,
    id_column(),
    sa.Column("invite_id", sa.ForeignKey("invite.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("participation_id", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    created_at_column(),
    sa.Column("accepted_by", sa.Text),
)

share_link = sa.Table(
    "share_link",
    metadata,
    id_column(),
    sa.Column("project_id", sa.ForeignKey("project.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("sha256", BYTEA, nullable=False, unique=True),
    sa.Column("hint", sa.Text, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    created_at_column(),
    sa.Column("expires_at", TIMESTAMPTZ, nullable=False),
    sa.Column("revoked_at", TIMESTAMPTZ),
    sa.CheckConstraint("octet_length(sha256) = 32", "sha256"),
    comment="Read-only links to the live board of a project, for viewers without an account.",
)

client_grant = sa.Table(
    "client_grant",
    metadata,
    id_column(),
    sa.Column("owner_id", sa.ForeignKey("owner.id"), nullable=False, index=True),
    # Stands for the connection; its text is known to no one. Access tokens are further tokens, with it as their parent.
    sa.Column("token_id", sa.ForeignKey("token.id", ondelete="CASCADE"), nullable=False, unique=True),
    sa.Column("client_id", sa.Text, nullable=False),
    sa.Column("client_name", sa.Text, nullable=False),
    # Null: allowed for a machine without a browser (device_authorization), whose device code is the code.
    sa.Column("redirect_uri", sa.Text),
    sa.Column("resource", sa.Text, nullable=False),
    created_at_column(),
    # Null: as long as the client uses it.
    sa.Column("ends_at", TIMESTAMPTZ),
    sa.Column("code_sha256", BYTEA, nullable=False, unique=True),
    sa.Column("code_challenge", sa.Text),
    sa.Column("code_used_at", TIMESTAMPTZ),
    # Of the newest refresh token: its family, which stays, and the whole. Null until the code was exchanged.
    sa.Column("family_sha256", BYTEA, unique=True),
    sa.Column("refresh_sha256", BYTEA),
    sa.Column("replaced_sha256", BYTEA),
    sa.Column("replaced_salt", BYTEA),
    sa.Column("replaced_at", TIMESTAMPTZ),
    # The widest of its access tokens.
    sa.Column("scope", sa.Text, nullable=False, server_default=FULL_SCOPE_DEFAULT),
    sa.CheckConstraint("octet_length(code_sha256) = 32", "code_sha256"),
    sa.CheckConstraint("(redirect_uri IS NULL) = (code_challenge IS NULL)", "code_challenge"),
    sa.CheckConstraint("octet_length(replaced_sha256) = 32 AND octet_length(replaced_salt) = 32", "replaced_sha256"),
    sa.CheckConstraint("octet_length(family_sha256) = 32 AND octet_length(refresh_sha256) = 32", "refresh_sha256"),
    sa.CheckConstraint(length_check("client_id", 2048), "client_id"),
    sa.CheckConstraint(length_check("client_name", 64), "client_name"),
    sa.CheckConstraint(length_check("redirect_uri", 2048), "redirect_uri"),
    sa.CheckConstraint(one_of_check("scope", SCOPES), "scope"),
    comment="Connected clients: what an owner has let an OAuth client do, and the state of its code and refresh token.",
)

oauth_client = sa.Table(
    "oauth_client",
    metadata,
    sa.Column("client_id", sa.Text, primary_key=True),
    sa.Column("is_registered", sa.Boolean, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("redirect_uris", ARRAY(sa.Text), nullable=False),
    created_at_column(),
    sa.Column("expires_at", TIMESTAMPTZ, nullable=False),
    # Whether it may ask for access of a machine without a browser.
    sa.Column("uses_device_codes", sa.Boolean, nullable=False, server_default=FALSE_DEFAULT),
    sa.CheckConstraint(length_check("client_id", 2048), "client_id"),
    sa.CheckConstraint(length_check("name", 64), "name"),
    comment="OAuth clients: registered ones, and copies of the documents of those whose id is an address.",
)
sa.Index(None, oauth_client.c.expires_at)

device_authorization = sa.Table(
    "device_authorization",
    metadata,
    id_column(),
    sa.Column("client_id", sa.Text, nullable=False),
    sa.Column("client_name", sa.Text, nullable=False),
    sa.Column("resource", sa.Text, nullable=False),
    # As the client sent it.
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("device_sha256", BYTEA, nullable=False, unique=True),
    sa.Column("user_code_sha256", BYTEA, nullable=False, unique=True),
    sa.Column("interval_seconds", sa.Integer, nullable=False),
    sa.Column("polled_at", TIMESTAMPTZ),
    # Null: no one has decided yet.
    sa.Column("is_allowed", sa.Boolean),
    created_at_column(),
    sa.Column("expires_at", TIMESTAMPTZ, nullable=False),
    sa.CheckConstraint("octet_length(device_sha256) = 32 AND octet_length(user_code_sha256) = 32", "device_sha256"),
    sa.CheckConstraint(length_check("client_id", 2048), "client_id"),
    sa.CheckConstraint(length_check("client_name", 64), "client_name"),
    sa.CheckConstraint(length_check("scope", 1000, 0), "scope"),
    comment="Requests of OAuth clients on machines without a browser, on which an owner decides elsewhere.",
)
sa.Index(None, device_authorization.c.expires_at)

audit = sa.Table(
    "audit",
    metadata,
    id_column(),
    sa.Column("at", TIMESTAMPTZ, nullable=False, server_default=CLOCK_TIMESTAMP),
    # Null: an act of the service itself, such as a new price, which concerns no owner.
    sa.Column("owner_id", sa.BigInteger),
    sa.Column("project_id", sa.BigInteger),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("detail", JSONB, nullable=False, server_default=sa.text("'{}'")),
)
sa.Index(None, audit.c.owner_id, audit.c.id)
sa.Index(None, audit.c.project_id, audit.c.id)
# For the operator, who searches the acts of all owners.
sa.Index(None, audit.c.actor, audit.c.id)
sa.Index(None, audit.c.action, audit.c.id)
sa.Index(None, audit.c.at)
