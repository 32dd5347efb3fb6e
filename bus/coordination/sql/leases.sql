-- Leases: advisory, never blocking. Contention is decided under the project clock, so that of two overlapping
-- leases the one with the higher fence names the other.

-- Acquire or renew a lease. Whether two surfaces overlap is a pure function of their text, decided by
-- bus/rules/surfaces.py. Two literal surfaces with comparable prefixes overlap by definition, which SQL can decide;
-- for globs the caller passes the surfaces that it has compared in p_overlapping and p_disjoint. The remaining ones are
-- returned in `undecided`, nothing is written, and the caller compares them and calls again. The comparison of two
-- surfaces never changes, so no lock is needed between the calls.
--
-- In a project whose paths ignore case, surfaces are kept in lower case, which only Python can compute for all of
-- Unicode. Where p_is_folded is false in such a project, nothing is written either, and `must_fold` is returned.
CREATE FUNCTION bus_lease(
    p_participation bigint, p_token bigint, p_surface text, p_prefix text, p_ancestors text[], p_ttl_seconds integer,
    p_note text, p_mode text, p_overlapping text[], p_disjoint text[], p_is_folded boolean,
    p_session text DEFAULT NULL,
    OUT must_fold boolean, OUT undecided text[], OUT fence bigint, OUT expires_at timestamptz, OUT renewed boolean, OUT others jsonb,
    OUT unread integer
) LANGUAGE plpgsql AS $$
DECLARE
    v_caller record;
    v_now timestamptz;
    v_existing record;
    v_contender_count integer;
    v_exists boolean;
    v_replaces_existing boolean;
    v_last_seq bigint;
    v_at timestamptz;
BEGIN
    SELECT * INTO v_caller FROM bus_authenticate(p_participation, p_token, true);
    must_fold := false;
    IF NOT p_is_folded THEN
        SELECT pj.case_insensitive_paths INTO must_fold FROM project pj WHERE pj.id = v_caller.project_id;
        IF must_fold THEN
            RETURN;
        END IF;
    END IF;
    PERFORM bus_lock_open_clock(v_caller.project_id);
    PERFORM bus_refuse_removed(p_participation);
    v_now := date_trunc('milliseconds', clock_timestamp());
    WITH candidate AS MATERIALIZED (
        SELECT c.*, c.prefix = c.surface AND p_prefix = p_surface AS literal
        FROM bus_lease_candidates(v_caller.project_id, p_prefix, p_ancestors, v_now) c
        WHERE (c.participation_id <> p_participation
               OR c.session_key <> p_session AND NOT bus_is_same_session(c.session_key, p_session))
          AND NOT (c.mode = 'shared' AND p_mode = 'shared')
    ), contender AS (
        SELECT c.* FROM candidate c WHERE c.literal OR c.surface = ANY (p_overlapping)
    )
    SELECT (SELECT array_agg(DISTINCT c.surface) FROM candidate c
            WHERE NOT c.literal AND NOT c.surface = ANY (p_overlapping) AND NOT c.surface = ANY (p_disjoint)),
           (SELECT count(*) FROM contender),
           (SELECT coalesce(jsonb_agg(
                CASE WHEN p_session IS NULL OR n.participation_id <> p_participation
                     THEN jsonb_build_array(n.actor, n.surface, bus_epoch_milliseconds(n.expires_at), n.note)
                     ELSE jsonb_build_array(n.actor, n.surface, bus_epoch_milliseconds(n.expires_at), n.note,
                                            bus_session_label(n.session_key)) END ORDER BY n.fence), '[]')
            FROM (SELECT * FROM contender ORDER BY contender.fence LIMIT 20) AS n)
    INTO undecided, v_contender_count, others;
    IF undecided IS NOT NULL THEN
        RETURN;
    END IF;
    expires_at := v_now + make_interval(secs => p_ttl_seconds);
    SELECT l.id, l.fence, l.expires_at, l.mode INTO v_existing FROM lease l
    WHERE l.project_id = v_caller.project_id AND l.participation_id = p_participation AND l.surface = p_surface
      AND l.session_key IS NOT DISTINCT FROM p_session AND l.ended_at IS NULL;
    v_exists := FOUND;
    -- A change of mode changes contention, which others must be able to see: it is a new lease with a new fence.
    renewed := v_exists AND v_existing.expires_at > v_now AND v_existing.mode = p_mode;
    v_replaces_existing := v_exists AND NOT renewed;
    IF renewed THEN
        fence := v_existing.fence;
        UPDATE lease l SET expires_at = bus_lease.expires_at, note = coalesce(p_note, l.note)
        WHERE l.project_id = v_caller.project_id AND l.id = v_existing.id;
    ELSE
        SELECT t.last_seq, t.at INTO v_last_seq, v_at
        FROM bus_advance_clock(v_caller.project_id, 1 + v_replaces_existing::integer) t;
        IF v_replaces_existing AND v_existing.expires_at <= v_now THEN
            -- Record the expiry of the old lease here, since the worker has not done so yet.
            UPDATE lease l SET ended_at = l.expires_at, ended_by = 'expiry'
            WHERE l.project_id = v_caller.project_id AND l.id = v_existing.id;
            INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload, session_key)
            VALUES (v_caller.project_id, v_last_seq - 1, v_at, p_participation, v_caller.actor, 'lease_expire',
                    jsonb_build_object('surface', p_surface, 'fence', v_existing.fence), p_session);
        ELSIF v_replaces_existing THEN
            UPDATE lease l SET ended_at = v_at, ended_by = 'release'
            WHERE l.project_id = v_caller.project_id AND l.id = v_existing.id;
            INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload, session_key)
            VALUES (v_caller.project_id, v_last_seq - 1, v_at, p_participation, v_caller.actor, 'release',
                    jsonb_build_object('surface', p_surface), p_session);
        END IF;
        fence := v_last_seq;
        INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload, session_key)
        VALUES (v_caller.project_id, v_last_seq, v_at, p_participation, v_caller.actor, 'lease', jsonb_build_object(
            'surface', p_surface, 'ttl_seconds', p_ttl_seconds, 'mode', p_mode, 'fence', v_last_seq,
            'contended', v_contender_count), p_session);
        INSERT INTO lease (project_id, id, surface, prefix, mode, participation_id, actor, note, fence, acquired_at,
                           expires_at, session_key)
        VALUES (v_caller.project_id, v_last_seq, p_surface, p_prefix, p_mode, p_participation, v_caller.actor, p_note,
                v_last_seq, v_at, bus_lease.expires_at, p_session);
    END IF;
    unread := bus_unread(v_caller.project_id, p_participation);
END $$;

-- Live leases whose prefix equals, covers or lies under the given one; every overlapping lease is among them.
-- `0` follows `/` in the C collation, so the range [prefix/, prefix0) contains the paths under the prefix.
CREATE FUNCTION bus_lease_candidates(p_project bigint, p_prefix text, p_ancestors text[], p_now timestamptz)
RETURNS SETOF lease LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_prefix = '' THEN
        RETURN QUERY SELECT l.* FROM lease l
        WHERE l.project_id = p_project AND l.ended_at IS NULL AND l.expires_at > p_now;
    ELSE
        RETURN QUERY
            SELECT l.* FROM lease l
            WHERE l.project_id = p_project AND l.ended_at IS NULL AND l.expires_at > p_now
              AND l.prefix = ANY (p_ancestors)
            UNION ALL
            SELECT l.* FROM lease l
            WHERE l.project_id = p_project AND l.ended_at IS NULL AND l.expires_at > p_now
              AND l.prefix >= p_prefix || '/' AND l.prefix < p_prefix || '0';
    END IF;
END $$;

-- End the lease of the caller's session on a surface, or all of its leases if p_surface is null, with one event each.
CREATE FUNCTION bus_release(
    p_participation bigint, p_token bigint, p_surface text, p_session text DEFAULT NULL, OUT released integer, OUT unread integer
) LANGUAGE plpgsql AS $$
DECLARE
    v_caller record;
    v_ids bigint[];
    v_last_seq bigint;
    v_at timestamptz;
BEGIN
    SELECT * INTO v_caller FROM bus_authenticate(p_participation, p_token, true);
    PERFORM bus_lock_open_clock(v_caller.project_id);
    SELECT array_agg(l.id ORDER BY l.id) INTO v_ids FROM lease l
    WHERE l.project_id = v_caller.project_id AND l.participation_id = p_participation AND l.ended_at IS NULL
      AND l.expires_at > clock_timestamp() AND (p_surface IS NULL OR l.surface = p_surface)
      AND l.session_key IS NOT DISTINCT FROM p_session;
    released := coalesce(cardinality(v_ids), 0);
    IF released > 0 THEN
        SELECT t.last_seq, t.at INTO v_last_seq, v_at FROM bus_advance_clock(v_caller.project_id, released) t;
        INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload, session_key)
        SELECT v_caller.project_id, v_last_seq - released + n.ordinality, v_at, p_participation, v_caller.actor,
               'release', jsonb_build_object('surface', l.surface), p_session
        FROM unnest(v_ids) WITH ORDINALITY AS n (id, ordinality)
        JOIN lease l ON l.project_id = v_caller.project_id AND l.id = n.id;
        UPDATE lease l SET ended_at = v_at, ended_by = 'release'
        WHERE l.project_id = v_caller.project_id AND l.id = ANY (v_ids);
    END IF;
    unread := bus_unread(v_caller.project_id, p_participation);
END $$;
