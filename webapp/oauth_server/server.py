"""Authlib's authorization server over the engine: authorization codes with PKCE, refresh tokens, revocation.

One object answers one request, in the caller's transaction. That transaction commits also where the answer is an error:
the replay of a code or a refresh token revokes what it gave.
"""

import json
import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import AuthorizationServer as BaseServer
from authlib.oauth2.rfc6749 import InvalidRequestError, OAuth2Payload, OAuth2Request
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, RefreshTokenGrant
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc9207.parameter import IssuerParameter
from flask import Request, Response
from werkzeug.datastructures import MultiDict

from bus import scopes
from bus.config.settings import strip_default_port
from bus.db import Connection
from bus.tenancy import client_grants
from bus.tenancy.client_grants import ClientGrant
from webapp.oauth_server.clients import PublicClient
from webapp.oauth_server.device_codes import DeviceGrant
from webapp.oauth_server.granted_connection import GrantedConnection

_CHALLENGE_LENGTH = 43
# At the level DEBUG Authlib logs the tokens that it issues.
logging.getLogger("authlib").setLevel(logging.INFO)


class InvalidTargetError(OAuth2Error):  # type: ignore[misc]
    """The request asks for tokens of another resource (RFC 8707)."""

    error = "invalid_target"
    description = "Tokens are issued for the MCP endpoint of this server only."


@dataclass(frozen=True)
class _RevocableToken:
    """A token that a client wants to revoke; without an id, the whole connection."""

    grant: ClientGrant
    token_id: int | None

    def check_client(self, client: PublicClient) -> bool:
        return self.grant.client_id == client.client_id


class _Payload(OAuth2Payload):  # type: ignore[misc]
    def __init__(self, values: "MultiDict[str, str]") -> None:
        self._values = values

    @property
    def data(self) -> "MultiDict[str, str]":
        return self._values

    @property
    def datalist(self) -> "defaultdict[str, list[str]]":
        return defaultdict(list, {name: self._values.getlist(name) for name in self._values})


class ServerRequest(OAuth2Request):  # type: ignore[misc]
    """A request to the authorization server.

    Args:
        request: Flask's.
        values: the parameters: of the address for authorization, of the body for all others.
    """

    def __init__(self, request: Request, values: "MultiDict[str, str]") -> None:
        # Authlib refuses http://, also behind a proxy and at 127.0.0.1. Whether the public address is secure was
        # decided by bus.config.settings.serves_oauth.
        super().__init__(request.method, f"https://{request.host}{request.path}", headers=request.headers)
        self.payload = _Payload(values)
        self._values = values

    @property
    def args(self) -> "MultiDict[str, str]":
        """Its parameters."""
        return self._values

    @property
    def form(self) -> "MultiDict[str, str]":
        """Its parameters."""
        return self._values


class AuthorizationServer(BaseServer):  # type: ignore[misc]
    """The authorization server for one request.

    Args:
        issuer: its identifier.
        resource: the only resource for which it issues tokens.
        client: of an authorization request; None at the other endpoints, where codes and tokens name their client.
        conn: in a transaction; None for an authorization request.
    """

    def __init__(
        self, issuer: str, resource: str, *, client: PublicClient | None = None, conn: Connection | None = None
    ) -> None:
        super().__init__()
        self._issuer_parameter = _Issuer(issuer)
        self.resource = resource
        self.conn = conn
        self._client = client
        self.register_token_generator("default", self._issue_tokens)
        self.register_grant(_CodeGrant, [_RequiredS256()])
        self.register_grant(_RefreshGrant)
        self.register_grant(DeviceGrant)
        self.register_endpoint(_Revocation)
        self.register_extension(self._issuer_parameter)

    def get_consent_grant(self, request: ServerRequest) -> Any:
        """Validate an authorization request.

        Raises:
            OAuth2Error: it is not valid.
        """
        try:
            return super().get_consent_grant(request)
        except ValueError:
            # Authlib quotes parameters in its descriptions, which may hold ASCII only.
            raise InvalidRequestError("A parameter contains characters that are not allowed.") from None

    def query_client(self, client_id: str) -> PublicClient:
        """Return the client of a request."""
        return self._client or PublicClient(client_id)

    def save_token(self, _token: dict[str, Any], _request: ServerRequest) -> None:
        """Do nothing: tokens are stored as they are issued."""

    def send_signal(self, _name: str, *_args: Any, **_kwargs: Any) -> None:
        """Do nothing."""

    def create_oauth2_request(self, request: ServerRequest) -> ServerRequest:
        """Return the request as it is."""
        return request

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Response:
        """Build Flask's response."""
        return Response(json.dumps(body) if isinstance(body, dict) else body, status=status, headers=headers)

    def refuse(self, request: ServerRequest, error: OAuth2Error) -> Response:
        """Build the response for an error, which names the issuer if it redirects to the client."""
        response: Response = self.handle_error_response(request, error)
        self._issuer_parameter.add_issuer_parameter(self, response)
        return response

    def require_resource(self, request: ServerRequest, redirect_uri: str | None = None) -> None:
        """Refuse a request that names another resource; one that names none is for the only one there is."""
        for named in request.payload.datalist["resource"]:
            if _normalize(named) != _normalize(self.resource):
                raise InvalidTargetError(redirect_uri=redirect_uri)

    def connection(self) -> Connection:
        """The connection of a request that has one."""
        assert self.conn is not None
        return self.conn

    def _issue_tokens(self, *, user: GrantedConnection, scope: str, **_kwargs: Any) -> dict[str, Any]:
        requested = scopes.find_widest(scope.split())
        issued = client_grants.issue_tokens(self.connection(), user.grant, user.refresh_token, scope=requested)
        return {
            "access_token": issued.access_token,
            "token_type": "Bearer",
            "expires_in": issued.expires_in_seconds,
            "refresh_token": issued.refresh_token,
            "scope": scopes.to_oauth(issued.scope),
        }


class _Issuer(IssuerParameter):  # type: ignore[misc]
    """Adds `iss` to every authorization response (RFC 9207)."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer

    def get_issuer(self) -> str:
        return self._issuer


class _RequiredS256(CodeChallenge):  # type: ignore[misc]
    """PKCE with S256, without which no authorization request is accepted."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        data = grant.request.payload.data
        if data.get("code_challenge_method") != "S256" or len(data.get("code_challenge", "")) != _CHALLENGE_LENGTH:
            raise InvalidRequestError("PKCE is required: send code_challenge with code_challenge_method=S256.")
        super().validate_code_challenge(grant, redirect_uri)


class _CodeGrant(AuthorizationCodeGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

    def validate_authorization_request(self) -> str:
        redirect_uri: str = super().validate_authorization_request()
        self.server.require_resource(self.request, redirect_uri)
        return redirect_uri

    def generate_authorization_code(self) -> str:
        # The consent was recorded with its code, which stands for the user here.
        return str(self.request.user)

    def save_authorization_code(self, _code: str, _request: ServerRequest) -> None:
        pass

    def validate_token_request(self) -> None:
        self.server.require_resource(self.request)
        super().validate_token_request()

    def query_authorization_code(self, code: str, client: PublicClient) -> GrantedConnection | None:
        grant = client_grants.lock_by_code(self.server.connection(), code)
        if grant is None or grant.client_id != client.client_id or grant.code_challenge is None:
            # The last: a device code, which no challenge protects here.
            return None
        return GrantedConnection(grant)

    def authenticate_user(self, authorization_code: GrantedConnection) -> GrantedConnection:
        return authorization_code

    def delete_authorization_code(self, _authorization_code: GrantedConnection) -> None:
        pass


class _RefreshGrant(RefreshTokenGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
    INCLUDE_NEW_REFRESH_TOKEN = True

    def validate_token_request(self) -> None:
        self.server.require_resource(self.request)
        super().validate_token_request()

    def authenticate_refresh_token(self, refresh_token: str) -> GrantedConnection | None:
        grant = client_grants.lock_by_refresh_token(self.server.connection(), refresh_token)
        return None if grant is None else GrantedConnection(grant, refresh_token)

    def authenticate_user(self, refresh_token: GrantedConnection) -> GrantedConnection:
        return refresh_token

    def revoke_old_credential(self, _refresh_token: GrantedConnection) -> None:
        pass


class _Revocation(RevocationEndpoint):  # type: ignore[misc]
    CLIENT_AUTH_METHODS = ("none",)

    def check_params(self, request: ServerRequest, _client: PublicClient) -> None:
        # A hint that is unknown is ignored (RFC 7009, 2.1); Authlib would refuse it.
        if "token" not in request.form:
            raise InvalidRequestError("Send the token to revoke as token.")

    def query_token(self, token: str, _hint: str | None) -> _RevocableToken | None:
        conn = self.server.connection()
        grant = client_grants.lock_family(conn, token)
        if grant is not None:
            return _RevocableToken(grant, None)
        revocable = client_grants.lock_by_access_token(conn, token, self.server.resource)
        return None if revocable is None else _RevocableToken(*revocable)

    def revoke_token(self, token: _RevocableToken, _request: ServerRequest) -> None:
        conn = self.server.connection()
        if token.token_id is None:
            client_grants.revoke(conn, token.grant, actor=token.grant.actor, reason="the client signed out")
        else:
            client_grants.revoke_access_token(conn, token.token_id)


def _normalize(url: str) -> tuple[str, ...]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return (url,)
    netloc = strip_default_port(parts.netloc.lower())
    return (parts.scheme.lower(), netloc, parts.path.rstrip("/"), parts.query, parts.fragment)
