-- Memberships: the rights of owners in projects.

-- The role of an owner in a project: `owner`, that of its membership, or null. A call of a participation asks this in its
-- own statement, so a removal is felt by the next call.
CREATE FUNCTION bus_project_role(p_project bigint, p_owner bigint) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN pj.owner_id = p_owner THEN 'owner'
                ELSE (SELECT m.role FROM membership m WHERE m.project_id = p_project AND m.owner_id = p_owner) END
    FROM project pj WHERE pj.id = p_project AND pj.purging_at IS NULL
$$;

-- The projects in which an owner has a role, read by two indexes. Plain SQL, so that the planner inlines it.
CREATE FUNCTION bus_projects_of(p_owner bigint) RETURNS TABLE (project_id bigint, role text)
LANGUAGE sql STABLE AS $$
    SELECT pj.id, 'owner' FROM project pj WHERE pj.owner_id = p_owner
    UNION ALL
    SELECT m.project_id, m.role FROM membership m WHERE m.owner_id = p_owner
$$;

-- The name of a project for an owner: qualified if it belongs to another one. Sorts and pages as a key, too: a name has
-- no slash.
CREATE FUNCTION bus_project_name_for(p_viewer bigint, p_owner bigint, p_name text) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN p_owner = p_viewer THEN p_name
                ELSE (SELECT o.handle FROM owner o WHERE o.id = p_owner) || '/' || p_name END
$$;

-- Whether a participation has access, apart from its token: it, its participant and its owner's role are there, and
-- neither its owner nor that of the project is suspended. For waits and subscriptions, which authenticate in bulk.
CREATE FUNCTION bus_has_access(p_participation bigint) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM participation p
        JOIN participant pt ON pt.id = p.participant_id AND pt.removed_at IS NULL
        JOIN owner o ON o.id = pt.owner_id AND o.suspended_at IS NULL
        JOIN project pj ON pj.id = p.project_id AND pj.purging_at IS NULL
        WHERE p.id = p_participation AND p.removed_at IS NULL
          AND (pj.owner_id = pt.owner_id
               OR EXISTS (SELECT FROM membership m JOIN owner host ON host.id = pj.owner_id
                          WHERE m.project_id = pj.id AND m.owner_id = pt.owner_id AND host.suspended_at IS NULL)))
$$;

-- Refuse a write of a participation whose owner is a viewer.
CREATE FUNCTION bus_refuse_as_viewer() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bus_refuse('forbidden',
        'Your role in this project is viewer: reading works, writing does not. Ask its owner for the role member.');
END $$;

-- Refuse to address a participation whose owner is a viewer: it could neither acknowledge a post nor work on a task.
CREATE FUNCTION bus_refuse_viewer(p_project bigint, p_participation bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_owner bigint;
BEGIN
    SELECT pt.owner_id INTO v_owner FROM participation p JOIN participant pt ON pt.id = p.participant_id
    WHERE p.id = p_participation;
    PERFORM FROM membership m WHERE m.project_id = p_project AND m.owner_id = v_owner AND m.role = 'viewer';
    IF FOUND THEN
        PERFORM bus_refuse('forbidden', format('%s only views this project and cannot answer; address another participant.',
                                               bus_participation_name(p_participation)));
    END IF;
END $$;
