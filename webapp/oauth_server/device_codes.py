"""Device authorizations (RFC 8628): how a client on a machine without a browser begins one, and polls for its end."""

from dataclasses import dataclass
from typing import Any

from authlib.oauth2.rfc6749 import OAuth2Request
from authlib.oauth2.rfc6749.errors import (
    AccessDeniedError,
    InvalidClientError,
    InvalidGrantError,
    InvalidScopeError,
    UnauthorizedClientError,
)
from authlib.oauth2.rfc8628 import AuthorizationPendingError, DeviceCodeGrant, ExpiredTokenError, SlowDownError

from bus.tenancy import client_grants, device_authorizations
from bus.tenancy.device_authorizations import DeviceAuthorization, DeviceCodes
from webapp.context import transaction
from webapp.oauth_server import clients
from webapp.oauth_server.clients import UnknownClient
from webapp.oauth_server.granted_connection import GrantedConnection

_MAX_SCOPE_LENGTH = 1000


def begin(server: Any, request: OAuth2Request) -> DeviceCodes:
    """Begin the authorization that a client asks for.

    Raises:
        OAuth2Error: it may not ask, or asks for another resource.
    """
    try:
        client = clients.find(request.form.get("client_id", ""))
    except UnknownClient as error:
        raise InvalidClientError(str(error)) from None
    if not client.uses_device_codes:
        raise UnauthorizedClientError("The client is not described with the grant type of device codes.")
    server.require_resource(request)
    scope = request.form.get("scope", "")
    if len(scope) > _MAX_SCOPE_LENGTH or not scope.isprintable():
        raise InvalidScopeError("The scope is too long, or no text of one line.")
    with transaction() as conn:
        return device_authorizations.begin(conn, client, server.resource, scope)


@dataclass(frozen=True)
class _DeviceCredential:
    """An authorization as Authlib's device credential."""

    authorization: DeviceAuthorization
    device_code: str

    def get_client_id(self) -> str:
        return self.authorization.client_id

    def get_scope(self) -> str:
        # What was granted decides.
        return ""


class DeviceGrant(DeviceCodeGrant):  # type: ignore[misc]
    """The exchange of a device code, once the owner has decided."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

    def validate_token_request(self) -> None:
        """Refuse what cannot be exchanged, now or at all."""
        self.server.require_resource(self.request)
        super().validate_token_request()

    def query_device_credential(self, device_code: str) -> _DeviceCredential:
        """Return the authorization of a code, locked."""
        authorization = device_authorizations.lock_by_device_code(self.server.connection(), device_code)
        if authorization is None:
            raise InvalidGrantError()
        return _DeviceCredential(authorization, device_code)

    def validate_device_credential(self, credential: _DeviceCredential) -> GrantedConnection:
        """Return the connection that was allowed, or refuse."""
        conn, authorization = self.server.connection(), credential.authorization
        if authorization.state == "expired":
            raise ExpiredTokenError()
        if authorization.state == "denied":
            raise AccessDeniedError()
        if authorization.state == "pending":
            is_too_early = device_authorizations.record_poll(conn, authorization)
            raise SlowDownError() if is_too_early else AuthorizationPendingError()
        grant = client_grants.lock_by_code(conn, credential.device_code)
        if grant is None:
            raise InvalidGrantError()
        return GrantedConnection(grant)
