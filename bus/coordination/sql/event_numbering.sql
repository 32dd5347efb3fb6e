-- The number of a new event: the project clock, and appending events under its lock (docs/decisions/0003-locks.md).

-- Lock the project clock until the transaction ends. A write that depends on other participants' rows calls this in
-- its first statement and reads those rows in a later one, with a newer snapshot (docs/decisions/0003-locks.md). From
-- here on the transaction writes rows of this project only (docs/decisions/0044-application-role.md).
CREATE FUNCTION bus_lock_clock(p_project bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_scope text;
BEGIN
    v_scope := set_config('llm_bus.project_scope', p_project::text, true);
    PERFORM FROM project_clock c WHERE c.project_id = p_project FOR NO KEY UPDATE;
END $$;

-- Lock the clock of a project for a write. A second statement checks, after the wait, that the project was not
-- archived or purged in the meantime.
CREATE FUNCTION bus_lock_open_clock(p_project bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bus_lock_clock(p_project);
    PERFORM FROM project_clock c WHERE c.project_id = p_project AND NOT c.closed;
    IF NOT FOUND THEN
        PERFORM bus_refuse_archived();
    END IF;
END $$;

-- Refuse a caller that was removed from the project, or whose owner became a viewer, while it waited for the clock: what it
-- takes now, no one gives back. A person who becomes a viewer keeps the participation.
CREATE FUNCTION bus_refuse_removed(p_participation bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_project bigint;
    v_owner bigint;
    v_host bigint;
BEGIN
    SELECT p.project_id, pt.owner_id, pj.owner_id INTO v_project, v_owner, v_host
    FROM participation p JOIN participant pt ON pt.id = p.participant_id JOIN project pj ON pj.id = p.project_id
    WHERE p.id = p_participation AND p.removed_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'LBUS1', MESSAGE = 'not authenticated';
    END IF;
    IF v_owner <> v_host AND bus_project_role(v_project, v_owner) = 'viewer' THEN
        PERFORM bus_refuse_as_viewer();
    END IF;
END $$;

-- Authenticate the caller and lock the project clock: the first statement of a write that takes several statements.
CREATE FUNCTION bus_authenticate_and_lock(
    p_participation bigint, p_token bigint,
    OUT project_id bigint, OUT actor text, OUT is_admin boolean
) LANGUAGE plpgsql AS $$
BEGIN
    SELECT c.project_id, c.actor, c.is_admin INTO project_id, actor, is_admin
    FROM bus_authenticate(p_participation, p_token, true) c;
    PERFORM bus_lock_open_clock(project_id);
    PERFORM bus_refuse_removed(p_participation);
END $$;

-- Take the next `p_count` numbers of the ledger and their time. The clock stays locked until commit, so that the
-- order of numbers is the order of commits. The time is read under the lock and never runs backwards. It is stored in
-- whole milliseconds, the resolution that clients receive, so that a received time works as a filter.
CREATE FUNCTION bus_advance_clock(p_project bigint, p_count integer, OUT last_seq bigint, OUT at timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE project_clock c
    SET last_seq = c.last_seq + p_count, last_at = greatest(date_trunc('milliseconds', clock_timestamp()), c.last_at)
    WHERE c.project_id = p_project AND NOT c.closed
    RETURNING c.last_seq, c.last_at INTO last_seq, at;
    IF NOT FOUND THEN
        -- The project was archived while the caller waited for its clock.
        PERFORM bus_refuse_archived();
    END IF;
END $$;

-- Append one event and return its number and time.
CREATE FUNCTION bus_append(
    p_project bigint, p_participation bigint, p_actor text, p_type text, p_payload jsonb,
    p_session text DEFAULT NULL, OUT seq bigint, OUT at timestamptz
) LANGUAGE plpgsql AS $$
BEGIN
    SELECT t.last_seq, t.at INTO seq, at FROM bus_advance_clock(p_project, 1) t;
    INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload, session_key)
    VALUES (p_project, seq, at, p_participation, p_actor, p_type, p_payload, p_session);
END $$;

-- Append several events of one caller in order, advancing the clock once. Returns their common time.
CREATE FUNCTION bus_append_all(
    p_project bigint, p_participation bigint, p_actor text, p_types text[], p_payloads jsonb[],
    p_session text DEFAULT NULL
) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    v_last_seq bigint;
    v_at timestamptz;
BEGIN
    SELECT t.last_seq, t.at INTO v_last_seq, v_at FROM bus_advance_clock(p_project, cardinality(p_types)) t;
    INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload, session_key)
    SELECT p_project, v_last_seq - cardinality(p_types) + n.ordinality, v_at, p_participation, p_actor, n.type,
           n.payload, p_session
    FROM unnest(p_types, p_payloads) WITH ORDINALITY AS n (type, payload, ordinality);
    RETURN v_at;
END $$;

-- Append events of several actors in order, advancing the clock once; used by jobs.
CREATE FUNCTION bus_append_each(
    p_project bigint, p_participations bigint[], p_actors text[], p_types text[], p_payloads jsonb[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_last_seq bigint;
    v_at timestamptz;
BEGIN
    SELECT t.last_seq, t.at INTO v_last_seq, v_at FROM bus_advance_clock(p_project, cardinality(p_types)) t;
    INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload)
    SELECT p_project, v_last_seq - cardinality(p_types) + n.ordinality, v_at, n.participation, n.actor, n.type,
           n.payload
    FROM unnest(p_participations, p_actors, p_types, p_payloads)
         WITH ORDINALITY AS n (participation, actor, type, payload, ordinality);
END $$;
