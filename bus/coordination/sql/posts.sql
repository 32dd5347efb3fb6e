-- Posts: a post, its deliveries and its event are written in one transaction.

-- The number of posts that a participation has not acked, counted up to 100; part of the results of most calls.
CREATE FUNCTION bus_unread(p_project bigint, p_participation bigint) RETURNS integer
LANGUAGE sql STABLE AS $$
    SELECT count(*)::integer FROM (
        SELECT FROM delivery d
        WHERE d.project_id = p_project AND d.participation_id = p_participation AND d.acked_at IS NULL
        LIMIT 100
    ) AS counted
$$;

-- The present members of a lane: participations with a live token whose registered lane, else granted lane, it is.
CREATE FUNCTION bus_lane_members(p_project bigint, p_lane text, p_except bigint) RETURNS bigint[]
LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(p.id ORDER BY p.id), '{}')
    FROM participation p
    JOIN participant pt ON pt.id = p.participant_id AND pt.removed_at IS NULL
    LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id
    WHERE p.project_id = p_project AND p.removed_at IS NULL AND p.id <> p_except
      AND coalesce(pr.lane, p.lane) = p_lane
      AND EXISTS (SELECT FROM token t WHERE t.participation_id = p.id AND bus_token_is_live(t.revoked_at, t.expires_at))
$$;

-- Create a post. Lock order: idempotency key, then the clock. A lane post locks the clock before it reads the members,
-- so that either the post includes a joining member or the join delivers the post. A post to one participant takes the
-- clock last. Its plans are generic: otherwise the insert for an array of recipients is planned in each call, in 340 µs.
CREATE FUNCTION bus_post(
    p_participation bigint, p_token bigint, p_body text, p_to_lane text, p_to_handle text, p_to_label_key text,
    p_to_actor text, p_subject text, p_ref text, p_tag text, p_reply_to bigint, p_ack_within_seconds integer,
    p_key text, p_fingerprint bytea, p_session text DEFAULT NULL,
    OUT post_id bigint, OUT created_at timestamptz, OUT recipients integer, OUT unread integer
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_caller record;
    v_stored jsonb;
    v_recipient bigint;
    v_recipient_name text;
    v_recipients bigint[] := '{}';
BEGIN
    SELECT * INTO v_caller FROM bus_authenticate(p_participation, p_token, true);
    IF p_key IS NOT NULL THEN
        v_stored := bus_find_result(v_caller.project_id, p_participation, p_key, p_fingerprint);
        IF v_stored IS NOT NULL THEN
            post_id := (v_stored ->> 'post_id')::bigint;
            recipients := (v_stored ->> 'recipients')::integer;
            created_at := (v_stored ->> 'created_at')::timestamptz;
            unread := bus_unread(v_caller.project_id, p_participation);
            RETURN;
        END IF;
    END IF;
    IF p_to_lane IS NOT NULL THEN
        PERFORM bus_lock_open_clock(v_caller.project_id);
    END IF;
    IF p_to_label_key IS NOT NULL THEN
        SELECT p.id INTO v_recipient FROM participation p JOIN participant pt ON pt.id = p.participant_id
        WHERE p.id = bus_find_participation(v_caller.project_id, p_to_handle, p_to_label_key, p_participation)
          AND p.removed_at IS NULL AND pt.removed_at IS NULL;
        IF NOT FOUND THEN
            PERFORM bus_refuse_recipient(v_caller.project_id, p_to_actor, v_caller.owner_id);
        END IF;
        v_recipient_name := bus_participation_name(v_recipient);
    END IF;
    IF p_reply_to IS NOT NULL THEN
        PERFORM FROM post o WHERE o.project_id = v_caller.project_id AND o.id = p_reply_to;
        IF NOT FOUND THEN
            PERFORM bus_refuse('not_found', format('There is no post %s to reply to.', p_reply_to));
        END IF;
    END IF;
    IF p_to_lane IS NOT NULL THEN
        v_recipients := bus_lane_members(v_caller.project_id, p_to_lane, p_participation);
    END IF;
    IF v_recipient IS NOT NULL AND NOT v_recipient = ANY (v_recipients) THEN
        v_recipients := v_recipients || v_recipient;
    END IF;
    recipients := cardinality(v_recipients);
    SELECT a.seq, a.at INTO post_id, created_at
    FROM bus_append(v_caller.project_id, p_participation, v_caller.actor, 'post', jsonb_build_object(
        'to_lane', p_to_lane, 'to_actor', v_recipient_name, 'subject', p_subject, 'ref', p_ref, 'tag', p_tag,
        'reply_to', p_reply_to, 'recipients', recipients), p_session) a;
    IF v_recipient IS NOT NULL AND p_to_lane IS NULL THEN
        -- The clock is locked only now, so check again that the recipient was not removed in the meantime.
        PERFORM FROM participation p JOIN participant pt ON pt.id = p.participant_id
        WHERE p.id = v_recipient AND p.removed_at IS NULL AND pt.removed_at IS NULL;
        IF NOT FOUND THEN
            PERFORM bus_refuse_recipient(v_caller.project_id, p_to_actor, v_caller.owner_id);
        END IF;
    END IF;
    IF v_recipient IS NOT NULL THEN
        PERFORM bus_refuse_viewer(v_caller.project_id, v_recipient);
    END IF;
    INSERT INTO post (project_id, id, participation_id, actor, to_lane, to_participation_id, to_actor, subject, body,
                      ref, tag, reply_to, recipients, ack_due_at, escalate_at, created_at)
    VALUES (v_caller.project_id, post_id, p_participation, v_caller.actor, p_to_lane, v_recipient, v_recipient_name,
            p_subject, p_body, p_ref, p_tag, p_reply_to, recipients,
            created_at + make_interval(secs => p_ack_within_seconds),
            created_at + make_interval(secs => p_ack_within_seconds), created_at);
    INSERT INTO delivery (project_id, participation_id, post_id, wake, client)
    SELECT v_caller.project_id, r.member, post_id, coalesce(bus_wake(
               greatest(pr.waiting_until, s.waiting_until), greatest(pr.listening_until, s.listening_until),
               s.hooks_until), 'none'), pr.client
    FROM unnest(v_recipients) AS r (member)
    LEFT JOIN presence pr ON pr.project_id = v_caller.project_id AND pr.participation_id = r.member
    CROSS JOIN LATERAL (
        SELECT max(a.waiting_until) AS waiting_until, max(a.listening_until) AS listening_until,
               max(a.hooks_until) AS hooks_until
        FROM agent_session a
        WHERE a.project_id = v_caller.project_id AND a.participation_id = r.member AND a.ended_at IS NULL) AS s;
    IF p_session IS NOT NULL AND p_participation = ANY (v_recipients) THEN
        -- For the other sessions of the sender.
        INSERT INTO session_post (project_id, participation_id, key, post_id)
        VALUES (v_caller.project_id, p_participation, p_session, post_id);
    END IF;
    IF p_key IS NOT NULL THEN
        PERFORM bus_store_result(v_caller.project_id, p_participation, p_key,
            jsonb_build_object('post_id', post_id, 'recipients', recipients, 'created_at', created_at));
    END IF;
    unread := bus_unread(v_caller.project_id, p_participation);
END $$;

-- Acknowledge posts. The first ack stands: a repeated one changes nothing and adds no event. An id that is not a post
-- of this project refuses the whole call.
-- `taken_by` is the label of the session that acked before the caller's, if that is another one.
CREATE FUNCTION bus_ack_posts(p_participation bigint, p_token bigint, p_posts bigint[], p_session text)
RETURNS TABLE (post_id bigint, acked_at timestamptz, taken_by text) LANGUAGE plpgsql AS $$
DECLARE
    v_caller record;
    v_missing bigint[];
    v_unacked bigint[];
    v_last_seq bigint;
    v_at timestamptz;
BEGIN
    SELECT * INTO v_caller FROM bus_authenticate(p_participation, p_token, true);
    PERFORM bus_lock_open_clock(v_caller.project_id);
    SELECT array_agg(requested ORDER BY requested) INTO v_missing FROM (
        SELECT DISTINCT u.requested FROM unnest(p_posts) AS u (requested)
        WHERE NOT EXISTS (SELECT FROM post o WHERE o.project_id = v_caller.project_id AND o.id = u.requested)
    ) AS missing;
    IF v_missing IS NOT NULL THEN
        PERFORM bus_refuse('not_found',
            format('There is no post %s.', array_to_string(v_missing, ', ')), '{"hint": "read_posts"}');
    END IF;
    SELECT array_agg(u.requested ORDER BY u.requested) INTO v_unacked
    FROM (SELECT DISTINCT w AS requested FROM unnest(p_posts) AS w) AS u
    WHERE NOT EXISTS (
        SELECT FROM delivery d WHERE d.project_id = v_caller.project_id AND d.participation_id = p_participation
          AND d.post_id = u.requested AND d.acked_at IS NOT NULL);
    IF v_unacked IS NOT NULL THEN
        SELECT t.last_seq, t.at INTO v_last_seq, v_at
        FROM bus_advance_clock(v_caller.project_id, cardinality(v_unacked)) t;
        INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload, session_key)
        SELECT v_caller.project_id, v_last_seq - cardinality(v_unacked) + n.ordinality, v_at, p_participation,
               v_caller.actor, 'ack', jsonb_build_object('post_id', n.id), p_session
        FROM unnest(v_unacked) WITH ORDINALITY AS n (id, ordinality);
        INSERT INTO delivery AS d (project_id, participation_id, post_id, addressed, acked_at, acked_session)
        SELECT v_caller.project_id, p_participation, n.id, false, v_at, p_session FROM unnest(v_unacked) AS n (id)
        ON CONFLICT ON CONSTRAINT delivery_pkey DO UPDATE
        SET acked_at = excluded.acked_at, acked_session = excluded.acked_session;
        -- A sender's ack of its own post confirms nothing, unless the post was addressed to itself: sub-agents and the
        -- sessions of one agent share an identity.
        UPDATE post o SET acked_at = v_at
        WHERE o.project_id = v_caller.project_id AND o.id = ANY (v_unacked) AND o.acked_at IS NULL
          AND (o.participation_id <> p_participation
               OR (o.to_participation_id = p_participation AND o.to_lane IS NULL));
    END IF;
    RETURN QUERY SELECT d.post_id, d.acked_at,
        CASE WHEN d.acked_session <> p_session THEN bus_session_label(d.acked_session) END
        FROM delivery d
        WHERE d.project_id = v_caller.project_id AND d.participation_id = p_participation AND d.post_id = ANY (p_posts);
END $$;

-- For processes of the previous version, during a deployment.
CREATE FUNCTION bus_ack(p_participation bigint, p_token bigint, p_posts bigint[])
RETURNS TABLE (post_id bigint, acked_at timestamptz) LANGUAGE sql AS $$
    SELECT a.post_id, a.acked_at FROM bus_ack_posts(p_participation, p_token, p_posts, NULL) a
$$;

-- Deliver the newest 100 unacked posts of a lane to a new member. The caller has locked the clock.
CREATE FUNCTION bus_join_lane(p_project bigint, p_participation bigint, p_lane text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO delivery (project_id, participation_id, post_id)
    SELECT p_project, p_participation, newest.id FROM (
        SELECT o.id FROM post o
        WHERE o.project_id = p_project AND o.to_lane = p_lane AND o.acked_at IS NULL
          AND o.participation_id <> p_participation
        ORDER BY o.id DESC LIMIT 100) AS newest
    ORDER BY newest.id
    ON CONFLICT DO NOTHING;
END $$;

-- Withdraw the unacked deliveries that a participant has only as a member of a lane. The caller has locked the clock.
CREATE FUNCTION bus_leave_lane(p_project bigint, p_participation bigint, p_lane text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    -- The lateral subquery reads each post by its key, whatever the statistics say.
    DELETE FROM delivery d
    WHERE d.project_id = p_project AND d.participation_id = p_participation AND d.acked_at IS NULL AND d.addressed
      AND d.post_id = ANY (ARRAY(
        SELECT w.post_id FROM delivery w
        CROSS JOIN LATERAL (
            SELECT p.to_lane, p.to_participation_id FROM post p
            WHERE p.project_id = p_project AND p.id = w.post_id LIMIT 1) AS o
        WHERE w.project_id = p_project AND w.participation_id = p_participation AND w.acked_at IS NULL AND w.addressed
          AND o.to_lane = p_lane AND o.to_participation_id IS DISTINCT FROM p_participation));
END $$;

-- A page of posts as a JSON array. In all, this costs less than columns that Python decodes, copies and encodes again;
-- see docs/decisions/0039-long-answers.md. Fields that are not always there come last.
-- `p_ids`: newest first; null for none. Those after `p_limit` only say that the page has a successor.
-- `p_whole_length`: bodies are whole if they have at most this many characters together, or if it is null. Else they are
-- cut to a length between `p_min_preview` and `p_max_preview`, so that together they have about `p_preview_budget`.
-- The page ends early at `p_page_bytes` of text, but has one post at least.
CREATE FUNCTION bus_post_page(
    p_project bigint, p_participation bigint, p_ids bigint[], p_limit integer, p_page_bytes integer,
    p_whole_length integer, p_min_preview integer, p_max_preview integer, p_preview_budget integer,
    p_session text,
    OUT posts text, OUT next_before bigint, OUT has_cut_bodies boolean, OUT surfacing bigint[]
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_ids bigint[] := p_ids[1:p_limit];
    v_max_length integer;
    v_last bigint;
BEGIN
    -- Each lateral subquery ends in LIMIT 1, so that it reads one row by its whole key, whatever the statistics say.
    IF p_whole_length IS NOT NULL THEN
        SELECT CASE WHEN sum(length(o.body)) > p_whole_length THEN greatest(
                    p_min_preview, least(p_max_preview, p_preview_budget / cardinality(v_ids))) END
        INTO v_max_length
        FROM unnest(v_ids) AS page (id)
        CROSS JOIN LATERAL (SELECT p.body FROM post p WHERE p.project_id = p_project AND p.id = page.id LIMIT 1) AS o;
    END IF;
    WITH acks AS MATERIALIZED (
        SELECT d.post_id, d.participation_id, d.acked_at FROM delivery d
        WHERE d.project_id = p_project AND d.post_id = ANY (v_ids) AND d.acked_at IS NOT NULL
    ), names AS MATERIALIZED (
        -- Once for each participant, and not for each post.
        SELECT a.id, to_json(bus_participation_name(a.id))::text AS name
        FROM (SELECT DISTINCT acks.participation_id AS id FROM acks) AS a
    ), acked_by AS MATERIALIZED (
        SELECT a.post_id, array_to_string(
            (array_agg(n.name ORDER BY a.acked_at, a.participation_id))[1:50], ',') AS names
        FROM acks a JOIN names n ON n.id = a.participation_id GROUP BY a.post_id
    ), shown AS (
        -- A post that woke the session has a row of session_post already.
        SELECT o.*, mine.addressed AND mine.acked_at IS NULL AND (
                   mine.surfaced_at IS NULL OR p_session IS NOT NULL AND NOT EXISTS (
                       SELECT FROM session_post h WHERE h.project_id = p_project
                         AND h.participation_id = p_participation AND h.key = p_session AND h.post_id = o.id)
               ) AS is_surfacing,
               CASE WHEN mine.acked_session <> p_session THEN bus_session_label(mine.acked_session) END AS taken_by,
               CASE WHEN mine.addressed THEN mine.acked_at IS NOT NULL
                    ELSE o.acked_at IS NOT NULL OR mine.acked_at IS NOT NULL END AS acked,
               CASE WHEN length(o.body) > v_max_length THEN length(o.body) END AS cut_length,
               CASE WHEN length(o.body) > v_max_length THEN left(o.body, v_max_length) || '…' ELSE o.body END AS text
        FROM unnest(v_ids) AS page (id)
        CROSS JOIN LATERAL (SELECT p.* FROM post p WHERE p.project_id = p_project AND p.id = page.id LIMIT 1) AS o
        LEFT JOIN LATERAL (
            SELECT d.addressed, d.acked_at, d.surfaced_at, d.acked_session FROM delivery d
            WHERE d.project_id = p_project AND d.participation_id = p_participation AND d.post_id = page.id LIMIT 1
        ) AS mine ON true
    ), fitting AS (
        SELECT s.* FROM (
            SELECT s.*, row_number() OVER newest_first AS position,
                   sum(octet_length(concat(s.text, s.subject, s.ref, s.tag))) OVER newest_first AS total_bytes
            FROM shown s WINDOW newest_first AS (ORDER BY s.id DESC ROWS UNBOUNDED PRECEDING)) AS s
        WHERE s.total_bytes <= p_page_bytes OR s.position = 1
    )
    SELECT '[' || string_agg(
               '{"post_id":' || f.id || ',"from":' || to_json(f.actor)
               || ',"to_lane":' || coalesce(to_json(f.to_lane)::text, 'null')
               || ',"to_actor":' || coalesce(to_json(f.to_actor)::text, 'null')
               || ',"subject":' || coalesce(to_json(f.subject)::text, 'null')
               || ',"body":' || to_json(f.text)
               || ',"ref":' || coalesce(to_json(f.ref)::text, 'null')
               || ',"tag":' || coalesce(to_json(f.tag)::text, 'null')
               || ',"created_at":"' || to_char(f.created_at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
               || '","acked":' || f.acked::text
               || coalesce(',"body_length":' || f.cut_length, '')
               || coalesce(',"reply_to":' || f.reply_to, '')
               || coalesce(',"acked_by":[' || a.names || ']', '')
               || CASE WHEN f.participation_id <> p_participation THEN '' ELSE (
                    SELECT ',"deliveries":{"queued":' || count(*) FILTER (
                                WHERE d.acked_at IS NULL AND d.surfaced_at IS NULL)
                           || ',"surfaced":' || count(*) FILTER (WHERE d.acked_at IS NULL AND d.surfaced_at IS NOT NULL)
                           || ',"acked":' || count(*) FILTER (WHERE d.acked_at IS NOT NULL) || '}'
                    FROM delivery d WHERE d.project_id = p_project AND d.post_id = f.id AND d.addressed) END
               || coalesce(',"taken_by":' || to_json(f.taken_by), '')
               || '}', ',' ORDER BY f.id DESC) || ']',
           min(f.id), coalesce(bool_or(f.cut_length IS NOT NULL), false),
           array_agg(f.id ORDER BY f.id DESC) FILTER (WHERE f.is_surfacing)
    INTO posts, v_last, has_cut_bodies, surfacing
    FROM fitting f LEFT JOIN acked_by a ON a.post_id = f.id;
    IF v_last > p_ids[cardinality(p_ids)] THEN
        next_before := v_last;
    END IF;
END $$;
