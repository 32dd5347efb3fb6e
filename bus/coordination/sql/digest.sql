-- The digest (whats_new): events after the caller's cursor, with the present counts.

-- The cursor belongs to the caller's session, or to its identity where it names none. Its row is locked first and
-- everything is read afterwards, so that concurrent calls are serialised and every event is returned once. An event of
-- another session of the caller carries that session's label in place of `mine`.
CREATE FUNCTION bus_whats_new(
    p_participation bigint, p_token bigint, p_advance boolean, p_limit integer, p_since bigint,
    p_session text DEFAULT NULL,
    OUT since bigint, OUT cursor_seq bigint, OUT last_seq bigint, OUT events text, OUT unacked_posts integer,
    OUT active_leases integer, OUT latest_claims jsonb
) LANGUAGE plpgsql AS $$
DECLARE
    v_caller record;
    v_last_read bigint;
BEGIN
    SELECT * INTO v_caller FROM bus_authenticate(p_participation, p_token, false);
    IF p_session IS NOT NULL THEN
        since := bus_session_cursor(v_caller.project_id, p_participation, p_session, p_since IS NULL AND p_advance);
    ELSIF p_since IS NULL AND p_advance THEN
        INSERT INTO cursor (project_id, participation_id, seq)
        SELECT v_caller.project_id, p_participation, greatest(c.last_seq - 100, 0)
        FROM project_clock c WHERE c.project_id = v_caller.project_id
        ON CONFLICT DO NOTHING;
        SELECT k.seq INTO since FROM cursor k
        WHERE k.project_id = v_caller.project_id AND k.participation_id = p_participation FOR UPDATE;
    ELSE
        SELECT coalesce(
            (SELECT k.seq FROM cursor k
             WHERE k.project_id = v_caller.project_id AND k.participation_id = p_participation),
            (SELECT greatest(c.last_seq - 100, 0) FROM project_clock c WHERE c.project_id = v_caller.project_id))
        INTO since;
    END IF;
    cursor_seq := since;
    since := coalesce(p_since, since);
    WITH batch AS MATERIALIZED (
        SELECT e.seq, e.at, e.actor, e.type, e.payload, e.participation_id, e.session_key
        FROM event e WHERE e.project_id = v_caller.project_id AND e.seq > since
        ORDER BY e.seq LIMIT p_limit
    )
    -- Rows of [seq, milliseconds, actor, type, payload, mine, waits in the caller's inbox] as JSON text, which costs a
    -- third of jsonb_agg. A re-read does not ask for the inbox.
    SELECT '[' || coalesce(string_agg(
               '[' || b.seq || ',' || bus_epoch_milliseconds(b.at) || ',' || to_json(b.actor) || ',"' || b.type || '",'
               || b.payload::text || ','
               || CASE WHEN b.participation_id IS DISTINCT FROM p_participation THEN 'false'
                       WHEN p_session IS NULL OR coalesce(b.session_key = p_session, true) THEN 'true'
                       ELSE to_json(bus_session_label(b.session_key))::text END || ','
               || (b.type = 'post' AND p_since IS NULL AND EXISTS (
                       SELECT FROM delivery d WHERE d.project_id = v_caller.project_id
                         AND d.participation_id = p_participation AND d.post_id = b.seq AND d.acked_at IS NULL))::text
               || ']', ',' ORDER BY b.seq), '') || ']',
           coalesce(max(b.seq), since)
    INTO events, v_last_read FROM batch b;
    IF p_since IS NULL AND p_advance AND v_last_read > cursor_seq THEN
        IF p_session IS NULL THEN
            UPDATE cursor k SET seq = v_last_read
            WHERE k.project_id = v_caller.project_id AND k.participation_id = p_participation;
        ELSE
            UPDATE session_cursor k SET seq = v_last_read
            WHERE k.project_id = v_caller.project_id AND k.participation_id = p_participation AND k.key = p_session;
        END IF;
        cursor_seq := v_last_read;
    END IF;
    SELECT c.last_seq INTO last_seq FROM project_clock c WHERE c.project_id = v_caller.project_id;
    SELECT count(*) INTO unacked_posts FROM (
        SELECT FROM delivery d WHERE d.project_id = v_caller.project_id AND d.participation_id = p_participation
          AND d.acked_at IS NULL LIMIT 1000) AS counted;
    SELECT count(*) INTO active_leases FROM (
        SELECT FROM lease l WHERE l.project_id = v_caller.project_id AND l.ended_at IS NULL
          AND l.expires_at > clock_timestamp() LIMIT 1000) AS counted;
    SELECT coalesce(jsonb_object_agg(s.name, s.claimed_as), '{}')
    INTO latest_claims FROM (
        SELECT q.name, q.claimed_as FROM sequence q
        WHERE q.project_id = v_caller.project_id AND q.claimed_at IS NOT NULL
        ORDER BY q.claimed_at DESC LIMIT 50) AS s;
END $$;
