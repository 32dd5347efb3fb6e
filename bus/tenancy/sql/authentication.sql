-- Authentication, part of the statement of every call: a token that was revoked, a participation that was removed or an
-- owner who was suspended before the statement began is refused, in every process, without a cache.

-- Refuse a call that needs a wider scope than its token has.
CREATE FUNCTION bus_refuse_scope(p_needed text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'LBUS3', MESSAGE = 'insufficient scope', DETAIL = p_needed;
END $$;

-- The caller's present identity. `p_token` is null for an owner who acts in the web. `p_write` refuses an archived
-- project, a token that may only read, and owners whose role is viewer. A participant of another owner has access as long as
-- that owner has a role in the project; of those, a lead alone is admin. Only a token that allows it makes a project-admin
-- one (`is_admin`). `owner_id` is the participant's owner.
-- Raises LBUS1 (not authenticated), LBUS2 (the owner is suspended), LBUS0 (forbidden), LBUS3 (insufficient scope). From here
-- on the transaction writes rows of the caller's project only (docs/decisions/0044-application-role.md).
CREATE FUNCTION bus_authenticate(
    p_participation bigint, p_token bigint, p_write boolean,
    OUT project_id bigint, OUT owner_id bigint, OUT participant_id bigint, OUT actor text, OUT is_admin boolean,
    OUT lane text
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_archived boolean;
    v_suspended boolean;
    v_host bigint;
    v_token_scope text;
    v_setting text;
BEGIN
    SELECT p.project_id, o.id, pt.id, bus_qualified_name(o.handle, pt.label),
           p.is_admin, p.lane, pj.archived_at IS NOT NULL, o.suspended_at IS NOT NULL, pj.owner_id,
           (SELECT t.scope FROM token t
            WHERE t.id = p_token AND t.participation_id = p_participation AND bus_token_is_live(t.revoked_at, t.expires_at))
    INTO project_id, owner_id, participant_id, actor, is_admin, lane, v_archived, v_suspended, v_host, v_token_scope
    FROM participation p
    JOIN participant pt ON pt.id = p.participant_id
    JOIN project pj ON pj.id = p.project_id
    JOIN owner o ON o.id = pt.owner_id
    WHERE p.id = p_participation AND p.removed_at IS NULL AND pt.removed_at IS NULL AND pj.purging_at IS NULL;
    IF NOT FOUND OR p_token IS NOT NULL AND v_token_scope IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'LBUS1', MESSAGE = 'not authenticated';
    END IF;
    IF v_host <> owner_id THEN
        DECLARE
            v_role text := bus_project_role(project_id, owner_id);
        BEGIN
            IF v_role IS NULL THEN
                RAISE EXCEPTION USING ERRCODE = 'LBUS1', MESSAGE = 'not authenticated';
            END IF;
            IF p_write AND v_role = 'viewer' THEN
                PERFORM bus_refuse_as_viewer();
            END IF;
            is_admin := is_admin AND v_role = 'lead';
            IF (p_token IS NOT NULL OR p_write)
               AND EXISTS (SELECT FROM owner o WHERE o.id = v_host AND o.suspended_at IS NOT NULL) THEN
                v_suspended := true;
            END IF;
        END;
    END IF;
    -- An assignment costs less than PERFORM, which would run a query.
    v_setting := set_config('llm_bus.project_scope', project_id::text, true);
    -- A suspended owner may read its own projects in the web, where it also tops up.
    IF v_suspended AND (p_token IS NOT NULL OR p_write) THEN
        RAISE EXCEPTION USING ERRCODE = 'LBUS2', MESSAGE = 'owner suspended';
    END IF;
    IF p_write AND v_archived THEN
        PERFORM bus_refuse_archived();
    END IF;
    IF v_token_scope <> 'admin' THEN
        is_admin := false;
        IF p_write AND v_token_scope = 'read' THEN
            PERFORM bus_refuse_scope('write');
        END IF;
    END IF;
END $$;

-- Refuse a caller whose token has not a scope, if a wider one would help: a participation that is not project-admin is not
-- refused for lack of the scope `admin`, and one that may not write gets the error that says so.
CREATE FUNCTION bus_require_scope(p_participation bigint, p_token bigint, p_scope text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_token_scope text;
BEGIN
    PERFORM FROM bus_authenticate(p_participation, p_token, false);
    SELECT t.scope INTO v_token_scope FROM token t WHERE t.id = p_token;
    -- What the participation may, without a token that limits it: a role or an archived project refuses a write anyway.
    IF p_scope = 'write' AND v_token_scope = 'read' THEN
        PERFORM FROM bus_authenticate(p_participation, NULL, true);
        PERFORM bus_refuse_scope(p_scope);
    ELSIF p_scope = 'admin' AND v_token_scope <> 'admin'
        AND (SELECT c.is_admin FROM bus_authenticate(p_participation, NULL, v_token_scope = 'read') c)
    THEN
        PERFORM bus_refuse_scope(p_scope);
    END IF;
END $$;
