"""The metadata of the authorization server, its switch, and the registration of clients."""

from collections.abc import Callable

from bus.db import Database
from tests.webapp.oauth_requests import RESOURCE, authorization_path, consent, exchange, read_answer
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.web_client import BASE_URL, Browser, WebApp


def test_metadata_describes_the_server(stranger: Browser, make_web: Callable[..., WebApp]) -> None:
    answer = stranger.get("/.well-known/oauth-authorization-server")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.get_json() == {
        "issuer": BASE_URL,
        "authorization_endpoint": f"{BASE_URL}/oauth/authorize",
        "token_endpoint": f"{BASE_URL}/oauth/token",
        "revocation_endpoint": f"{BASE_URL}/oauth/revoke",
        "registration_endpoint": f"{BASE_URL}/oauth/register",
        "response_types_supported": ["code"],
        "scopes_supported": ["bus:read", "bus:write", "bus:admin"],
        "response_modes_supported": ["query"],
        "device_authorization_endpoint": f"{BASE_URL}/oauth/device_authorization",
        "grant_types_supported": [
            "authorization_code",
            "refresh_token",
            "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "client_id_metadata_document_supported": True,
        "authorization_response_iss_parameter_supported": True,
        "protected_resources": [RESOURCE],
    }
    resource = stranger.get("/.well-known/oauth-protected-resource/mcp").get_json()
    assert (resource["resource"], resource["authorization_servers"]) == (RESOURCE, [BASE_URL])
    preflight = stranger._open("OPTIONS", "/oauth/token")
    assert preflight.headers["Access-Control-Allow-Origin"] == "*"
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]


def test_it_can_be_off(make_web: Callable[..., WebApp]) -> None:
    for env in (
        {"OAUTH_SERVER": "0"},
        {"PUBLIC_URL": ""},
        {"PUBLIC_URL": "http://bus.lan"},
        {"MCP_URL": "http://mcp.lan/mcp"},
    ):
        browser = make_web(ALLOWED_HOSTS="bus.example.org", **env).new_browser()
        for path in ("/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource"):
            assert browser.get(path).status_code == 404, env
        for path in ("/oauth/token", "/oauth/revoke", "/oauth/register"):
            assert browser.post(path).status_code == 404, env


def test_clients_register_unless_that_is_off(make_web: Callable[..., WebApp], db: Database, ada: Browser) -> None:
    registration = {
        "client_name": "Cli\u202e\nent",
        "redirect_uris": ["http://127.0.0.1/cb"],
        "grant_types": ["authorization_code"],
    }
    without = make_web(OAUTH_REGISTRATION="0").new_browser()
    assert without.post("/oauth/register", json=registration).status_code == 404
    assert "registration_endpoint" not in without.get("/.well-known/oauth-authorization-server").get_json()
    browser = ada
    registered = browser.post("/oauth/register", json=registration)
    assert registered.status_code == 201
    assert registered.get_json()["client_name"] == "Cli ent"
    assert registered.get_json()["token_endpoint_auth_method"] == "none"
    assert "client_secret" not in registered.get_json()
    client_id = registered.get_json()["client_id"]
    path = authorization_path(client_id=client_id, redirect_uri="http://127.0.0.1:5/cb")
    assert "it registered itself" in browser.get(path).text
    code = read_answer(consent(browser, path))["code"]
    issued = exchange(browser, code, client_id=client_id, redirect_uri="http://127.0.0.1:5/cb")
    assert issued.status_code == 200
    (days,) = _one(db, "SELECT extract(day FROM expires_at - created_at)::int FROM oauth_client WHERE is_registered")
    assert days == 90


_WRONG_REGISTRATIONS: tuple[object, ...] = (
    None,
    [],
    {},
    {"redirect_uris": []},
    {"redirect_uris": "https://app.example/"},
    {"redirect_uris": ["http://app.example/"]},
    {"redirect_uris": ["javascript:alert(1)"]},
    {"redirect_uris": ["https://app.example/#x"]},
    {"redirect_uris": ["https://app.example/"], "response_types": ["token"]},
    {"redirect_uris": ["https://app.example/"], "grant_types": ["implicit"]},
)


def test_a_registration_that_cannot_be_used_is_refused(make_web: Callable[..., WebApp], db: Database) -> None:
    browser = make_web().new_browser()
    for body in _WRONG_REGISTRATIONS:
        answer = browser.post("/oauth/register", json=body)
        assert answer.status_code == 400, body
        assert answer.get_json()["error"] in ("invalid_client_metadata", "invalid_redirect_uri"), body
    assert _one(db, "SELECT count(*) FROM oauth_client WHERE is_registered") == (0,)


def _one(db: Database, query: str) -> tuple[object, ...]:
    with db.connection() as conn:
        return conn.fetch_one(query)


def test_pages_offer_the_address_first_where_clients_can_sign_in(
    make_web: Callable[..., WebApp], ada: Browser, db: Database, sample: SampleData
) -> None:
    new_participant = project_path(sample, "participants/new")
    page = ada.get("/account/clients/")
    assert RESOURCE in page.text
    assert "claude mcp login llm-bus" in page.text
    assert "lbus_" not in page.text
    assert "Connect with the address" in ada.get(new_participant).text
    with db.connection() as conn:
        without = make_web(OAUTH_SERVER="0").new_browser().sign_in(conn, sample.owner)
    assert without.get("/account/clients/").status_code == 404
    assert "Connect with the address" not in without.get(new_participant).text
