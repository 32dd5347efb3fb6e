"""The caller's context: the immutable facts that a bearer token resolves to."""

from dataclasses import dataclass

from bus.scopes import FULL_SCOPE, Scope


@dataclass(frozen=True, slots=True)
class Ctx:
    """Identity and project of a caller.

    Apart from the session, it holds only facts that never change for a token, so a process may cache it. Each call's
    own statement checks whether the token, its participation and its owner are valid at that moment
    (`bus_authenticate` in bus/tenancy/sql/authentication.sql).

    Attributes:
        project_id, participation_id, participant_id: row ids, never shown to a client.
        owner_id: the owner of the project, who is billed; a member's participant has another owner.
        token_id: the presented token; None for an owner who acts in the web.
        session: the key of the caller's session, of which its participation may have many; None if it names none.
        client: the program that calls (bus/rules/client_names.py); None if the call does not say it.
        scope: what the token allows. It is never changed: a client that needs more gets another token.
        can_step_up: whether the token is one of a connected client, which can ask its owner for a wider scope.
    """

    project_id: int
    participation_id: int
    participant_id: int
    owner_id: int
    token_id: int | None
    session: str | None = None
    client: str | None = None
    scope: Scope = FULL_SCOPE
    can_step_up: bool = False

    def with_session(self, session: str | None) -> "Ctx":
        """Return this context for a session of its participation."""
        return self.with_caller(session, self.client)

    def with_caller(self, session: str | None, client: str | None) -> "Ctx":
        """Return this context for a session of its participation and the client that it calls with."""
        return Ctx(
            self.project_id,
            self.participation_id,
            self.participant_id,
            self.owner_id,
            self.token_id,
            session,
            client,
            self.scope,
            self.can_step_up,
        )
