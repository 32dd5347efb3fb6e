-- Presence: a registration is written at once; the gateway writes sightings in batches.

-- Register the caller's lane and status. A change of lane withdraws the unacked deliveries of the old lane and delivers
-- the unacked posts of the new one.
CREATE FUNCTION bus_register(
    p_participation bigint, p_token bigint, p_lane text, p_status text, p_session text DEFAULT NULL,
    OUT actor text, OUT registered_at timestamptz, OUT unread integer
) LANGUAGE plpgsql AS $$
DECLARE
    v_caller record;
    v_previous record;
    v_old_lane text;
BEGIN
    SELECT * INTO v_caller FROM bus_authenticate(p_participation, p_token, true);
    PERFORM bus_lock_open_clock(v_caller.project_id);
    PERFORM bus_refuse_removed(p_participation);
    actor := v_caller.actor;
    IF p_session IS NOT NULL THEN
        INSERT INTO agent_session AS s (project_id, participation_id, key, token_id, status, started_at, last_seen)
        VALUES (v_caller.project_id, p_participation, p_session, p_token, p_status, clock_timestamp(), clock_timestamp())
        ON CONFLICT ON CONSTRAINT agent_session_pkey DO UPDATE SET status = excluded.status;
    END IF;
    SELECT pr.lane, pr.status, pr.registered_at INTO v_previous FROM presence pr
    WHERE pr.project_id = v_caller.project_id AND pr.participation_id = p_participation FOR UPDATE;
    v_old_lane := coalesce(v_previous.lane, v_caller.lane);
    IF v_previous.registered_at IS NOT NULL AND (v_previous.lane, v_previous.status) = (p_lane, p_status) THEN
        registered_at := v_previous.registered_at;
        UPDATE presence pr SET last_seen = greatest(pr.last_seen, clock_timestamp()), lapsed_at = NULL
        WHERE pr.project_id = v_caller.project_id AND pr.participation_id = p_participation;
    ELSE
        SELECT a.at INTO registered_at FROM bus_append(v_caller.project_id, p_participation, v_caller.actor,
            'register', jsonb_build_object('lane', p_lane, 'status', p_status), p_session) a;
        INSERT INTO presence AS pr (project_id, participation_id, lane, status, registered_at, last_seen)
        VALUES (v_caller.project_id, p_participation, p_lane, p_status, bus_register.registered_at,
                bus_register.registered_at)
        ON CONFLICT ON CONSTRAINT presence_pkey DO UPDATE
        SET lane = excluded.lane, status = excluded.status, registered_at = excluded.registered_at,
            last_seen = greatest(pr.last_seen, excluded.last_seen), lapsed_at = NULL;
        IF v_old_lane IS DISTINCT FROM p_lane THEN
            IF v_old_lane IS NOT NULL THEN
                PERFORM bus_leave_lane(v_caller.project_id, p_participation, v_old_lane);
            END IF;
            PERFORM bus_join_lane(v_caller.project_id, p_participation, p_lane);
        END IF;
    END IF;
    unread := bus_unread(v_caller.project_id, p_participation);
END $$;
