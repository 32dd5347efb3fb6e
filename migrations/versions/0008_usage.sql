-- Whether the transaction that wrote a usage entry also wrote its usage. First, because the lock blocks all meters until
-- the existing entries are itemised below.
ALTER TABLE credit_entry ADD COLUMN itemised BOOLEAN DEFAULT false NOT NULL;

CREATE TABLE credit_usage (
    owner_id BIGINT NOT NULL,
    day DATE NOT NULL,
    project_id BIGINT NOT NULL,
    participant_id BIGINT NOT NULL,
    event_type TEXT NOT NULL,
    events BIGINT NOT NULL,
    credits BIGINT NOT NULL,
    CONSTRAINT credit_usage_pkey PRIMARY KEY (owner_id, day, project_id, participant_id, event_type),
    CONSTRAINT credit_usage_event_type_check CHECK (event_type IN ('claim', 'seed', 'register', 'post', 'ack', 'lease', 'release', 'lease_expire', 'task_create', 'task_assign', 'task_start', 'task_block', 'task_resolve', 'task_ship', 'task_requeue', 'presence_lapse', 'escalate')),
    CONSTRAINT credit_usage_credits_check CHECK (events > 0 AND credits > 0),
    CONSTRAINT credit_usage_owner_id_fkey FOREIGN KEY(owner_id) REFERENCES owner (id)
) WITH (fillfactor = 70);

COMMENT ON TABLE credit_usage IS
    'What was billed, by the UTC day of the events; participant 0 where it was not kept. Adds up to the usage entries.';

CREATE INDEX credit_usage_project_id_day_idx ON credit_usage (project_id, day);

CREATE INDEX credit_entry_usage_idx ON credit_entry (project_id, last_seq) WHERE kind = 'usage';

CREATE INDEX credit_entry_added_idx ON credit_entry (owner_id, id) WHERE kind <> 'usage';

-- Existing usage entries: by the day of the entry, without a participant.
SET LOCAL statement_timeout = '10min';
INSERT INTO credit_usage (owner_id, day, project_id, participant_id, event_type, events, credits)
SELECT e.owner_id, (e.at AT TIME ZONE 'UTC')::date, e.project_id, 0, kind.key,
       sum((kind.value ->> 0)::bigint), sum((kind.value ->> 1)::bigint)
FROM credit_entry e CROSS JOIN LATERAL jsonb_each(e.detail) AS kind
WHERE e.kind = 'usage' AND (kind.value ->> 1)::bigint > 0
GROUP BY 1, 2, 3, 5;
SET LOCAL statement_timeout = '60s';

-- During a deployment a worker of the previous version may bill; it does not write to this table.
CREATE FUNCTION itemise_usage() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO credit_usage AS u (owner_id, day, project_id, participant_id, event_type, events, credits)
    SELECT NEW.owner_id, (NEW.at AT TIME ZONE 'UTC')::date, NEW.project_id, 0, kind.key,
           (kind.value ->> 0)::bigint, (kind.value ->> 1)::bigint
    FROM jsonb_each(NEW.detail) AS kind WHERE (kind.value ->> 1)::bigint > 0
    ON CONFLICT ON CONSTRAINT credit_usage_pkey
    DO UPDATE SET events = u.events + excluded.events, credits = u.credits + excluded.credits;
    RETURN NULL;
END $$;

CREATE TRIGGER credit_entry_itemise AFTER INSERT ON credit_entry
    FOR EACH ROW WHEN (NEW.kind = 'usage' AND NOT NEW.itemised) EXECUTE FUNCTION itemise_usage();

-- Settings of the workers, which the web shows to owners.
ALTER TABLE metering ADD COLUMN grace_hours INTEGER;
ALTER TABLE metering ADD COLUMN trial_credits BIGINT;

-- Null for an act of the service itself, such as a new price.
ALTER TABLE audit ALTER COLUMN owner_id DROP NOT NULL;
