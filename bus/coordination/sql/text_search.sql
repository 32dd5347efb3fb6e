-- Full text of posts and tasks. A document has the words of a text and, as words that no text can contain, the ranges of
-- ids that it is in. A search goes through the ranges from the newest on and stops when it has its answer, so what it
-- reads does not grow with the number of documents that contain a frequent word.

-- The words of a text, without stemming. Paths, addresses and numbers such as ADR-0049 are words one by one.
CREATE FUNCTION bus_search_words(p_text text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT to_tsvector('simple', translate(p_text, './\_-:@#', '        '))
$$;

CREATE FUNCTION bus_search_range(p_project bigint, p_kind text, p_bits integer, p_id bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    -- The space in front keeps it apart from the words of texts.
    SELECT ' ' || p_project::text || p_kind || p_bits::text || ':' || (p_id >> p_bits)::text
$$;

CREATE FUNCTION bus_search_document(p_project bigint, p_kind text, p_id bigint, p_text text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT array_to_tsvector(ARRAY[bus_search_range(p_project, p_kind, 8, p_id),
                                   bus_search_range(p_project, p_kind, 18, p_id)]) || bus_search_words(p_text)
$$;

-- A query for all words of a text, or for any of them; a part in quotes is a phrase. Without words it is empty.
CREATE FUNCTION bus_search_query(p_text text, p_any boolean DEFAULT false) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    v_query tsquery := '';
    v_part text;
    v_parsed tsquery;
    v_quoted boolean := false;
BEGIN
    FOREACH v_part IN ARRAY string_to_array(translate(p_text, './\_-:@#', '        '), '"') LOOP
        IF v_quoted THEN
            v_parsed := phraseto_tsquery('simple', v_part);
            v_query := CASE WHEN p_any THEN v_query || v_parsed ELSE v_query && v_parsed END;
        ELSIF p_any THEN
            v_query := v_query || replace(plainto_tsquery('simple', v_part)::text, '&', '|')::tsquery;
        ELSE
            v_query := v_query && plainto_tsquery('simple', v_part);
        END IF;
        v_quoted := NOT v_quoted;
    END LOOP;
    RETURN v_query;
END $$;

-- Ids of posts ('post') or tasks ('task') that match, newest first. Texts that the job index_texts has not read yet are
-- searched one by one, the newest 500. The connections of the gateway allow index scans only, and a GIN index has no
-- other scan than that of a bitmap.
CREATE FUNCTION bus_search(p_project bigint, p_kind text, p_query tsquery, p_before bigint, p_limit integer)
RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SET enable_bitmapscan = on SET enable_seqscan = off AS $$
DECLARE
    v_indexed bigint;
    v_upper bigint;
    v_bits integer := 8;
    v_steps integer := 0;
    v_count integer := 0;
    v_id bigint;
    v_range tsquery;
BEGIN
    IF numnode(p_query) = 0 THEN
        RETURN;
    END IF;
    SELECT coalesce(max(d.id), 0) INTO v_indexed FROM search_document d
    WHERE d.project_id = p_project AND d.kind = p_kind;
    IF p_kind = 'post' THEN
        RETURN QUERY SELECT fresh.id FROM (
            SELECT o.id, o.subject, o.ref, o.body FROM post o
            WHERE o.project_id = p_project AND o.id > v_indexed AND o.id < p_before ORDER BY o.id DESC LIMIT 500) AS fresh
        WHERE bus_search_words(concat_ws(' ', fresh.subject, fresh.ref, fresh.body)) @@ p_query
        ORDER BY fresh.id DESC LIMIT p_limit;
    ELSE
        RETURN QUERY SELECT fresh.id FROM (
            SELECT t.id, t.title, t.detail FROM task t
            WHERE t.project_id = p_project AND t.id > v_indexed AND t.id < p_before ORDER BY t.id DESC LIMIT 500) AS fresh
        WHERE bus_search_words(concat_ws(' ', fresh.title, fresh.detail)) @@ p_query
        ORDER BY fresh.id DESC LIMIT p_limit;
    END IF;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    v_upper := least(p_before - 1, v_indexed);
    WHILE v_upper > 0 AND v_count < p_limit LOOP
        v_range := format('%L', bus_search_range(p_project, p_kind, v_bits, v_upper))::tsquery;
        FOR v_id IN
            -- A materialized query, so that the words are the only condition that an index can serve. As two conditions
            -- the range and the words skip each other's entries; in one query the rarest word is read as a whole.
            WITH matching AS MATERIALIZED (
                SELECT d.project_id, d.kind, d.id FROM search_document d
                WHERE d.words @@ v_range AND d.words @@ p_query)
            SELECT m.id FROM matching m
            WHERE m.project_id = p_project AND m.kind = p_kind AND m.id <= v_upper
            ORDER BY m.id DESC LIMIT p_limit - v_count
        LOOP
            RETURN NEXT v_id;
            v_count := v_count + 1;
        END LOOP;
        v_upper := ((v_upper >> v_bits) << v_bits) - 1;
        v_steps := v_steps + 1;
        -- Matches have been rare in 32 small ranges, so the next ones can be large.
        IF v_steps >= 32 THEN
            v_bits := 18;
        END IF;
    END LOOP;
END $$;

-- The best matches for a text, at most p_limit: those with the phrase first, then those with all of its words, then those
-- with many of them. Chosen among the newest matches of all words and the newest of any.
CREATE FUNCTION bus_search_ranked(
    p_project bigint, p_kind text, p_text text, p_limit integer, OUT id bigint, OUT rank real
) RETURNS SETOF record
LANGUAGE sql STABLE AS $$
    WITH query AS MATERIALIZED (
        SELECT bus_search_query(p_text) AS every_word, bus_search_query(p_text, true) AS any_word,
               phraseto_tsquery('simple', translate(p_text, './\_-:@#"', '         ')) AS phrase),
    candidate AS MATERIALIZED (
        SELECT bus_search(p_project, p_kind, q.every_word, 9007199254740991, 4 * p_limit) AS id FROM query q
        UNION SELECT bus_search(p_project, p_kind, q.any_word, 9007199254740991, 2 * p_limit) FROM query q)
    SELECT c.id, (ts_rank_cd(w.words, q.any_word)
                  + CASE WHEN w.words @@ q.phrase THEN 4 WHEN w.words @@ q.every_word THEN 2 ELSE 0 END)::real AS rank
    FROM candidate c CROSS JOIN query q
    CROSS JOIN LATERAL (
        SELECT coalesce(
            (SELECT d.words FROM search_document d WHERE d.project_id = p_project AND d.kind = p_kind AND d.id = c.id),
            (SELECT bus_search_words(concat_ws(' ', o.subject, o.ref, o.body)) FROM post o
             WHERE p_kind = 'post' AND o.project_id = p_project AND o.id = c.id),
            (SELECT bus_search_words(concat_ws(' ', t.title, t.detail)) FROM task t
             WHERE p_kind = 'task' AND t.project_id = p_project AND t.id = c.id)) AS words) AS w
    ORDER BY rank DESC, c.id DESC LIMIT p_limit
$$;
