-- Reading the ledger by time.

-- Milliseconds since 1970: the encoding of times inside JSON from these functions to Python.
CREATE FUNCTION bus_epoch_milliseconds(p_at timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$ SELECT (extract(epoch FROM p_at) * 1000)::bigint $$;

-- The number of the first event at or after `p_at`, or last_seq + 1 if there is none. `at` rises with seq, so a binary
-- search over the primary key replaces an index on time.
CREATE FUNCTION bus_seq_at(p_project bigint, p_at timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_low bigint := 1;
    v_high bigint;
    v_middle bigint;
    v_event_at timestamptz;
BEGIN
    SELECT c.last_seq + 1 INTO v_high FROM project_clock c WHERE c.project_id = p_project;
    WHILE v_low < v_high LOOP
        v_middle := (v_low + v_high) / 2;
        SELECT e.at INTO v_event_at FROM event e WHERE e.project_id = p_project AND e.seq = v_middle;
        IF v_event_at < p_at THEN v_low := v_middle + 1; ELSE v_high := v_middle; END IF;
    END LOOP;
    RETURN v_low;
END $$;
