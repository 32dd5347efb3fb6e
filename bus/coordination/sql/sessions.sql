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

-- How a recipient can be woken at this moment: by a call that waits for posts, by an open stream, or by hooks of its
-- client that show posts beside its next tool call; null if only at its next turn.
CREATE FUNCTION bus_wake(p_waiting timestamptz, p_listening timestamptz, p_hooks timestamptz) RETURNS text
LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN p_waiting > clock_timestamp() THEN 'waiting' WHEN p_listening > clock_timestamp() THEN 'listening'
                WHEN p_hooks > clock_timestamp() THEN 'hooks' END
$$;

-- Which recipients of a post can be reached now, at their next tool call, and at their next turn, as bus_post has
-- recorded it: their names, the first 20 of them. Null if all of them only at their next turn.
CREATE FUNCTION bus_reach(p_project bigint, p_post bigint) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM delivery d WHERE d.project_id = p_project AND d.post_id = p_post AND d.wake <> 'none' LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN (
        SELECT jsonb_object_agg(reach.moment, reach.names) FROM (
            SELECT named.moment, jsonb_agg(named.name ORDER BY named.name) AS names FROM (
                SELECT CASE d.wake WHEN 'waiting' THEN 'now' WHEN 'listening' THEN 'now'
                            WHEN 'hooks' THEN 'next_step' ELSE 'next_turn' END AS moment,
                       bus_participation_name(d.participation_id) AS name
                FROM delivery d WHERE d.project_id = p_project AND d.post_id = p_post
                ORDER BY d.participation_id LIMIT 20) AS named
            GROUP BY named.moment) AS reach);
END $$;

-- The unacked posts that wake a waiting session, and their reservation for it: until p_seconds have passed without an
-- ack, no other session is woken for them. A post wakes the session that has waited longest; one that a session has been
-- shown does not wake it again. Decided under the project clock.
CREATE FUNCTION bus_offer_posts(p_participation bigint, p_token bigint, p_session text, p_seconds double precision)
RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    v_caller record;
    v_since timestamptz;
    v_posts bigint[];
BEGIN
    SELECT * INTO v_caller FROM bus_authenticate(p_participation, p_token, false);
    PERFORM bus_lock_clock(v_caller.project_id);
    SELECT s.waiting_since INTO v_since FROM agent_session s
    WHERE s.project_id = v_caller.project_id AND s.participation_id = p_participation AND s.key = p_session
      AND s.waiting_until > clock_timestamp();
    SELECT array_agg(offered.post_id ORDER BY offered.post_id) INTO v_posts FROM (
        SELECT d.post_id FROM delivery d
        WHERE d.project_id = v_caller.project_id AND d.participation_id = p_participation AND d.acked_at IS NULL
          AND (d.offered_until IS NULL OR d.offered_until <= clock_timestamp() OR d.offered_session = p_session)
          AND NOT EXISTS (
            SELECT FROM session_post h WHERE h.project_id = d.project_id AND h.participation_id = d.participation_id
              AND h.key = p_session AND h.post_id = d.post_id)
          AND NOT EXISTS (
            SELECT FROM agent_session s
            WHERE s.project_id = d.project_id AND s.participation_id = d.participation_id AND s.ended_at IS NULL
              AND s.key <> p_session AND s.waiting_until > clock_timestamp()
              AND (s.waiting_since, s.key) < (coalesce(v_since, clock_timestamp()), p_session)
              AND NOT EXISTS (
                SELECT FROM session_post h
                WHERE h.project_id = d.project_id AND h.participation_id = d.participation_id
                  AND h.key = s.key AND h.post_id = d.post_id))
        ORDER BY d.post_id DESC LIMIT 50) AS offered;
    IF v_posts IS NULL THEN
        RETURN NULL;
    END IF;
    UPDATE delivery d
    SET offered_until = clock_timestamp() + make_interval(secs => p_seconds), offered_session = p_session
    WHERE d.project_id = v_caller.project_id AND d.participation_id = p_participation AND d.post_id = ANY (v_posts);
    INSERT INTO session_post (project_id, participation_id, key, post_id)
    SELECT v_caller.project_id, p_participation, p_session, offered.id FROM unnest(v_posts) AS offered (id)
    ON CONFLICT DO NOTHING;
    -- It is busy from now on: the next post wakes another session.
    UPDATE agent_session s SET waiting_until = NULL, waiting_since = NULL
    WHERE s.project_id = v_caller.project_id AND s.participation_id = p_participation AND s.key = p_session;
    RETURN v_posts;
END $$;

-- Record up to where sessions that are about to end have read, so that a new session begins there. Called before the
-- clock is locked, since it locks a cursor.
CREATE FUNCTION bus_fold_session_cursors(p_project bigint, p_participations bigint[], p_keys text[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO session_cursor AS f (project_id, participation_id, key, seq)
    SELECT k.project_id, k.participation_id, '', max(k.seq)
    FROM unnest(p_participations, p_keys) AS u (participation_id, key)
    JOIN session_cursor k ON k.project_id = p_project AND k.participation_id = u.participation_id AND k.key = u.key
    WHERE u.key <> '' AND position('/' IN u.key) = 0
    GROUP BY k.project_id, k.participation_id ORDER BY k.participation_id
    ON CONFLICT ON CONSTRAINT session_cursor_pkey DO UPDATE SET seq = greatest(f.seq, excluded.seq)
$$;

-- End a session and its sub-agents: release their leases, return their tasks in progress, and offer posts that they were
-- woken for to other sessions. The caller has locked the clock. With p_silent_since it ends only if it has not been seen
-- since. Lock order: the rows of the session and then its sub-agents, as in a flush of the gateway; leases; tasks; posts.
CREATE FUNCTION bus_end_session(
    p_project bigint, p_participation bigint, p_key text, p_reason text, p_silent_since timestamptz DEFAULT NULL,
    OUT ended boolean, OUT released integer, OUT requeued integer
) LANGUAGE plpgsql AS $$
DECLARE
    v_actor text := bus_participation_name(p_participation);
    v_now timestamptz := clock_timestamp();
    v_last_seen timestamptz;
    v_events jsonb[];
    v_tasks jsonb[];
    v_count integer;
BEGIN
    released := 0;
    requeued := 0;
    IF p_silent_since IS NOT NULL THEN
        SELECT s.last_seen INTO v_last_seen FROM agent_session s
        WHERE s.project_id = p_project AND s.participation_id = p_participation AND s.key = p_key
          AND s.ended_at IS NULL FOR NO KEY UPDATE;
        IF v_last_seen > p_silent_since THEN
            ended := false;
            RETURN;
        END IF;
    END IF;
    -- Also where the gateway has not written the session yet: a late flush does not revive it.
    INSERT INTO agent_session AS s (project_id, participation_id, key, started_at, last_seen, ended_at)
    VALUES (p_project, p_participation, p_key, v_now, v_now, v_now)
    ON CONFLICT ON CONSTRAINT agent_session_pkey DO UPDATE
    SET ended_at = v_now, waiting_since = NULL, waiting_until = NULL, listening_until = NULL, hooks_until = NULL
    WHERE s.ended_at IS NULL;
    ended := FOUND;
    PERFORM FROM agent_session s
    WHERE s.project_id = p_project AND s.participation_id = p_participation AND starts_with(s.key, p_key || '/')
      AND s.ended_at IS NULL ORDER BY s.key FOR NO KEY UPDATE;
    UPDATE agent_session s
    SET ended_at = v_now, waiting_since = NULL, waiting_until = NULL, listening_until = NULL, hooks_until = NULL
    WHERE s.project_id = p_project AND s.participation_id = p_participation AND starts_with(s.key, p_key || '/')
      AND s.ended_at IS NULL;
    WITH ended_lease AS (
        UPDATE lease l SET ended_at = v_now, ended_by = 'release'
        WHERE l.project_id = p_project AND l.participation_id = p_participation AND l.ended_at IS NULL
          AND (l.session_key = p_key OR starts_with(l.session_key, p_key || '/'))
        RETURNING l.id, l.surface
    )
    SELECT array_agg(jsonb_build_object('surface', e.surface, 'reason', p_reason) ORDER BY e.id) INTO v_events
    FROM ended_lease e;
    released := coalesce(cardinality(v_events), 0);
    WITH returned_task AS (
        UPDATE task t SET status = 'open', participation_id = NULL, owner = NULL, session_key = NULL,
                          offered_until = NULL, updated_at = v_now
        WHERE t.project_id = p_project AND t.participation_id = p_participation AND t.status = 'in_progress'
          AND (t.session_key = p_key OR starts_with(t.session_key, p_key || '/'))
        RETURNING t.id
    )
    SELECT array_agg(jsonb_build_object('task_id', r.id, 'owner', v_actor, 'reason', p_reason) ORDER BY r.id)
    INTO v_tasks FROM returned_task r;
    requeued := coalesce(cardinality(v_tasks), 0);
    -- Any session of the participation may go on with a task that is still blocked.
    UPDATE task t SET session_key = NULL
    WHERE t.project_id = p_project AND t.participation_id = p_participation
      AND (t.session_key = p_key OR starts_with(t.session_key, p_key || '/'));
    IF released + requeued > 0 THEN
        PERFORM bus_append_all(
            p_project, p_participation, v_actor,
            array_fill('release'::text, ARRAY[released]) || array_fill('task_requeue'::text, ARRAY[requeued]),
            v_events || v_tasks, p_key);
    END IF;
    UPDATE delivery d SET offered_until = NULL, offered_session = NULL
    WHERE d.project_id = p_project AND d.participation_id = p_participation AND d.acked_at IS NULL
      AND (d.offered_session = p_key OR starts_with(d.offered_session, p_key || '/'));
    DELETE FROM session_post h
    WHERE h.project_id = p_project AND h.participation_id = p_participation
      AND (h.key = p_key OR starts_with(h.key, p_key || '/'));
END $$;
