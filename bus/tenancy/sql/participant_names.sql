-- Names of participants: display and lookup.

-- The qualified name of a participant. The label is '' for the owner, who goes by the handle alone.
CREATE FUNCTION bus_qualified_name(p_handle text, p_label text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_label = '' THEN p_handle ELSE p_handle || '/' || p_label END
$$;

-- For processes of the previous version, during a deployment: the name of a participant within its owner.
CREATE FUNCTION bus_short_name(p_handle text, p_label text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_label = '' THEN p_handle ELSE p_label END
$$;

-- The name of a participant for an owner: the short one among its own participants, the qualified one of others.
CREATE FUNCTION bus_name_for(p_viewer bigint, p_owner bigint, p_handle text, p_label text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_owner = p_viewer AND p_label <> '' THEN p_label
                ELSE bus_qualified_name(p_handle, p_label) END
$$;

-- The participation with a name in a project: `handle/label`; a handle alone, which is the qualified name of a person
-- (whose label is '') and takes precedence over a label; or a label, which means a participant of the owner of
-- p_caller, or of the project's owner if that is null. A handle may be a former one. Also finds former names and removed
-- participants, since past events carry them; null if there is none.
CREATE FUNCTION bus_find_participation(
    p_project bigint, p_handle text, p_label_key text, p_caller bigint DEFAULT NULL
) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT p.id
    FROM (
        SELECT n.participant_id, 1 AS rank
        FROM participant_name n
        WHERE n.label_key = p_label_key AND n.owner_id = CASE
            WHEN p_handle IS NOT NULL THEN (SELECT h.owner_id FROM owner_handle h WHERE h.handle = p_handle)
            WHEN p_caller IS NULL THEN (SELECT pj.owner_id FROM project pj WHERE pj.id = p_project)
            ELSE (SELECT pt.owner_id FROM participation me JOIN participant pt ON pt.id = me.participant_id
                  WHERE me.id = p_caller) END
        UNION ALL
        SELECT n.participant_id, 0
        FROM owner_handle h JOIN participant_name n ON n.owner_id = h.owner_id AND n.label_key = ''
        WHERE p_handle IS NULL AND h.handle = p_label_key
    ) AS named
    JOIN participation p ON p.project_id = p_project AND p.participant_id = named.participant_id
    ORDER BY named.rank LIMIT 1
$$;

-- The present qualified name of a participation.
CREATE FUNCTION bus_participation_name(p_participation bigint) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT bus_qualified_name(o.handle, pt.label)
    FROM participation p
    JOIN participant pt ON pt.id = p.participant_id
    JOIN owner o ON o.id = pt.owner_id
    WHERE p.id = p_participation
$$;

-- Refuse a name that no participant of the project bears. The error data carries up to 200 names, from which Python
-- picks similar ones; they belong to the caller's own project, which may list them anyway. p_viewer: the caller's owner.
CREATE FUNCTION bus_refuse_recipient(p_project bigint, p_wanted text, p_viewer bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bus_refuse('unknown_recipient',
        format('No participant of this project is called "%s".', p_wanted),
        jsonb_build_object('wanted', p_wanted, 'names', (
            SELECT coalesce(jsonb_agg(candidates.name), '[]') FROM (
                SELECT bus_name_for(p_viewer, o.id, o.handle, pt.label) AS name
                FROM participation p
                JOIN participant pt ON pt.id = p.participant_id
                JOIN owner o ON o.id = pt.owner_id
                WHERE p.project_id = p_project AND p.removed_at IS NULL AND pt.removed_at IS NULL
                ORDER BY p.id LIMIT 200) AS candidates)));
END $$;
