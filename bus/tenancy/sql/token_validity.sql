-- Whether a token is valid now. Plain SQL, so that the planner inlines it.
CREATE FUNCTION bus_token_is_live(p_revoked_at timestamptz, p_expires_at timestamptz) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
    SELECT p_revoked_at IS NULL AND (p_expires_at IS NULL OR p_expires_at > clock_timestamp())
$$;

-- The token with which an authority ends that was handed out with a token: the token itself, or that of the connected
-- client, which outlives its access tokens. Null if it was deleted.
CREATE FUNCTION bus_lasting_token(p_token bigint) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce(t.parent_id, t.id) FROM token t WHERE t.id = p_token
$$;
