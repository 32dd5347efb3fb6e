-- Leases: advisory, never blocking. Contention is decided under the project clock, so that of two overlapping
-- leases the one with the higher fence names the other.

-- Whether two surfaces overlap is a pure function of their text, decided by bus/rules/surfaces.py. Two literal
-- surfaces with comparable prefixes overlap by definition, which SQL can see; where a glob takes part the caller
-- passes the verdicts it knows in p_overlapping and p_disjoint. Unknown ones come back in `undecided`, nothing is
-- written, and the caller asks again: a verdict can never go stale, so no lock is needed between the two calls.
CREATE FUNCTION bus_lease(
    p_participation bigint, p_token bigint, p_surface text, p_prefix text, p_ancestors text[], p_ttl_seconds integer,
    p_note text, p_mode text, p_overlapping text[], p_disjoint text[],
    OUT undecided text[], OUT fence bigint, OUT expires_at timestamptz, OUT renewed boolean, OUT others jsonb,
    OUT unread integer
) LANGUAGE plpgsql AS $$
DECLARE
    v_caller record;
    v_now timestamptz;
    v_own record;
    v_contended integer;
    v_held boolean;
    v_replaced boolean;
    v_last bigint;
    v_at timestamptz;
BEGIN
    SELECT * INTO v_caller FROM bus_authenticate(p_participation, p_token, true);
    PERFORM bus_lock_open_clock(v_caller.project_id);
    v_now := date_trunc('milliseconds', clock_timestamp());
    WITH candidate AS MATERIALIZED (
        SELECT c.*, c.prefix = c.surface AND p_prefix = p_surface AS literal
        FROM bus_lease_candidates(v_caller.project_id, p_prefix, p_ancestors, v_now) c
        WHERE c.participation_id <> p_participation AND NOT (c.mode = 'shared' AND p_mode = 'shared')
    ), named AS (
        SELECT c.* FROM candidate c WHERE c.literal OR c.surface = ANY (p_overlapping)
    )
    SELECT (SELECT array_agg(DISTINCT c.surface) FROM candidate c
            WHERE NOT c.literal AND NOT c.surface = ANY (p_overlapping) AND NOT c.surface = ANY (p_disjoint)),
           (SELECT count(*) FROM named),
           (SELECT coalesce(jsonb_agg(jsonb_build_array(n.actor, n.surface, bus_epoch_milliseconds(n.expires_at), n.note)
                                      ORDER BY n.fence), '[]') FROM (SELECT * FROM named ORDER BY named.fence LIMIT 20) AS n)
    INTO undecided, v_contended, others;
    IF undecided IS NOT NULL THEN
        RETURN;
    END IF;
    expires_at := v_now + make_interval(secs => p_ttl_seconds);
    SELECT l.id, l.fence, l.expires_at, l.mode INTO v_own FROM lease l
    WHERE l.project_id = v_caller.project_id AND l.participation_id = p_participation AND l.surface = p_surface
      AND l.ended_at IS NULL;
    v_held := FOUND;
    -- Another mode contends with others, who have to be able to see it come: that is a new lease with a new fence.
    renewed := v_held AND v_own.expires_at > v_now AND v_own.mode = p_mode;
    v_replaced := v_held AND NOT renewed;
    IF renewed THEN
        fence := v_own.fence;
        UPDATE lease l SET expires_at = bus_lease.expires_at, note = coalesce(p_note, l.note)
        WHERE l.project_id = v_caller.project_id AND l.id = v_own.id;
    ELSE
        SELECT t.last_seq, t.at INTO v_last, v_at FROM bus_advance_clock(v_caller.project_id, 1 + v_replaced::integer) t;
        IF v_replaced AND v_own.expires_at <= v_now THEN
            -- Its end was not recorded yet; that happens here, once, as the worker would have done.
            UPDATE lease l SET ended_at = l.expires_at, ended_by = 'expiry'
            WHERE l.project_id = v_caller.project_id AND l.id = v_own.id;
            INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload)
            VALUES (v_caller.project_id, v_last - 1, v_at, p_participation, v_caller.actor, 'lease_expire',
                    jsonb_build_object('surface', p_surface, 'fence', v_own.fence));
        ELSIF v_replaced THEN
            UPDATE lease l SET ended_at = v_at, ended_by = 'release'
            WHERE l.project_id = v_caller.project_id AND l.id = v_own.id;
            INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload)
            VALUES (v_caller.project_id, v_last - 1, v_at, p_participation, v_caller.actor, 'release',
                    jsonb_build_object('surface', p_surface));
        END IF;
        fence := v_last;
        INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload)
        VALUES (v_caller.project_id, v_last, v_at, p_participation, v_caller.actor, 'lease', jsonb_build_object(
            'surface', p_surface, 'ttl_seconds', p_ttl_seconds, 'mode', p_mode, 'fence', v_last,
            'contended', v_contended));
        INSERT INTO lease (project_id, id, surface, prefix, mode, participation_id, actor, note, fence, acquired_at,
                           expires_at)
        VALUES (v_caller.project_id, v_last, p_surface, p_prefix, p_mode, p_participation, v_caller.actor, p_note,
                v_last, v_at, bus_lease.expires_at);
    END IF;
    unread := bus_unread(v_caller.project_id, p_participation);
END $$;

-- Live leases whose prefix equals, covers or lies under the given one; every overlap is among them.
-- `/` and `0` are neighbours in the C collation, so [prefix/, prefix0) is what lies under the prefix.
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

-- End the caller's lease on a surface, or all of them where p_surface is null. One event for each that ended.
CREATE FUNCTION bus_release(
    p_participation bigint, p_token bigint, p_surface text, OUT released integer, OUT unread integer
) LANGUAGE plpgsql AS $$
DECLARE
    v_caller record;
    v_ids bigint[];
    v_last bigint;
    v_at timestamptz;
BEGIN
    SELECT * INTO v_caller FROM bus_authenticate(p_participation, p_token, true);
    PERFORM bus_lock_open_clock(v_caller.project_id);
    SELECT array_agg(l.id ORDER BY l.id) INTO v_ids FROM lease l
    WHERE l.project_id = v_caller.project_id AND l.participation_id = p_participation AND l.ended_at IS NULL
      AND l.expires_at > clock_timestamp() AND (p_surface IS NULL OR l.surface = p_surface);
    released := coalesce(cardinality(v_ids), 0);
    IF released > 0 THEN
        SELECT t.last_seq, t.at INTO v_last, v_at FROM bus_advance_clock(v_caller.project_id, released) t;
        INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload)
        SELECT v_caller.project_id, v_last - released + n.ordinality, v_at, p_participation, v_caller.actor,
               'release', jsonb_build_object('surface', l.surface)
        FROM unnest(v_ids) WITH ORDINALITY AS n (id, ordinality)
        JOIN lease l ON l.project_id = v_caller.project_id AND l.id = n.id;
        UPDATE lease l SET ended_at = v_at, ended_by = 'release'
        WHERE l.project_id = v_caller.project_id AND l.id = ANY (v_ids);
    END IF;
    unread := bus_unread(v_caller.project_id, p_participation);
END $$;
