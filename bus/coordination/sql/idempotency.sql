-- Idempotency keys: the result of a write is stored in the transaction of the write.

-- Insert the key, or return the result that is stored under it; null means that the caller is the first. The insert
-- waits for a concurrent call with the same key, so a second statement reads the row after that wait.
CREATE FUNCTION bus_find_result(p_project bigint, p_participation bigint, p_key text, p_fingerprint bytea)
RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_fingerprint bytea;
    v_result jsonb;
BEGIN
    INSERT INTO idempotency (project_id, participation_id, key, fingerprint)
    VALUES (p_project, p_participation, p_key, p_fingerprint)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        RETURN NULL;
    END IF;
    SELECT i.fingerprint, i.result INTO v_fingerprint, v_result FROM idempotency i
    WHERE i.project_id = p_project AND i.participation_id = p_participation AND i.key = p_key;
    IF v_fingerprint IS DISTINCT FROM p_fingerprint THEN
        PERFORM bus_refuse('key_reuse',
            'That idempotency_key was used before with other arguments; use a new key for a new call.');
    END IF;
    RETURN v_result;
END $$;

-- Store the result of a write under the key that bus_find_result inserted.
CREATE FUNCTION bus_store_result(p_project bigint, p_participation bigint, p_key text, p_result jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE idempotency i SET result = p_result
    WHERE i.project_id = p_project AND i.participation_id = p_participation AND i.key = p_key;
END $$;
