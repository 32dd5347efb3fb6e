-- Names of participants: display and lookup.

-- The qualified name of a participant. The label is '' for the owner, who goes by the handle alone.
CREATE FUNCTION bus_qualified_name(p_handle text, p_label text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_label = '' THEN p_handle ELSE p_handle || '/' || p_label END
$$;

-- The name of a participant within its owner: the label, or the handle for the owner.
CREATE FUNCTION bus_short_name(p_handle text, p_label text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_label = '' THEN p_handle ELSE p_label END
$$;

-- Whether a handle is that of an owner, or was. The present one takes no look at a table.
CREATE FUNCTION bus_is_handle_of(p_handle text, p_owner bigint, p_present text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT p_handle = p_present
        OR EXISTS (SELECT FROM owner_handle h WHERE h.handle = p_handle AND h.owner_id = p_owner)
$$;

-- The participation with a name in a project: `label`, `handle/label` with the owner's handle, or the handle alone,
-- which is the owner's own qualified name (its label is '') and takes precedence over a label. Also finds former names
-- and removed participants, since past events carry them; null if there is none.
CREATE FUNCTION bus_find_participation(p_project bigint, p_handle text, p_label_key text) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT p.id
    FROM project pj
    JOIN owner o ON o.id = pj.owner_id
    JOIN participant_name n ON n.owner_id = o.id
     AND n.label_key = ANY (ARRAY[
            p_label_key,
            CASE WHEN p_handle IS NULL AND bus_is_handle_of(p_label_key, o.id, o.handle) THEN '' END])
    JOIN participation p ON p.project_id = pj.id AND p.participant_id = n.participant_id
    WHERE pj.id = p_project AND (p_handle IS NULL OR bus_is_handle_of(p_handle, o.id, o.handle))
    ORDER BY n.label_key LIMIT 1
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
-- picks similar ones; they belong to the caller's own project, which may list them anyway.
CREATE FUNCTION bus_refuse_recipient(p_project bigint, p_wanted text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bus_refuse('unknown_recipient',
        format('No participant of this project is called "%s".', p_wanted),
        jsonb_build_object('wanted', p_wanted, 'names', (
            SELECT coalesce(jsonb_agg(candidates.name), '[]') FROM (
                SELECT bus_short_name(o.handle, pt.label) AS name
                FROM participation p
                JOIN participant pt ON pt.id = p.participant_id
                JOIN owner o ON o.id = pt.owner_id
                WHERE p.project_id = p_project AND p.removed_at IS NULL AND pt.removed_at IS NULL
                ORDER BY p.id LIMIT 200) AS candidates)));
END $$;
