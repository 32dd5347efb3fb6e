-- The first schema. Written out by bus/tables.py once and frozen: later changes are later migrations.

CREATE TABLE audit (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    owner_id BIGINT NOT NULL,
    project_id BIGINT,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail JSONB DEFAULT '{}' NOT NULL,
    CONSTRAINT audit_pkey PRIMARY KEY (id)
);
CREATE INDEX audit_owner_id_id_idx ON audit (owner_id, id);
CREATE INDEX audit_project_id_id_idx ON audit (project_id, id);

CREATE TABLE cursor (
    project_id BIGINT NOT NULL,
    participation_id BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    CONSTRAINT cursor_pkey PRIMARY KEY (project_id, participation_id)
)
 WITH (fillfactor = 50);

CREATE TABLE delivery (
    project_id BIGINT NOT NULL,
    participation_id BIGINT NOT NULL,
    post_id BIGINT NOT NULL,
    addressed BOOLEAN DEFAULT true NOT NULL,
    surfaced_at TIMESTAMP WITH TIME ZONE,
    acked_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT delivery_pkey PRIMARY KEY (project_id, participation_id, post_id)
);
CREATE INDEX delivery_post_idx ON delivery (project_id, post_id);
CREATE INDEX delivery_unacked_idx ON delivery (project_id, participation_id, post_id) WHERE acked_at IS NULL;
COMMENT ON TABLE delivery IS 'One row per recipient; `addressed` is false where somebody acked a post meant for others.';

CREATE TABLE event (
    project_id BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    participation_id BIGINT,
    actor TEXT NOT NULL,
    type TEXT NOT NULL,
    payload JSONB NOT NULL,
    CONSTRAINT event_pkey PRIMARY KEY (project_id, seq),
    CONSTRAINT event_type_check CHECK (type IN ('claim', 'seed', 'register', 'post', 'ack', 'lease', 'release', 'lease_expire', 'task_create', 'task_assign', 'task_start', 'task_block', 'task_resolve', 'task_ship', 'task_requeue', 'presence_lapse', 'escalate')),
    CONSTRAINT event_seq_check CHECK (seq > 0)
);
CREATE INDEX event_actor_idx ON event (project_id, participation_id, type, seq);
CREATE INDEX event_number_idx ON event (project_id, ((payload ->> 'number')::bigint), seq) WHERE type = 'claim';
CREATE INDEX event_ref_idx ON event (project_id, (payload ->> 'ref'), type, seq) WHERE (payload ->> 'ref') IS NOT NULL;
CREATE INDEX event_sequence_idx ON event (project_id, (payload ->> 'sequence'), type, seq) WHERE type IN ('claim', 'seed');
CREATE INDEX event_tag_idx ON event (project_id, (payload ->> 'tag'), type, seq) WHERE (payload ->> 'tag') IS NOT NULL;
CREATE INDEX event_type_idx ON event (project_id, type, seq);

CREATE TABLE idempotency (
    project_id BIGINT NOT NULL,
    participation_id BIGINT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    result JSONB,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT idempotency_pkey PRIMARY KEY (project_id, participation_id, key),
    CONSTRAINT idempotency_key_check CHECK (char_length(key) BETWEEN 1 AND 64)
);
CREATE INDEX idempotency_age_idx ON idempotency (project_id, created_at);

CREATE TABLE lease (
    project_id BIGINT NOT NULL,
    id BIGINT NOT NULL,
    surface TEXT NOT NULL,
    prefix TEXT COLLATE "C" NOT NULL,
    mode TEXT NOT NULL,
    participation_id BIGINT NOT NULL,
    actor TEXT NOT NULL,
    note TEXT,
    fence BIGINT NOT NULL,
    acquired_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    ended_by TEXT,
    CONSTRAINT lease_pkey PRIMARY KEY (project_id, id),
    CONSTRAINT lease_surface_check CHECK (char_length(surface) BETWEEN 1 AND 200),
    CONSTRAINT lease_mode_check CHECK (mode IN ('exclusive', 'shared')),
    CONSTRAINT lease_ended_by_check CHECK (ended_by IN ('release', 'expiry')),
    CONSTRAINT lease_ended_check CHECK ((ended_at IS NULL) = (ended_by IS NULL)),
    CONSTRAINT lease_note_check CHECK (char_length(note) BETWEEN 1 AND 500)
);
CREATE UNIQUE INDEX lease_live_holder_key ON lease (project_id, participation_id, surface) WHERE ended_at IS NULL;
CREATE INDEX lease_live_idx ON lease (project_id, id) WHERE ended_at IS NULL;
CREATE INDEX lease_live_prefix_idx ON lease (project_id, prefix, id) WHERE ended_at IS NULL;

CREATE TABLE owner (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    email TEXT NOT NULL,
    handle TEXT NOT NULL,
    operator BOOLEAN DEFAULT false NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    suspended_at TIMESTAMP WITH TIME ZONE,
    suspended_reason TEXT,
    CONSTRAINT owner_pkey PRIMARY KEY (id),
    CONSTRAINT owner_handle_check CHECK (handle ~ '^[a-z0-9](-?[a-z0-9])*$' AND char_length(handle) <= 64),
    CONSTRAINT owner_email_check CHECK (char_length(email) BETWEEN 3 AND 254),
    CONSTRAINT owner_handle_key UNIQUE (handle)
);
CREATE UNIQUE INDEX owner_email_key ON owner (lower(email));

CREATE TABLE post (
    project_id BIGINT NOT NULL,
    id BIGINT NOT NULL,
    participation_id BIGINT NOT NULL,
    actor TEXT NOT NULL,
    to_lane TEXT,
    to_participation_id BIGINT,
    to_actor TEXT,
    subject TEXT,
    body TEXT NOT NULL,
    ref TEXT,
    tag TEXT,
    reply_to BIGINT,
    recipients INTEGER NOT NULL,
    ack_due_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    acked_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT post_pkey PRIMARY KEY (project_id, id),
    CONSTRAINT post_addressed_check CHECK (to_lane IS NOT NULL OR to_participation_id IS NOT NULL),
    CONSTRAINT post_body_check CHECK (char_length(body) BETWEEN 1 AND 8000),
    CONSTRAINT post_subject_check CHECK (char_length(subject) BETWEEN 1 AND 200),
    CONSTRAINT post_ref_check CHECK (char_length(ref) BETWEEN 1 AND 200),
    CONSTRAINT post_tag_check CHECK (char_length(tag) BETWEEN 1 AND 64),
    CONSTRAINT post_to_lane_check CHECK (char_length(to_lane) BETWEEN 1 AND 64)
);
CREATE INDEX post_due_idx ON post (project_id, ack_due_at) WHERE ack_due_at IS NOT NULL AND acked_at IS NULL;
CREATE INDEX post_lane_idx ON post (project_id, to_lane, id) WHERE to_lane IS NOT NULL;
CREATE INDEX post_ref_idx ON post (project_id, ref, id) WHERE ref IS NOT NULL;
CREATE INDEX post_reply_idx ON post (project_id, reply_to, id) WHERE reply_to IS NOT NULL;
CREATE INDEX post_tag_idx ON post (project_id, tag, id) WHERE tag IS NOT NULL;
CREATE INDEX post_unacked_idx ON post (project_id, id) WHERE acked_at IS NULL;
CREATE INDEX post_unacked_lane_idx ON post (project_id, to_lane, id) WHERE to_lane IS NOT NULL AND acked_at IS NULL;

CREATE TABLE presence (
    project_id BIGINT NOT NULL,
    participation_id BIGINT NOT NULL,
    lane TEXT,
    status TEXT DEFAULT '' NOT NULL,
    registered_at TIMESTAMP WITH TIME ZONE,
    last_seen TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT presence_pkey PRIMARY KEY (project_id, participation_id),
    CONSTRAINT presence_lane_check CHECK (char_length(lane) BETWEEN 1 AND 64),
    CONSTRAINT presence_status_check CHECK (char_length(status) BETWEEN 0 AND 140)
)
 WITH (fillfactor = 50);
CREATE INDEX presence_lane_idx ON presence (project_id, lane);

CREATE TABLE project_clock (
    project_id BIGINT NOT NULL,
    last_seq BIGINT DEFAULT 0 NOT NULL,
    last_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    last_task BIGINT DEFAULT 0 NOT NULL,
    closed BOOLEAN DEFAULT false NOT NULL,
    CONSTRAINT project_clock_pkey PRIMARY KEY (project_id)
)
 WITH (fillfactor = 10);
COMMENT ON TABLE project_clock IS 'The hot row: locked until the writing transaction commits, so that seq order is commit order.';

CREATE TABLE sequence (
    project_id BIGINT NOT NULL,
    name TEXT NOT NULL,
    current BIGINT NOT NULL,
    prefix TEXT DEFAULT '' NOT NULL,
    pad SMALLINT DEFAULT 0 NOT NULL,
    claimed BIGINT,
    claimed_as TEXT,
    claimed_by TEXT,
    claimed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT sequence_pkey PRIMARY KEY (project_id, name),
    CONSTRAINT sequence_name_check CHECK (name ~ '^[a-z0-9_-]{1,64}$'),
    CONSTRAINT sequence_current_check CHECK (current BETWEEN 0 AND 9007199254740991),
    CONSTRAINT sequence_prefix_check CHECK (char_length(prefix) BETWEEN 0 AND 16),
    CONSTRAINT sequence_pad_check CHECK (pad BETWEEN 0 AND 12)
)
 WITH (fillfactor = 50);

CREATE TABLE task (
    project_id BIGINT NOT NULL,
    id BIGINT NOT NULL,
    title TEXT NOT NULL,
    detail TEXT,
    lane TEXT,
    participation_id BIGINT,
    owner TEXT,
    status TEXT NOT NULL,
    priority SMALLINT NOT NULL,
    open_blockers INTEGER DEFAULT 0 NOT NULL,
    created_by TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ref TEXT,
    CONSTRAINT task_pkey PRIMARY KEY (project_id, id),
    CONSTRAINT task_title_check CHECK (char_length(title) BETWEEN 1 AND 200),
    CONSTRAINT task_detail_check CHECK (char_length(detail) BETWEEN 1 AND 4000),
    CONSTRAINT task_lane_check CHECK (char_length(lane) BETWEEN 1 AND 64),
    CONSTRAINT task_ref_check CHECK (char_length(ref) BETWEEN 1 AND 200),
    CONSTRAINT task_status_check CHECK (status IN ('open', 'assigned', 'in_progress', 'blocked', 'done')),
    CONSTRAINT task_priority_check CHECK (priority BETWEEN 0 AND 4),
    CONSTRAINT task_open_blockers_check CHECK (open_blockers >= 0),
    CONSTRAINT task_assignee_check CHECK (status = 'open' OR participation_id IS NOT NULL),
    CONSTRAINT task_blocked_check CHECK (status <> 'blocked' OR open_blockers > 0),
    CONSTRAINT task_unblocked_check CHECK (status NOT IN ('in_progress', 'done') OR open_blockers = 0)
);
CREATE INDEX task_lane_idx ON task (project_id, lane, id);
CREATE INDEX task_owner_idx ON task (project_id, participation_id, id);
CREATE INDEX task_ready_idx ON task (project_id, priority, id) WHERE status IN ('open', 'assigned') AND open_blockers = 0;
CREATE INDEX task_status_idx ON task (project_id, status, id);

CREATE TABLE task_blocker (
    project_id BIGINT NOT NULL,
    task_id BIGINT NOT NULL,
    id BIGINT NOT NULL,
    on_task_id BIGINT,
    reason TEXT,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    resolved_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT task_blocker_pkey PRIMARY KEY (project_id, task_id, id),
    CONSTRAINT task_blocker_why_check CHECK (on_task_id IS NOT NULL OR reason IS NOT NULL),
    CONSTRAINT task_blocker_self_check CHECK (on_task_id <> task_id),
    CONSTRAINT task_blocker_reason_check CHECK (char_length(reason) BETWEEN 1 AND 500)
);
CREATE INDEX task_blocker_open_idx ON task_blocker (project_id, on_task_id, task_id) WHERE resolved_at IS NULL;

CREATE TABLE participant (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    owner_id BIGINT NOT NULL,
    label TEXT NOT NULL,
    kind TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    removed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT participant_pkey PRIMARY KEY (id),
    CONSTRAINT participant_label_check CHECK (char_length(label) BETWEEN 0 AND 64 AND position('/' in label) = 0),
    CONSTRAINT participant_kind_check CHECK (kind IN ('agent', 'human')),
    CONSTRAINT participant_owner_id_fkey FOREIGN KEY(owner_id) REFERENCES owner (id)
);
CREATE INDEX participant_owner_id_idx ON participant (owner_id);

CREATE TABLE project (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    owner_id BIGINT NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    presence_window_seconds INTEGER DEFAULT 900 NOT NULL,
    stall_window_seconds INTEGER,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    archived_at TIMESTAMP WITH TIME ZONE,
    purging_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT project_pkey PRIMARY KEY (id),
    CONSTRAINT project_name_check CHECK (char_length(name) BETWEEN 1 AND 64),
    CONSTRAINT project_presence_window_check CHECK (presence_window_seconds BETWEEN 60 AND 86400),
    CONSTRAINT project_stall_window_check CHECK (stall_window_seconds BETWEEN 60 AND 2592000),
    CONSTRAINT project_owner_id_name_key_key UNIQUE (owner_id, name_key),
    CONSTRAINT project_owner_id_fkey FOREIGN KEY(owner_id) REFERENCES owner (id)
);

CREATE TABLE invite (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    project_id BIGINT NOT NULL,
    sha256 BYTEA NOT NULL,
    hint TEXT NOT NULL,
    participant_name TEXT,
    kind TEXT NOT NULL,
    lane TEXT,
    is_admin BOOLEAN DEFAULT false NOT NULL,
    uses INTEGER NOT NULL,
    used INTEGER DEFAULT 0 NOT NULL,
    created_by TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    revoked_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT invite_pkey PRIMARY KEY (id),
    CONSTRAINT invite_uses_check CHECK (uses BETWEEN 1 AND 50 AND used BETWEEN 0 AND uses),
    CONSTRAINT invite_kind_check CHECK (kind IN ('agent', 'human')),
    CONSTRAINT invite_sha256_check CHECK (octet_length(sha256) = 32),
    CONSTRAINT invite_project_id_fkey FOREIGN KEY(project_id) REFERENCES project (id),
    CONSTRAINT invite_sha256_key UNIQUE (sha256)
);
CREATE INDEX invite_project_id_idx ON invite (project_id);

CREATE TABLE participant_name (
    owner_id BIGINT NOT NULL,
    label_key TEXT NOT NULL,
    participant_id BIGINT NOT NULL,
    CONSTRAINT participant_name_pkey PRIMARY KEY (owner_id, label_key),
    CONSTRAINT participant_name_owner_id_fkey FOREIGN KEY(owner_id) REFERENCES owner (id),
    CONSTRAINT participant_name_participant_id_fkey FOREIGN KEY(participant_id) REFERENCES participant (id)
);
CREATE INDEX participant_name_participant_id_idx ON participant_name (participant_id);
COMMENT ON TABLE participant_name IS 'Every name that a participant of the owner bears or bore, so that none is handed out again.';

CREATE TABLE participation (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    project_id BIGINT NOT NULL,
    participant_id BIGINT NOT NULL,
    lane TEXT,
    is_admin BOOLEAN DEFAULT false NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    removed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT participation_pkey PRIMARY KEY (id),
    CONSTRAINT participation_lane_check CHECK (char_length(lane) BETWEEN 1 AND 64),
    CONSTRAINT participation_project_id_participant_id_key UNIQUE (project_id, participant_id),
    CONSTRAINT participation_project_id_fkey FOREIGN KEY(project_id) REFERENCES project (id),
    CONSTRAINT participation_participant_id_fkey FOREIGN KEY(participant_id) REFERENCES participant (id)
);
CREATE INDEX participation_participant_id_idx ON participation (participant_id);

CREATE TABLE invite_redemption (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    invite_id BIGINT NOT NULL,
    participation_id BIGINT NOT NULL,
    actor TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT invite_redemption_pkey PRIMARY KEY (id),
    CONSTRAINT invite_redemption_invite_id_fkey FOREIGN KEY(invite_id) REFERENCES invite (id) ON DELETE CASCADE
);
CREATE INDEX invite_redemption_invite_id_idx ON invite_redemption (invite_id);

CREATE TABLE token (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    participation_id BIGINT NOT NULL,
    sha256 BYTEA NOT NULL,
    hint TEXT NOT NULL,
    label TEXT DEFAULT '' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    last_used_at TIMESTAMP WITH TIME ZONE,
    revoked_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT token_pkey PRIMARY KEY (id),
    CONSTRAINT token_sha256_check CHECK (octet_length(sha256) = 32),
    CONSTRAINT token_label_check CHECK (char_length(label) BETWEEN 0 AND 64),
    CONSTRAINT token_participation_id_fkey FOREIGN KEY(participation_id) REFERENCES participation (id),
    CONSTRAINT token_sha256_key UNIQUE (sha256)
);
CREATE INDEX token_participation_id_idx ON token (participation_id);
