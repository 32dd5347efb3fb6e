"""A connection as Authlib sees it."""

from dataclasses import dataclass

from bus import scopes
from bus.tenancy.client_grants import ClientGrant
from webapp.oauth_server.clients import PublicClient


@dataclass(frozen=True)
class GrantedConnection:
    """A locked connection as Authlib's code, refresh token, and user.

    Attributes:
        refresh_token: the one that was presented; None for a code.
    """

    grant: ClientGrant
    refresh_token: str | None = None
    code_challenge_method: str = "S256"

    @property
    def code_challenge(self) -> str | None:
        """The challenge of the authorization request."""
        return self.grant.code_challenge

    def get_redirect_uri(self) -> str | None:
        """Where the client was sent back with the code."""
        return self.grant.redirect_uri

    def get_scope(self) -> str:
        """What was granted, which a refresh may narrow."""
        return scopes.to_oauth(self.grant.scope)

    def check_client(self, client: PublicClient) -> bool:
        """Whether it was granted to this client."""
        return self.grant.client_id == client.client_id
