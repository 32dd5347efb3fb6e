"""The endpoints of the authorization server that programs call: metadata, tokens, devices, revocation, registration."""

import time
from typing import Any

import msgspec
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc8628 import DEVICE_CODE_GRANT_TYPE
from flask import Request, Response, abort, jsonify, request, url_for
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import NotFound

from bus.client_setup import RESOURCE_METADATA_PATH, resource_metadata
from bus.config.settings import serves_oauth
from bus.tenancy import device_authorizations, oauth_clients
from webapp.blueprints import PublicBlueprint, api_view, no_store
from webapp.context import addresses, options, settings, transaction
from webapp.oauth_server import client_metadata, device_codes, metadata
from webapp.oauth_server.client_metadata import InvalidClientMetadata
from webapp.oauth_server.server import AuthorizationServer, ServerRequest
from webapp.ratelimit import client_address, enforce_rate_limit

blueprint = PublicBlueprint("oauth_endpoints")

_REGISTRATIONS_PER_MINUTE = 10
_DEVICE_REQUESTS_PER_MINUTE = 10


@blueprint.before_request
def require_oauth() -> None:
    """Answer as if there were nothing where the authorization server does not run."""
    if not serves_oauth(settings()):
        raise NotFound


@blueprint.after_request
def allow_other_origins(response: Response) -> Response:
    """Let pages of other origins read the answers: none of them depends on a cookie."""
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    if request.method == "OPTIONS":
        response.headers["Access-Control-Allow-Headers"] = "*"
        response.headers["Access-Control-Allow-Methods"] = response.headers.get("Allow", "")
    return response


@blueprint.get("/.well-known/oauth-authorization-server")
@api_view
def show_server_metadata() -> Response:
    """Describe the authorization server."""
    return jsonify(metadata.build())


@blueprint.get(RESOURCE_METADATA_PATH)
@blueprint.get(f"{RESOURCE_METADATA_PATH}/mcp")
@api_view
def show_resource_metadata() -> Response:
    """Describe the MCP endpoint, as the gateway does: proxies may pass only /mcp to it."""
    return jsonify(resource_metadata(addresses()))


@blueprint.post("/oauth/token")
@api_view
@no_store
def token() -> Response:
    """Exchange a code or a refresh token for tokens."""
    enforce_rate_limit("oauth-token", client_address(), options().oauth_per_minute)
    with transaction() as conn:
        server = AuthorizationServer(addresses().web_url, addresses().mcp_url, conn=conn)
        response: Response = server.create_token_response(_read_form(request))
    return response


@blueprint.post("/oauth/device_authorization")
@api_view
@no_store
def authorize_device() -> Response | tuple[Response, int]:
    """Begin the authorization of a machine without a browser (RFC 8628)."""
    enforce_rate_limit("oauth-device", client_address(), _DEVICE_REQUESTS_PER_MINUTE)
    server = AuthorizationServer(addresses().web_url, addresses().mcp_url)
    try:
        begun = device_codes.begin(server, _read_form(request))
    except OAuth2Error as error:
        return jsonify(dict(error.get_body())), 400
    return jsonify(
        device_code=begun.device_code,
        user_code=begun.user_code,
        verification_uri=f"{addresses().web_url}{url_for('device.show')}",
        verification_uri_complete=f"{addresses().web_url}{url_for('device.show', user_code=begun.user_code)}",
        expires_in=int(device_authorizations.TTL.total_seconds()),
        interval=device_authorizations.POLL_INTERVAL_SECONDS,
    )


@blueprint.post("/oauth/revoke")
@api_view
@no_store
def revoke() -> Response:
    """Revoke an access token, or with a refresh token the whole connection (RFC 7009)."""
    enforce_rate_limit("oauth-token", client_address(), options().oauth_per_minute)
    with transaction() as conn:
        server = AuthorizationServer(addresses().web_url, addresses().mcp_url, conn=conn)
        response: Response = server.create_endpoint_response("revocation", _read_form(request))
    return response


@blueprint.post("/oauth/register")
@api_view
@no_store
def register() -> tuple[Response, int]:
    """Register a client (RFC 7591)."""
    if not options().oauth_registration:
        raise NotFound
    enforce_rate_limit("oauth-register", client_address(), _REGISTRATIONS_PER_MINUTE)
    try:
        described = client_metadata.read(_read_json())
    except InvalidClientMetadata as error:
        return jsonify(error=error.error, error_description=error.message), 400
    with transaction() as conn:
        client = oauth_clients.register(
            conn,
            described.name or "Unnamed client",
            described.redirect_uris,
            uses_device_codes=described.uses_device_codes,
        )
    return (
        jsonify(
            client_id=client.client_id,
            client_id_issued_at=int(time.time()),
            client_name=client.name,
            redirect_uris=client.redirect_uris,
            grant_types=[
                *(["authorization_code"] if client.redirect_uris else []),
                *([DEVICE_CODE_GRANT_TYPE] if client.uses_device_codes else []),
                "refresh_token",
            ],
            response_types=["code"] if client.redirect_uris else [],
            token_endpoint_auth_method="none",  # noqa: S106 - the name of a method
        ),
        201,
    )


def _read_form(incoming: Request) -> ServerRequest:
    """Read the parameters of a request; each may occur once (RFC 6749, 3.2)."""
    form: MultiDict[str, str] = incoming.form
    repeated = [name for name in form if len(form.getlist(name)) > 1 and name != "resource"]
    if repeated:
        response = jsonify(error="invalid_request", error_description="Send each parameter once.")
        response.status_code = 400
        abort(response)
    return ServerRequest(incoming, form)


def _read_json() -> Any:
    try:
        return msgspec.json.decode(request.get_data())
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
