-- What participations give back that leave a project: nothing that they hold outlasts their access.

-- Release the live leases of participations and return their tasks that are not done, with one event each under the name
-- of the holder. A blocked task keeps its blockers. The caller has locked the clock. In a closed project nothing happens: it has no live work.
CREATE FUNCTION bus_give_back_work(p_project bigint, p_participations bigint[]) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_holders bigint[];
    v_actors text[];
    v_types text[];
    v_payloads jsonb[];
BEGIN
    PERFORM FROM project_clock c WHERE c.project_id = p_project AND NOT c.closed;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    WITH ended AS (
        UPDATE lease l SET ended_at = clock_timestamp(), ended_by = 'release'
        WHERE l.project_id = p_project AND l.participation_id = ANY (p_participations)
          AND l.ended_at IS NULL AND l.expires_at > clock_timestamp()
        RETURNING l.id, l.participation_id, l.actor, l.surface
    ), held AS (
        SELECT t.id, t.participation_id, t.owner, t.status FROM task t
        WHERE t.project_id = p_project AND t.participation_id = ANY (p_participations)
          AND t.status IN ('assigned', 'in_progress', 'blocked')
    ), returned AS (
        UPDATE task t SET status = 'open', participation_id = NULL, owner = NULL, session_key = NULL,
                          offered_until = NULL, updated_at = clock_timestamp()
        WHERE t.project_id = p_project AND t.id = ANY (ARRAY(SELECT h.id FROM held h))
        RETURNING t.id
    ), change AS (
        SELECT 0 AS kind, e.id, e.participation_id, e.actor, 'release' AS type,
               jsonb_build_object('surface', e.surface) AS payload FROM ended e
        UNION ALL
        SELECT 1, r.id, h.participation_id, h.owner, 'task_requeue',
               jsonb_build_object('task_id', r.id, 'owner', h.owner) FROM returned r JOIN held h ON h.id = r.id
    )
    SELECT array_agg(t.participation_id ORDER BY t.kind, t.id), array_agg(t.actor ORDER BY t.kind, t.id),
           array_agg(t.type ORDER BY t.kind, t.id), array_agg(t.payload ORDER BY t.kind, t.id)
    INTO v_holders, v_actors, v_types, v_payloads FROM change t;
    IF v_holders IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM bus_append_each(p_project, v_holders, v_actors, v_types, v_payloads);
    RETURN cardinality(v_holders);
END $$;
