CREATE TABLE credit_account (
    owner_id BIGINT NOT NULL,
    plan TEXT DEFAULT 'free' NOT NULL,
    balance BIGINT DEFAULT 0 NOT NULL,
    low_balance BIGINT DEFAULT 100 NOT NULL,
    low_told BOOLEAN DEFAULT false NOT NULL,
    delinquent_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT credit_account_pkey PRIMARY KEY (owner_id),
    CONSTRAINT credit_account_plan_check CHECK (plan IN ('free', 'team', 'comped')),
    CONSTRAINT credit_account_low_balance_check CHECK (low_balance >= 0),
    CONSTRAINT credit_account_owner_id_fkey FOREIGN KEY(owner_id) REFERENCES owner (id)
);

CREATE INDEX credit_account_delinquent_idx ON credit_account (delinquent_at) WHERE delinquent_at IS NOT NULL;

CREATE TABLE credit_entry (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    owner_id BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    kind TEXT NOT NULL,
    amount BIGINT NOT NULL,
    balance BIGINT NOT NULL,
    reference TEXT NOT NULL,
    project_id BIGINT,
    first_seq BIGINT,
    last_seq BIGINT,
    detail JSONB DEFAULT '{}' NOT NULL,
    CONSTRAINT credit_entry_pkey PRIMARY KEY (id),
    CONSTRAINT credit_entry_kind_check CHECK (kind IN ('trial', 'grant', 'top_up', 'usage')),
    CONSTRAINT credit_entry_amount_check CHECK ((kind = 'usage') = (amount < 0) AND amount <> 0),
    CONSTRAINT credit_entry_reference_check CHECK (char_length(reference) BETWEEN 1 AND 200),
    CONSTRAINT credit_entry_usage_check CHECK ((kind = 'usage') = (project_id IS NOT NULL)),
    CONSTRAINT credit_entry_owner_id_reference_key UNIQUE (owner_id, reference),
    CONSTRAINT credit_entry_owner_id_fkey FOREIGN KEY(owner_id) REFERENCES owner (id)
);

COMMENT ON TABLE credit_entry IS 'Append-only; `balance` is that of the account after the entry.';

CREATE INDEX credit_entry_owner_id_id_idx ON credit_entry (owner_id, id);

CREATE TABLE price (
    event_type TEXT NOT NULL,
    effective_from TIMESTAMP WITH TIME ZONE NOT NULL,
    credits INTEGER NOT NULL,
    CONSTRAINT price_pkey PRIMARY KEY (event_type, effective_from),
    CONSTRAINT price_event_type_check CHECK (event_type IN ('claim', 'seed', 'register', 'post', 'ack', 'lease', 'release', 'lease_expire', 'task_create', 'task_assign', 'task_start', 'task_block', 'task_resolve', 'task_ship', 'task_requeue', 'presence_lapse', 'escalate')),
    CONSTRAINT price_credits_check CHECK (credits BETWEEN 0 AND 1000000)
);

COMMENT ON TABLE price IS 'What an event costs from a moment on; it is priced at its own time.';

CREATE TABLE meter_mark (
    project_id BIGINT NOT NULL,
    metered_seq BIGINT NOT NULL,
    started_seq BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT meter_mark_pkey PRIMARY KEY (project_id),
    CONSTRAINT meter_mark_metered_seq_check CHECK (started_seq BETWEEN 0 AND metered_seq)
);

COMMENT ON TABLE meter_mark IS 'Up to which event a project has been billed; moved by the transaction that debits.';

CREATE TABLE metering (
    single BOOLEAN DEFAULT true NOT NULL,
    running BOOLEAN DEFAULT false NOT NULL,
    changed_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    changed_by TEXT DEFAULT '' NOT NULL,
    CONSTRAINT metering_pkey PRIMARY KEY (single),
    CONSTRAINT metering_single_check CHECK (single)
);

COMMENT ON TABLE metering IS 'One row: whether events are billed at this moment.';

CREATE TABLE job_run (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    name TEXT NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    outcome TEXT DEFAULT 'running' NOT NULL,
    counts JSONB DEFAULT '{}' NOT NULL,
    error TEXT,
    CONSTRAINT job_run_pkey PRIMARY KEY (id),
    CONSTRAINT job_run_outcome_check CHECK (outcome IN ('running', 'ok', 'failed', 'alarm')),
    CONSTRAINT job_run_finished_check CHECK ((outcome = 'running') = (finished_at IS NULL)),
    CONSTRAINT job_run_name_check CHECK (char_length(name) BETWEEN 1 AND 64)
);

CREATE INDEX job_run_name_id_idx ON job_run (name, id);

CREATE TABLE webhook (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    owner_id BIGINT NOT NULL,
    project_id BIGINT,
    url TEXT NOT NULL,
    secret TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    removed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT webhook_pkey PRIMARY KEY (id),
    CONSTRAINT webhook_url_check CHECK (char_length(url) BETWEEN 1 AND 2000),
    CONSTRAINT webhook_owner_id_fkey FOREIGN KEY(owner_id) REFERENCES owner (id),
    CONSTRAINT webhook_project_id_fkey FOREIGN KEY(project_id) REFERENCES project (id) ON DELETE CASCADE
);

COMMENT ON TABLE webhook IS 'Where the escalations of a project go; without a project, the credit notices of its owner.';

CREATE INDEX webhook_owner_id_project_id_idx ON webhook (owner_id, project_id);

CREATE INDEX webhook_project_id_idx ON webhook (project_id);

CREATE TABLE notice (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    owner_id BIGINT NOT NULL,
    project_id BIGINT,
    kind TEXT NOT NULL,
    channel TEXT NOT NULL,
    webhook_id BIGINT,
    target TEXT NOT NULL,
    content JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp(),
    attempts INTEGER DEFAULT 0 NOT NULL,
    delivered_at TIMESTAMP WITH TIME ZONE,
    said TEXT,
    CONSTRAINT notice_pkey PRIMARY KEY (id),
    CONSTRAINT notice_kind_check CHECK (kind IN ('escalation', 'low_balance', 'delinquent', 'suspended', 'test')),
    CONSTRAINT notice_channel_check CHECK (channel IN ('webhook', 'email')),
    CONSTRAINT notice_delivered_check CHECK (delivered_at IS NULL OR due_at IS NULL),
    CONSTRAINT notice_owner_id_fkey FOREIGN KEY(owner_id) REFERENCES owner (id),
    CONSTRAINT notice_webhook_id_fkey FOREIGN KEY(webhook_id) REFERENCES webhook (id) ON DELETE SET NULL
);

COMMENT ON TABLE notice IS 'What is to be told to people outside, and the log of telling it.';

CREATE INDEX notice_due_idx ON notice (due_at) WHERE due_at IS NOT NULL;

CREATE INDEX notice_owner_id_id_idx ON notice (owner_id, id);

CREATE INDEX notice_webhook_id_idx ON notice (webhook_id);

ALTER TABLE post ADD COLUMN escalate_at timestamptz;
ALTER TABLE post ADD COLUMN escalation smallint DEFAULT 0 NOT NULL;
-- What was overdue before anybody looked is not escalated all at once.
UPDATE post SET escalate_at = ack_due_at
WHERE ack_due_at > clock_timestamp() AND acked_at IS NULL;
CREATE INDEX post_escalate_idx ON post (project_id, escalate_at)
    WHERE escalate_at IS NOT NULL AND acked_at IS NULL;

CREATE INDEX lease_due_idx ON lease (project_id, expires_at) WHERE ended_at IS NULL;

ALTER TABLE presence ADD COLUMN lapsed_at timestamptz;
CREATE INDEX presence_here_idx ON presence (project_id, participation_id) WHERE lapsed_at IS NULL;

ALTER TABLE project ADD COLUMN gone_window_seconds integer DEFAULT 3600 NOT NULL;
ALTER TABLE project ADD COLUMN escalation_pause_seconds integer DEFAULT 300 NOT NULL;
ALTER TABLE project ADD COLUMN escalation_email text;
ALTER TABLE project ADD CONSTRAINT project_gone_window_check CHECK (gone_window_seconds BETWEEN 60 AND 2592000);
ALTER TABLE project ADD CONSTRAINT project_escalation_pause_check CHECK (escalation_pause_seconds BETWEEN 10 AND 86400);
ALTER TABLE project ADD CONSTRAINT project_escalation_email_check
    CHECK (char_length(escalation_email) BETWEEN 3 AND 254);

ALTER TABLE invite ADD COLUMN expired_at timestamptz;
CREATE INDEX invite_due_idx ON invite (expires_at) WHERE revoked_at IS NULL AND expired_at IS NULL;

CREATE TRIGGER credit_entry_update BEFORE UPDATE OR DELETE OR TRUNCATE ON credit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION guard_append_only();

-- What writes to the shared record costs one credit. Registering, and what the clock writes, is free.
INSERT INTO price (event_type, effective_from, credits)
SELECT type, '2000-01-01', CASE WHEN type IN ('register', 'lease_expire', 'presence_lapse', 'escalate') THEN 0 ELSE 1 END
FROM unnest(ARRAY['claim', 'seed', 'register', 'post', 'ack', 'lease', 'release', 'lease_expire', 'task_create',
                  'task_assign', 'task_start', 'task_block', 'task_resolve', 'task_ship', 'task_requeue',
                  'presence_lapse', 'escalate']) AS type;

INSERT INTO metering DEFAULT VALUES;
