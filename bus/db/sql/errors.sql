-- Errors that SQL functions raise for the caller.

-- Raise an error of the engine: bus/db/error_mapping.py reads the code and the facts from DETAIL.
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
