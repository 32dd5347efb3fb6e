"""Scopes at the authorization server: what a client asks for, what an owner grants, and what a refresh may change."""

import pytest

from bus.db import Database
from bus.rules.token_format import access_token_fingerprint
from bus.scopes import Scope
from bus.tenancy import client_grants, tokens
from tests.webapp.oauth_requests import (
    CLIENT_ID,
    RESOURCE,
    authorization_path,
    connect,
    consent,
    exchange,
    read_answer,
    refresh,
    store_client,
)
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.web_client import Browser, FormParser

READ, WRITE, ADMIN = "bus:read", "bus:read bus:write", "bus:read bus:write bus:admin"


@pytest.fixture(autouse=True)
def _client(db: Database) -> None:
    store_client(db)


def _scope_of(db: Database, access_token: str) -> Scope:
    """What the access token allows at the endpoint."""
    with db.connection() as conn:
        ctx = tokens.find_caller(conn, access_token_fingerprint(access_token, RESOURCE))
    assert ctx is not None
    assert ctx.can_step_up
    return ctx.scope


@pytest.mark.parametrize(
    ("requested", "offered", "preselected"),
    [
        (None, ["read", "write", "admin"], "write"),
        ("openid profile", ["read", "write", "admin"], "write"),
        ("bus:read", ["read"], "read"),
        ("bus:read offline_access", ["read"], "read"),
        ("bus:write", ["read", "write"], "write"),
        (WRITE, ["read", "write"], "write"),
        # After a step-up clients send the union, in any order.
        ("bus:admin bus:read", ["read", "write", "admin"], "admin"),
    ],
)
def test_the_consent_page_offers_at_most_what_the_client_asks_for(
    ada: Browser, requested: str | None, offered: list[str], preselected: str
) -> None:
    path = authorization_path(scope=requested)
    page = ada.get(path)
    select = page.text.partition('name="scope"')[2].partition("</select>")[0]
    assert [value for value in ("read", "write", "admin") if f'value="{value}"' in select] == offered
    assert FormParser(page.text).forms[path]["scope"] == preselected


@pytest.mark.parametrize(("granted", "answered"), [("read", READ), ("write", WRITE), ("admin", ADMIN)])
def test_the_owner_decides_what_is_granted(
    ada: Browser, db: Database, sample: SampleData, granted: Scope, answered: str
) -> None:
    participation_id = str(sample.route_values["participation_id"])
    issued = connect(ada, path=authorization_path(scope=ADMIN), target=participation_id, scope=granted)
    assert issued["scope"] == answered
    assert _scope_of(db, issued["access_token"]) == granted
    label = {"read": "read only", "write": "read and write", "admin": "everything that its role allows"}[granted]
    for path in ("/account/", "/account/clients/", project_path(sample, f"participants/{participation_id}")):
        clients = ada.get(path).text.partition("Example App")[2]
        assert label in clients.partition("</tr>")[0]


def test_a_form_that_grants_more_than_was_asked_for_is_refused(ada: Browser, db: Database) -> None:
    page = consent(ada, authorization_path(scope=READ), scope="admin")
    assert page.status_code == 400
    assert "Not a valid choice" in page.text


def test_a_refresh_may_narrow_the_scope_and_not_widen_it(ada: Browser, db: Database) -> None:
    issued = connect(ada, path=authorization_path(scope=WRITE))
    refresh_token = issued["refresh_token"]
    for wider in (ADMIN, "bus:admin", "bus:read bus:admin", "bus:read other", "other"):
        refused = refresh(ada, refresh_token, scope=wider)
        assert (refused.status_code, refused.get_json()["error"]) == (400, "invalid_scope")
    # The refusals used nothing up.
    narrowed = refresh(ada, refresh_token, scope=READ).get_json()
    assert narrowed["scope"] == READ
    assert _scope_of(db, narrowed["access_token"]) == "read"
    # The connection keeps what was granted.
    again = refresh(ada, narrowed["refresh_token"]).get_json()
    assert (again["scope"], _scope_of(db, again["access_token"])) == (WRITE, "write")
    assert refresh(ada, again["refresh_token"], scope=ADMIN).get_json()["error"] == "invalid_scope"
    # A repetition of the exchange before gets no more either.
    assert refresh(ada, narrowed["refresh_token"], scope=ADMIN).get_json()["error"] == "invalid_scope"


def test_a_code_gives_what_was_granted_whatever_its_exchange_says(ada: Browser, db: Database) -> None:
    code = read_answer(consent(ada, authorization_path(scope=WRITE), scope="read"))["code"]
    issued = exchange(ada, code, scope=ADMIN).get_json()
    assert (issued["scope"], _scope_of(db, issued["access_token"])) == (READ, "read")


def test_a_step_up_is_another_connection_and_leaves_the_first_as_it_was(
    ada: Browser, db: Database, sample: SampleData
) -> None:
    participation_id = str(sample.route_values["participation_id"])
    first = connect(ada, path=authorization_path(scope=READ), target=participation_id)
    second = connect(ada, path=authorization_path(scope=WRITE), target=participation_id)
    assert _scope_of(db, second["access_token"]) == "write"
    assert _scope_of(db, first["access_token"]) == "read"
    assert refresh(ada, first["refresh_token"]).get_json()["scope"] == READ
    with db.connection() as conn:
        connected = client_grants.list_connected(conn, sample.owner.id, participation_id=int(participation_id))
    assert {client.scope for client in connected if client.client_name == "Example App"} == {"read", "write"}


def test_tokens_that_are_created_in_the_web_may_be_limited(ada: Browser, sample: SampleData) -> None:
    page = project_path(sample, f"participants/{sample.route_values['participation_id']}")
    ada.get(page)
    card = ada.get(ada.submit(f"{page}/tokens", label="dashboard", scope="read").location)
    assert "read only" in card.text
    assert "read only" in ada.get(page).text.partition("dashboard")[2].partition("</tr>")[0]


def test_both_metadata_documents_name_the_scopes(stranger: Browser) -> None:
    for path in ("/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource/mcp"):
        assert stranger.get(path).get_json()["scopes_supported"] == ADMIN.split()


def test_an_unknown_hint_at_revocation_is_ignored(ada: Browser, db: Database) -> None:
    issued = connect(ada)
    revoked = ada.post(
        "/oauth/revoke",
        data={"token": issued["refresh_token"], "token_type_hint": "id_token", "client_id": CLIENT_ID},
    )
    assert revoked.status_code == 200, revoked.text
    assert refresh(ada, issued["refresh_token"]).get_json() == {"error": "invalid_grant"}
