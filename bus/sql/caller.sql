-- Who is calling, asked by every call's own statement: a token that was revoked, a grant that was removed or an
-- owner that was suspended before the statement began is refused, in every process, without any cache.

-- Refuse with an error of the bus: bus/db.py reads the code and the facts from DETAIL.
CREATE FUNCTION bus_refuse(p_code text, p_message text, p_facts jsonb DEFAULT '{}') RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'LBUS0', MESSAGE = p_message,
        DETAIL = (jsonb_build_object('code', p_code) || p_facts)::text;
END $$;

CREATE FUNCTION bus_refuse_archived() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bus_refuse('forbidden', 'This project is archived: reading works, writing does not.');
END $$;

-- The caller's live identity. `p_token` is null for an owner who acts in the web. `p_write` refuses an archived
-- project. Raises LBUS1 (nobody is calling), LBUS2 (the owner is suspended), LBUS0 forbidden.
CREATE FUNCTION bus_enter(
    p_participation bigint, p_token bigint, p_write boolean,
    OUT project_id bigint, OUT owner_id bigint, OUT participant_id bigint, OUT actor text, OUT is_admin boolean,
    OUT lane text
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_archived boolean;
    v_suspended boolean;
BEGIN
    SELECT p.project_id, o.id, pt.id, CASE WHEN pt.label = '' THEN o.handle ELSE o.handle || '/' || pt.label END,
           p.is_admin, p.lane, pj.archived_at IS NOT NULL, o.suspended_at IS NOT NULL
    INTO project_id, owner_id, participant_id, actor, is_admin, lane, v_archived, v_suspended
    FROM participation p
    JOIN participant pt ON pt.id = p.participant_id
    JOIN project pj ON pj.id = p.project_id
    JOIN owner o ON o.id = pt.owner_id
    WHERE p.id = p_participation AND p.removed_at IS NULL AND pt.removed_at IS NULL AND pj.purging_at IS NULL
      AND (p_token IS NULL OR EXISTS (
            SELECT FROM token t
            WHERE t.id = p_token AND t.participation_id = p_participation AND t.revoked_at IS NULL
              AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp())));
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'LBUS1', MESSAGE = 'not authenticated';
    END IF;
    -- The owner of a suspended account may look at what is its own in the web, where it also tops up.
    IF v_suspended AND (p_token IS NOT NULL OR p_write) THEN
        RAISE EXCEPTION USING ERRCODE = 'LBUS2', MESSAGE = 'owner suspended';
    END IF;
    IF p_write AND v_archived THEN
        PERFORM bus_refuse_archived();
    END IF;
END $$;

-- How many posts wait for the caller, counted up to 100: it rides on the answers of other calls.
CREATE FUNCTION bus_unread(p_project bigint, p_participation bigint) RETURNS integer
LANGUAGE sql STABLE AS $$
    SELECT count(*)::integer FROM (
        SELECT FROM delivery d
        WHERE d.project_id = p_project AND d.participation_id = p_participation AND d.acked_at IS NULL
        LIMIT 100
    ) AS waiting
$$;

-- The participation that a name stands for in this project: `label`, or `handle/label` with the owner's handle, or
-- the handle alone, which is the owner's own qualified name (its label is '') and so goes before a label.
-- Finds former names and participants that were removed too, since history keeps them; null if there is none.
CREATE FUNCTION bus_named(p_project bigint, p_handle text, p_label_key text) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT p.id
    FROM project pj
    JOIN owner o ON o.id = pj.owner_id
    JOIN participant_name n ON n.owner_id = o.id
     AND n.label_key = ANY (ARRAY[p_label_key, CASE WHEN p_handle IS NULL AND o.handle = p_label_key THEN '' END])
    JOIN participation p ON p.project_id = pj.id AND p.participant_id = n.participant_id
    WHERE pj.id = p_project AND (p_handle IS NULL OR o.handle = p_handle)
    ORDER BY n.label_key LIMIT 1
$$;

-- The qualified name of a participation as it stands now.
CREATE FUNCTION bus_actor(p_participation bigint) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN pt.label = '' THEN o.handle ELSE o.handle || '/' || pt.label END
    FROM participation p
    JOIN participant pt ON pt.id = p.participant_id
    JOIN owner o ON o.id = pt.owner_id
    WHERE p.id = p_participation
$$;

-- Refuse a name that nobody in the project bears. The facts carry up to 200 names of the project, from which the
-- Python side picks the nearest; they are the caller's own project's names, which list_participants shows anyway.
CREATE FUNCTION bus_refuse_recipient(p_project bigint, p_wanted text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bus_refuse('unknown_recipient',
        format('Nobody called "%s" is in this project.', p_wanted),
        jsonb_build_object('wanted', p_wanted, 'names', (
            SELECT coalesce(jsonb_agg(candidates.name), '[]') FROM (
                SELECT CASE WHEN pt.label = '' THEN o.handle ELSE pt.label END AS name
                FROM participation p
                JOIN participant pt ON pt.id = p.participant_id
                JOIN owner o ON o.id = pt.owner_id
                WHERE p.project_id = p_project AND p.removed_at IS NULL AND pt.removed_at IS NULL
                ORDER BY p.id LIMIT 200) AS candidates)));
END $$;
