-- Invites and the rights of those who created them.

-- Whether the creator of an invite may still invite: a participation that is in the project and project-admin, and a
-- token that is live. Null participation: the owner or an operator created it; null token: an act in the web. Volatile,
-- so that it reads what was committed before its own call, also where its statement waited for a lock.
CREATE FUNCTION bus_may_still_invite(p_participation bigint, p_token bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN p_participation IS NULL OR EXISTS (
        SELECT FROM participation p JOIN participant pt ON pt.id = p.participant_id
        JOIN project pj ON pj.id = p.project_id
        WHERE p.id = p_participation AND p.removed_at IS NULL AND pt.removed_at IS NULL AND p.is_admin
          -- Of another owner: a lead, who is not suspended.
          AND (pj.owner_id = pt.owner_id
               OR EXISTS (SELECT FROM membership m JOIN owner o ON o.id = m.owner_id AND o.suspended_at IS NULL
                          WHERE m.project_id = pj.id AND m.owner_id = pt.owner_id AND m.role = 'lead'))
          AND (p_token IS NULL OR EXISTS (
                SELECT FROM token t
                WHERE t.id = p_token AND t.participation_id = p.id
                  AND bus_token_is_live(t.revoked_at, t.expires_at))));
END $$;
