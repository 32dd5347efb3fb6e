-- Claims: atomic, gap-free numbers, in one statement with its own lock. The clock is taken before the sequence, as in a
-- batch of several callers, which holds the clock when it begins (docs/decisions/0030-batches.md).

-- Format a claimed number; bus/rules/sequence_format.py does the same.
CREATE FUNCTION bus_formatted(p_prefix text, p_pad integer, p_number bigint) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT p_prefix || repeat('0', greatest(p_pad - length(p_number::text), 0)) || p_number::text
$$;

-- Claim the next number. Lock order: idempotency key, then the clock (by advancing it), then the sequence row (by the
-- upsert).
CREATE FUNCTION bus_claim(
    p_participation bigint, p_token bigint, p_sequence text, p_note text, p_key text, p_fingerprint bytea,
    p_session text DEFAULT NULL,
    OUT number bigint, OUT formatted text, OUT note text, OUT unread integer
) LANGUAGE plpgsql AS $$
DECLARE
    v_caller record;
    v_stored jsonb;
    v_seq bigint;
    v_at timestamptz;
BEGIN
    SELECT * INTO v_caller FROM bus_authenticate(p_participation, p_token, true);
    unread := bus_unread(v_caller.project_id, p_participation);
    note := p_note;
    IF p_key IS NOT NULL THEN
        v_stored := bus_find_result(v_caller.project_id, p_participation, p_key, p_fingerprint);
        IF v_stored IS NOT NULL THEN
            number := (v_stored ->> 'number')::bigint;
            formatted := v_stored ->> 'formatted';
            RETURN;
        END IF;
    END IF;
    SELECT t.last_seq, t.at INTO v_seq, v_at FROM bus_advance_clock(v_caller.project_id, 1) t;
    -- Not the time of the event, which has whole milliseconds: whats_new lists the sequences that were used last.
    INSERT INTO sequence AS s (project_id, name, current, claimed, claimed_as, claimed_by, claimed_at)
    VALUES (v_caller.project_id, p_sequence, 1, 1, '1', v_caller.actor, clock_timestamp())
    ON CONFLICT ON CONSTRAINT sequence_pkey DO UPDATE
    SET current = s.current + 1, claimed = s.current + 1,
        claimed_as = bus_formatted(s.prefix, s.pad, s.current + 1),
        claimed_by = excluded.claimed_by, claimed_at = excluded.claimed_at
    WHERE s.current < 9007199254740991
    RETURNING s.claimed, s.claimed_as INTO number, formatted;
    IF NOT FOUND THEN
        PERFORM bus_refuse('conflict', format('Sequence %s has reached its last number.', p_sequence));
    END IF;
    INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload, session_key)
    VALUES (v_caller.project_id, v_seq, v_at, p_participation, v_caller.actor, 'claim', jsonb_build_object(
        'sequence', p_sequence, 'number', number, 'formatted', formatted, 'note', p_note), p_session);
    IF p_key IS NOT NULL THEN
        PERFORM bus_store_result(v_caller.project_id, p_participation, p_key,
            jsonb_build_object('number', number, 'formatted', formatted));
    END IF;
END $$;

-- Create or change a sequence. Changing one needs project-admin; the counter never goes back; unchanged values add no
-- event. The insert waits for a concurrent first claim, and the row is read under its lock before anything is decided.
CREATE FUNCTION bus_seed(
    p_participation bigint, p_token bigint, p_sequence text, p_current bigint, p_prefix text, p_pad integer,
    p_session text DEFAULT NULL,
    OUT current bigint, OUT prefix text, OUT pad integer, OUT unread integer
) LANGUAGE plpgsql AS $$
DECLARE
    v_caller record;
    v_sequence sequence%ROWTYPE;
    v_created boolean;
BEGIN
    SELECT * INTO v_caller FROM bus_authenticate(p_participation, p_token, true);
    unread := bus_unread(v_caller.project_id, p_participation);
    PERFORM bus_lock_open_clock(v_caller.project_id);
    INSERT INTO sequence (project_id, name, current, prefix, pad)
    VALUES (v_caller.project_id, p_sequence, p_current, coalesce(p_prefix, ''), coalesce(p_pad, 0))
    ON CONFLICT DO NOTHING;
    v_created := FOUND;
    SELECT * INTO v_sequence FROM sequence s
    WHERE s.project_id = v_caller.project_id AND s.name = p_sequence FOR UPDATE;
    current := p_current;
    prefix := coalesce(p_prefix, v_sequence.prefix);
    pad := coalesce(p_pad, v_sequence.pad);
    -- bus/limits.py: MAX_FIRST_SEED
    IF v_created AND p_current > 1000000000 AND NOT v_caller.is_admin THEN
        PERFORM bus_refuse('forbidden',
            format('Only a project-admin may start sequence %s above 1000000000; seed it lower, or ask one.', p_sequence));
    END IF;
    IF NOT v_created THEN
        IF p_current < v_sequence.current THEN
            PERFORM bus_refuse('conflict',
                format('Sequence %s is already at %s and never goes back; seed it at %s or above.',
                    p_sequence, v_sequence.current, v_sequence.current),
                jsonb_build_object('current', v_sequence.current));
        END IF;
        IF (p_current, prefix, pad) = (v_sequence.current, v_sequence.prefix, v_sequence.pad::integer) THEN
            RETURN;
        END IF;
        IF NOT v_caller.is_admin THEN
            PERFORM bus_refuse('forbidden',
                format('Sequence %s exists and only a project-admin may change it; claim from it instead.', p_sequence));
        END IF;
        UPDATE sequence s SET current = p_current, prefix = bus_seed.prefix, pad = bus_seed.pad
        WHERE s.project_id = v_caller.project_id AND s.name = p_sequence;
    END IF;
    PERFORM bus_append(v_caller.project_id, p_participation, v_caller.actor, 'seed', jsonb_build_object(
        'sequence', p_sequence, 'current', current, 'prefix', prefix, 'pad', pad), p_session);
END $$;
