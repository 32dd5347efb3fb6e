-- Whether a token is valid now. Plain SQL, so that the planner inlines it.
CREATE FUNCTION bus_token_is_live(p_revoked_at timestamptz, p_expires_at timestamptz) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
    SELECT p_revoked_at IS NULL AND (p_expires_at IS NULL OR p_expires_at > clock_timestamp())
$$;
