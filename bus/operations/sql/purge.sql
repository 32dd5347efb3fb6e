-- Purge of a project: the only path on which the guards of the ledger allow DELETE; the audit row is written first.

-- Begin a purge: from here on every call to the project is refused. Also writes the audit row.
CREATE FUNCTION bus_purge_begin(p_project bigint, p_actor text, p_detail jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    -- The lock of the clock waits for all writes in progress; later ones wait for it and are then refused.
    PERFORM bus_lock_clock(p_project);
    INSERT INTO audit (owner_id, project_id, actor, action, subject, detail)
    SELECT pj.owner_id, pj.id, p_actor, 'project.purge', pj.name,
           p_detail || jsonb_build_object('events', c.last_seq)
    FROM project pj JOIN project_clock c ON c.project_id = pj.id WHERE pj.id = p_project;
    UPDATE project_clock c SET closed = true WHERE c.project_id = p_project;
    UPDATE project pj SET archived_at = coalesce(pj.archived_at, clock_timestamp()), purging_at = clock_timestamp()
    WHERE pj.id = p_project AND pj.purging_at IS NULL;
END $$;

-- Delete up to p_limit rows of the project that is being purged; true once nothing is left. The caller repeats it, each
-- time in a transaction of its own, so that no transaction lasts long. With the rights of the owner of the schema: the
-- role of the processes deletes no event by itself.
CREATE FUNCTION bus_purge_step(p_project bigint, p_limit integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_table text;
    v_gone bigint;
BEGIN
    PERFORM FROM project pj WHERE pj.id = p_project AND pj.purging_at IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    FOREACH v_table IN ARRAY ARRAY['search_document', 'seen_delivery', 'delivery', 'post', 'task_blocker', 'task', 'lease', 'event', 'idempotency',
                                   'cursor', 'ack_cursor', 'waiter', 'presence',
                                   'agent_session', 'session_cursor', 'session_post', 'sequence',
                                   'meter_mark', 'tally', 'tally_mark', 'report',
                                   'imported_id', 'project_import'] LOOP
        EXECUTE format('DELETE FROM %I WHERE project_id = $1 AND ctid = ANY (ARRAY('
                       'SELECT ctid FROM %I WHERE project_id = $1 LIMIT $2))', v_table, v_table)
        USING p_project, p_limit;
        GET DIAGNOSTICS v_gone = ROW_COUNT;
        IF v_gone > 0 THEN
            RETURN false;
        END IF;
    END LOOP;
    DELETE FROM token t USING participation p WHERE p.id = t.participation_id AND p.project_id = p_project;
    DELETE FROM invite i WHERE i.project_id = p_project;
    DELETE FROM participation p WHERE p.project_id = p_project;
    DELETE FROM project_clock c WHERE c.project_id = p_project;
    DELETE FROM project pj WHERE pj.id = p_project;
    RETURN true;
END $$;
