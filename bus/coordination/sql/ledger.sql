-- Reading the ledger by time.

-- Milliseconds since 1970: the encoding of times inside JSON from these functions to Python.
CREATE FUNCTION bus_epoch_milliseconds(p_at timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$ SELECT (extract(epoch FROM p_at) * 1000)::bigint $$;

-- The number of the first event at or after `p_at`, or last_seq + 1 if there is none. `at` rises with seq, so a search
-- over the primary key replaces an index on time. It goes back from the end in growing steps, and then halves the last
-- step: most calls ask for recent events, and these cost the same for every length of history.
CREATE FUNCTION bus_seq_at(p_project bigint, p_at timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_low bigint;
    v_high bigint;
    v_last_at timestamptz;
    v_step bigint := 16;
    v_middle bigint;
    v_event_at timestamptz;
BEGIN
    SELECT c.last_seq + 1, c.last_at INTO v_high, v_last_at FROM project_clock c WHERE c.project_id = p_project;
    IF v_last_at < p_at THEN
        RETURN v_high;
    END IF;
    LOOP
        v_low := greatest(v_high - v_step, 1);
        EXIT WHEN v_low >= v_high;
        SELECT e.at INTO v_event_at FROM event e WHERE e.project_id = p_project AND e.seq = v_low;
        IF v_event_at < p_at THEN
            v_low := v_low + 1;
            EXIT;
        END IF;
        v_high := v_low;
        v_step := v_step * 4;
    END LOOP;
    WHILE v_low < v_high LOOP
        v_middle := (v_low + v_high) / 2;
        SELECT e.at INTO v_event_at FROM event e WHERE e.project_id = p_project AND e.seq = v_middle;
        IF v_event_at < p_at THEN v_low := v_middle + 1; ELSE v_high := v_middle; END IF;
    END LOOP;
    RETURN v_low;
END $$;
