"""Who is calling: the immutable facts that a bearer token resolves to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ctx:
    """The caller of an engine function.

    Holds only what can never change for a token, so a process may cache it; whether the token, its grant
    and its owner are good at this moment is asked by each call's own statement (`bus_authenticate` in
    bus/tenancy/sql/caller.sql).

    Attributes:
        project_id, participation_id, participant_id, owner_id: row ids, never shown to a client.
        token_id: the token that was presented, or None for an owner who acts in the web.
    """

    project_id: int
    participation_id: int
    participant_id: int
    owner_id: int
    token_id: int | None
