-- Sessions: several conversations of one participation, each with its own cursor (docs/explanation/sessions.md).

-- How results show a session: the last 8 characters of its key, for a sub-agent of both parts of its key. The beginning
-- of a key may be a time, which sessions that began together share.
CREATE FUNCTION bus_session_label(p_key text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN position('/' IN p_key) = 0 THEN right(p_key, 8)
                ELSE right(split_part(p_key, '/', 1), 8) || '/' || right(substr(p_key, position('/' IN p_key) + 1), 8) END
$$;

-- Whether two sessions of one participation work as one: the same, one of them not named, or a sub-agent and its parent.
CREATE FUNCTION bus_is_same_session(p_key text, p_other text) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(p_key = p_other OR starts_with(p_key, p_other || '/') OR starts_with(p_other, p_key || '/'), true)
$$;

-- The point in the ledger at which a new session begins to read. A sub-agent begins where its parent is. Another session
-- begins where the participation's calls without a session, or its ended sessions, have stopped; what only sessions that
-- still live have read is returned as well, up to 100 events.
CREATE FUNCTION bus_session_start(p_project bigint, p_participation bigint, p_key text) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_parent bigint;
    v_last bigint;
    v_ended bigint;
    v_live bigint;
BEGIN
    IF position('/' IN p_key) > 0 THEN
        SELECT k.seq INTO v_parent FROM session_cursor k
        WHERE k.project_id = p_project AND k.participation_id = p_participation AND k.key = split_part(p_key, '/', 1);
        IF FOUND THEN
            RETURN v_parent;
        END IF;
    END IF;
    SELECT c.last_seq INTO v_last FROM project_clock c WHERE c.project_id = p_project;
    SELECT greatest(
        (SELECT k.seq FROM session_cursor k
         WHERE k.project_id = p_project AND k.participation_id = p_participation AND k.key = ''),
        (SELECT k.seq FROM cursor k WHERE k.project_id = p_project AND k.participation_id = p_participation))
    INTO v_ended;
    SELECT max(k.seq) INTO v_live
    FROM agent_session s
    JOIN session_cursor k ON k.project_id = s.project_id AND k.participation_id = s.participation_id AND k.key = s.key
    WHERE s.project_id = p_project AND s.participation_id = p_participation AND s.ended_at IS NULL
      AND position('/' IN s.key) = 0;
    IF v_ended IS NULL AND v_live IS NULL THEN
        RETURN greatest(v_last - 100, 0);
    END IF;
    -- Both functions ignore null.
    RETURN greatest(v_ended, CASE WHEN v_live IS NOT NULL THEN least(v_live, v_last - 100) END, 0);
END $$;

-- The cursor of a session; with p_lock it is created where it is missing, and locked.
CREATE FUNCTION bus_session_cursor(p_project bigint, p_participation bigint, p_key text, p_lock boolean) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_seq bigint;
BEGIN
    IF NOT p_lock THEN
        SELECT k.seq INTO v_seq FROM session_cursor k
        WHERE k.project_id = p_project AND k.participation_id = p_participation AND k.key = p_key;
        RETURN CASE WHEN FOUND THEN v_seq ELSE bus_session_start(p_project, p_participation, p_key) END;
    END IF;
    LOOP
        SELECT k.seq INTO v_seq FROM session_cursor k
        WHERE k.project_id = p_project AND k.participation_id = p_participation AND k.key = p_key FOR UPDATE;
        IF FOUND THEN
            RETURN v_seq;
        END IF;
        INSERT INTO session_cursor (project_id, participation_id, key, seq)
        VALUES (p_project, p_participation, p_key, bus_session_start(p_project, p_participation, p_key))
        ON CONFLICT DO NOTHING;
    END LOOP;
END $$;
