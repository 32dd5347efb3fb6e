-- Idempotency keys: the stored result of a write, in the transaction that wrote.

-- Keep the answer of a write under its idempotency key, in the transaction that wrote. Returns the stored answer
-- when the key was used before with the same arguments, null when the caller is the first. The insert waits for
-- whoever uses the same key at this moment; the row is read by a second statement, after that wait.
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

CREATE FUNCTION bus_store_result(p_project bigint, p_participation bigint, p_key text, p_result jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE idempotency i SET result = p_result
    WHERE i.project_id = p_project AND i.participation_id = p_participation AND i.key = p_key;
END $$;
