"""The consent page: an owner lets a client act as a participant, or does not."""

from authlib.oauth2 import OAuth2Error
from flask import Response, make_response, render_template, request
from werkzeug.exceptions import BadRequest, NotFound

from bus.config.settings import serves_oauth
from bus.tenancy.oauth_clients import OAuthClient
from webapp.auth import current_owner
from webapp.blueprints import OwnerBlueprint, no_store
from webapp.context import addresses, connection, options, settings, show_refusal_on_form, transaction
from webapp.oauth_server import clients, consent, redirect_uris
from webapp.oauth_server.clients import PublicClient, UnknownClient
from webapp.oauth_server.consent import ConsentForm
from webapp.oauth_server.server import AuthorizationServer, ServerRequest
from webapp.ratelimit import enforce_rate_limit

blueprint = OwnerBlueprint("authorize", url_prefix="/oauth/authorize")

_NOT_SENT_BACK = "Nothing was granted. Start again in the program that sent you here."


class _Authorization:
    """A valid request of a client for authorization."""

    def __init__(self) -> None:
        args = request.args
        self.client = _find_client(args.get("client_id", ""))
        public_client = PublicClient(self.client.client_id, self.client.redirect_uris)
        # Checked before Authlib: a person is sent only where the client may be.
        self.redirect_uri = args.get("redirect_uri", "")
        if len(args.getlist("redirect_uri")) != 1 or not public_client.check_redirect_uri(self.redirect_uri):
            raise BadRequest(f"The address to return to is not one of {self.client.name}. {_NOT_SENT_BACK}")
        self.server = AuthorizationServer(addresses().web_url, addresses().mcp_url, client=public_client)
        self.request = ServerRequest(request, args)

    def refuse(self, error: OAuth2Error) -> Response:
        """Send an error to the client."""
        error.redirect_uri = self.redirect_uri
        error.state = request.args.get("state")
        return self.send_back(self.server.refuse(self.request, error), is_error=True)

    def respond(self, code: str | None) -> Response:
        """Send a code to the client, or that access was denied."""
        grant = self.server.get_consent_grant(self.request)
        response = self.server.create_authorization_response(self.request, grant_user=code, grant=grant)
        return self.send_back(response, is_denied=code is None)

    def send_back(self, response: Response, *, is_error: bool = False, is_denied: bool = False) -> Response:
        """Show a page that redirects by itself: the CSP forbids that a form submission redirects to another site.

        With an error and without a decision of a person, it waits for a click before it leaves for another site.
        """
        target = redirect_uris.describe(self.redirect_uri)
        page = render_template(
            "authorize/return.html",
            client=self.client,
            target=target,
            address=response.location,
            error=is_error,
            denied=is_denied,
            automatic=not is_error or target.kind == "loopback",
        )
        return make_response(page)


@blueprint.before_request
def require_oauth() -> None:
    """Answer as if there were nothing where the authorization server does not run."""
    if not serves_oauth(settings()):
        raise NotFound
    enforce_rate_limit("authorize", str(current_owner().id), options().oauth_per_minute)


@blueprint.get("")
@no_store
def show() -> Response:
    """Show who asks, and let the owner choose."""
    authorization = _Authorization()
    try:
        authorization.server.get_consent_grant(authorization.request)
    except OAuth2Error as error:
        return authorization.refuse(error)
    return _render(authorization, None)


@blueprint.post("")
@no_store
def decide() -> Response:
    """Send the client back with a code, or with a refusal."""
    authorization = _Authorization()
    try:
        authorization.server.get_consent_grant(authorization.request)
    except OAuth2Error as error:
        return authorization.refuse(error)
    if request.form.get("decision") != "allow":
        return authorization.respond(None)
    owner, form = current_owner(), ConsentForm()
    with connection() as conn:
        form.target.choices = list(consent.find_options(conn, owner, authorization.client).choices)
    consent.limit_scope(form, request.args.get("scope", ""))
    code = ""
    if consent.validate(form):
        with show_refusal_on_form(form, default_field="target"), transaction() as conn:
            code = consent.record(
                conn,
                owner,
                authorization.client,
                form,
                redirect_uri=authorization.redirect_uri,
                resource=addresses().mcp_url,
                challenge=request.args["code_challenge"],
            )
    if form.errors:
        response = _render(authorization, form)
        response.status_code = 400
        return response
    return authorization.respond(code)


def _find_client(client_id: str) -> OAuthClient:
    try:
        return clients.find(client_id)
    except UnknownClient as error:
        raise BadRequest(f"The program that sent you here cannot be identified. {error} {_NOT_SENT_BACK}") from None


def _render(authorization: _Authorization, form: ConsentForm | None) -> Response:
    return consent.show(
        current_owner(),
        authorization.client,
        form,
        request.args.get("scope", ""),
        target=redirect_uris.describe(authorization.redirect_uri),
    )
