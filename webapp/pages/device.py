"""The page on which an owner types the code that a machine without a browser shows, and decides (RFC 8628)."""

from flask import Response, make_response, render_template, request
from werkzeug.exceptions import BadRequest, NotFound

from bus.config.settings import serves_oauth
from bus.db import Connection
from bus.rules import token_format
from bus.tenancy import device_authorizations, oauth_clients
from bus.tenancy.device_authorizations import DeviceAuthorization
from bus.tenancy.oauth_clients import OAuthClient
from webapp.auth import current_owner
from webapp.blueprints import OwnerBlueprint, no_store
from webapp.context import connection, settings, show_refusal_on_form, transaction
from webapp.oauth_server import consent
from webapp.oauth_server.consent import ConsentForm
from webapp.ratelimit import client_address, enforce_rate_limit

blueprint = OwnerBlueprint("device", url_prefix="/oauth/device")

# A code has 34 bits, so a guess succeeds once in millions of years.
_TRIES_PER_OWNER, _TRIES_PER_ADDRESS = 10, 30
_UNKNOWN = "No machine waits with this code. Codes last ten minutes and work once; start again on the machine."


@blueprint.before_request
def require_oauth() -> None:
    """Answer as if there were nothing where the authorization server does not run."""
    if not serves_oauth(settings()):
        raise NotFound


@blueprint.get("")
@no_store
def show() -> Response:
    """Ask for the code; with one, show who asks, and let the owner choose."""
    if not request.args.get("user_code"):
        return _ask_for_code()
    with transaction() as conn:
        waiting = _find(conn)
        client = None if waiting is None else _get_client(conn, waiting)
    if waiting is None or client is None:
        return _ask_for_code(_UNKNOWN)
    return _show_consent(waiting, client, None)


@blueprint.post("")
@no_store
def decide() -> Response:
    """Let the machine act as a participant, or refuse it."""
    owner, form, is_allowed = current_owner(), ConsentForm(), request.form.get("decision") == "allow"
    with connection() as conn:
        waiting = _find(conn)
        client = None if waiting is None else _get_client(conn, waiting)
        if waiting is None or client is None:
            return _ask_for_code(_UNKNOWN)
        form.target.choices = list(consent.find_options(conn, owner, client).choices)
    consent.limit_scope(form, waiting.scope)
    if not is_allowed:
        _record(waiting, client, None)
    elif consent.validate(form):
        with show_refusal_on_form(form, default_field="target"):
            _record(waiting, client, form)
    if is_allowed and form.errors:
        response = _show_consent(waiting, client, form)
        response.status_code = 400
        return response
    return make_response(render_template("device/decided.html", client=client, is_allowed=is_allowed))


def _record(waiting: DeviceAuthorization, client: OAuthClient, form: ConsentForm | None) -> None:
    """Record the decision; None denies.

    Raises:
        BadRequest: another request has decided meanwhile.
    """
    with transaction() as conn:
        locked = device_authorizations.lock_by_user_code(conn, request.args["user_code"])
        if locked is None or locked.id != waiting.id:
            raise BadRequest(_UNKNOWN)
        if form is not None:
            consent.record(
                conn,
                current_owner(),
                client,
                form,
                resource=locked.resource,
                device_sha256=locked.device_sha256,
            )
        device_authorizations.decide(conn, locked, allow=form is not None)


def _find(conn: Connection) -> DeviceAuthorization | None:
    """Return the authorization of the code in the address; each try counts."""
    enforce_rate_limit("device-code", str(current_owner().id), _TRIES_PER_OWNER)
    enforce_rate_limit("device-code-address", client_address(), _TRIES_PER_ADDRESS)
    return device_authorizations.lock_by_user_code(conn, request.args.get("user_code", ""))


def _get_client(conn: Connection, waiting: DeviceAuthorization) -> OAuthClient:
    stored = oauth_clients.find(conn, waiting.client_id)
    return stored or OAuthClient(waiting.client_id, False, waiting.client_name, ())


def _show_consent(waiting: DeviceAuthorization, client: OAuthClient, form: ConsentForm | None) -> Response:
    user_code = token_format.normalize_user_code(request.args["user_code"])
    return consent.show(current_owner(), client, form, waiting.scope, user_code=user_code)


def _ask_for_code(error: str = "") -> Response:
    typed = request.args.get("user_code", "")[:40]
    page = make_response(render_template("device/show.html", error=error, typed=typed))
    page.status_code = 404 if error else 200
    return page
