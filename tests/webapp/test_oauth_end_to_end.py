"""The SDK's own client connects with the address alone: real web, real gateway, consent by a person or a script."""

from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from queue import Queue
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import anyio
import httpx2
import pytest
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from playwright.sync_api import Browser

from bus.db import Database
from bus.tenancy import client_consent, client_grants, tokens
from bus.tenancy.owners import Owner
from bus.tenancy.projects import Project
from tests import servers
from tests.factories import make_agent, make_owner, make_project
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import running_gateways
from tests.webapp import scripted_person
from tests.webapp.browser import PHONE_VIEWPORT, open_page
from tests.webapp.live_server import running_live_server
from tests.webapp.oauth_requests import CLIENT_ID, store_client
from tests.webapp.scenario_steps import sign_in

REDIRECT_URI = "http://127.0.0.1:49999/callback"


@dataclass(frozen=True)
class Service:
    """A running web and gateway over one database, as `llm-bus up` starts them."""

    web_url: str
    mcp_url: str
    database_url: str


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    port = servers.free_port()
    mcp_url = f"http://127.0.0.1:{port}/mcp"
    with (
        servers.cloned_database() as database_url,
        running_live_server(database_url, MCP_URL=mcp_url) as web_url,
        running_gateways(database_url, PORT=str(port), PUBLIC_URL=web_url, MCP_URL=mcp_url),
    ):
        yield Service(web_url, mcp_url, database_url)


@pytest.fixture
def database_url(service: Service) -> str:
    return service.database_url


@dataclass(frozen=True)
class Team:
    """An owner with one project and one agent in it."""

    owner: Owner
    project: Project


@pytest.fixture
def team(db: Database) -> Team:
    store_client(db)
    with db.transaction() as conn:
        owner = make_owner(conn)
        return Team(owner, make_project(conn, owner=owner))


@dataclass
class MemoryStorage:
    """What a client keeps."""

    tokens: OAuthToken | None = None
    client_info: OAuthClientInformationFull | None = None
    opened: list[str] = field(default_factory=list)

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client_info

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client_info = client_info


def script_consent(service: Service, db: Database, owner: Owner, **fields: str) -> Callable[[str], str]:
    """Return what opens an address like the browser of an owner, consents, and returns where it is sent back."""

    def open_address(address: str) -> str:
        return scripted_person.consent(service.web_url, db, owner, address, **fields)

    return open_address


@asynccontextmanager
async def connecting(
    service: Service, storage: MemoryStorage, open_address: Callable[[str], str], client_id: str | None = CLIENT_ID
) -> AsyncIterator[tuple[Client, OAuthClientProvider]]:
    """Connect the SDK's client without a token."""
    came_back: list[str] = []

    async def redirect(address: str) -> None:
        storage.opened.append(address)
        came_back.append(await anyio.to_thread.run_sync(open_address, address))

    async def receive() -> AuthorizationCodeResult:
        answer = {name: value for name, (value,) in parse_qs(urlsplit(came_back[-1]).query).items()}
        return AuthorizationCodeResult(code=answer["code"], state=answer["state"], iss=answer.get("iss"))

    provider = OAuthClientProvider(
        service.mcp_url,
        OAuthClientMetadata(client_name="SDK", redirect_uris=[REDIRECT_URI]),  # type: ignore[list-item]
        storage,
        redirect,
        receive,
        client_metadata_url=client_id,
    )
    async with httpx2.AsyncClient(auth=provider, timeout=60) as http:
        async with Client(streamable_http_client(service.mcp_url, http_client=http)) as client:
            yield client, provider


async def whoami(client: Client) -> dict[str, Any]:
    result = await client.call_tool("whoami", {})
    assert not result.is_error, result
    content: dict[str, Any] = result.structured_content
    return content


def test_the_sdk_connects_refreshes_and_feels_a_revocation_at_once(service: Service, db: Database, team: Team) -> None:
    storage = MemoryStorage()
    consent = script_consent(service, db, team.owner, lane="review")

    async def work() -> None:
        async with connecting(service, storage, consent) as (client, provider):
            me = await whoami(client)
            assert (me["actor"], me["lane"]) == (f"{team.owner.handle}/example-app", "review")
            claimed = await client.call_tool("claim", {"sequence": "adr"})
            assert claimed.structured_content["number"] == 1
            first = storage.tokens
            assert first is not None
            assert first.expires_in == 3600
            # An hour passes, for the client and for the server.
            provider.context.update_token_expiry(first.model_copy(update={"expires_in": -1}))
            with db.transaction() as conn:
                conn.execute("UPDATE token SET expires_at = clock_timestamp() WHERE parent_id IS NOT NULL")
            assert (await whoami(client))["actor"] == me["actor"]
            assert storage.tokens is not None
            assert storage.tokens.access_token != first.access_token

    anyio.run(work)
    assert len(storage.opened) == 1
    assert storage.client_info is not None
    assert storage.client_info.client_id == CLIENT_ID
    assert storage.tokens is not None
    (address, *_) = storage.opened
    assert parse_qs(urlsplit(address).query)["resource"] == [service.mcp_url]
    with closing(McpClient(service.mcp_url, storage.tokens.access_token)) as caller:
        assert caller.call("whoami").status == 200
        with db.transaction() as conn:
            (connected,) = client_grants.list_connected(conn, team.owner.id)
            client_grants.disconnect(conn, team.owner.id, connected.id, actor="web")
        refused = caller.call("whoami")
        assert refused.status == 401
        assert refused.headers["www-authenticate"].startswith("Bearer resource_metadata=")


def test_the_sdk_steps_up_when_a_call_is_beyond_its_scope(service: Service, db: Database, team: Team) -> None:
    storage = MemoryStorage()
    with db.transaction() as conn:
        target = str(make_agent(conn, team.project, is_admin=True).ctx.participation_id)
    # The owner first grants less than the client asks for, and then all of it.
    first = script_consent(service, db, team.owner, target=target, scope="read")
    later = script_consent(service, db, team.owner, target=target)
    requested: list[str] = []

    def open_address(address: str) -> str:
        requested.extend(parse_qs(urlsplit(address).query)["scope"])
        return first(address) if len(requested) == 1 else later(address)

    async def work() -> None:
        async with connecting(service, storage, open_address) as (client, _):
            assert (await whoami(client))["scope"] == "bus:read"
            # It sees what it could be granted.
            assert "admin_provision" in {tool.name for tool in (await client.list_tools()).tools}
            claimed = await client.call_tool("claim", {"sequence": "adr"})
            assert claimed.structured_content["number"] == 1
            assert (await whoami(client))["scope"] == "bus:read bus:write"
            added = await client.call_tool("admin_provision", {"participant_name": "another"})
            assert added.structured_content["participant"] == "another"

    anyio.run(work)
    assert [set(scope.split()) for scope in requested] == [
        {"bus:read", "bus:write"},
        {"bus:read", "bus:write"},
        {"bus:read", "bus:write", "bus:admin"},
    ]


@pytest.mark.parametrize("iss", ["https://other.example.org", None])
def test_the_sdk_takes_no_code_of_another_issuer(service: Service, db: Database, team: Team, iss: str | None) -> None:
    """A mix-up: the answer of another server, or one whose issuer was removed, is not exchanged."""
    consent = script_consent(service, db, team.owner)

    def mix_up(address: str) -> str:
        returned = urlsplit(consent(address))
        answer = parse_qs(returned.query)
        assert answer.pop("iss") == [service.web_url]
        named = {} if iss is None else {"iss": [iss]}
        return returned._replace(query=urlencode({**answer, **named}, doseq=True)).geturl()

    async def work() -> None:
        async with connecting(service, MemoryStorage(), mix_up) as (client, _):
            await whoami(client)

    with pytest.RaisesGroup(pytest.RaisesExc(OAuthFlowError, match="iss"), flatten_subgroups=True):
        anyio.run(work)
    with db.connection() as conn:
        used = conn.fetch_all("SELECT code_used_at FROM client_grant WHERE owner_id = %s", (team.owner.id,))
    assert used == [(None,)]


def test_a_call_beyond_its_scope_names_what_to_ask_for(service: Service, db: Database, team: Team) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, team.project)
        issued = tokens.add(conn, team.project.id, agent.label, scope="read", actor="web")
    metadata_url = service.mcp_url.removesuffix("/mcp") + "/.well-known/oauth-protected-resource/mcp"
    with closing(McpClient(service.mcp_url, issued.token)) as caller:
        refused = caller.call("claim", sequence="adr")
    assert refused.status == 403
    assert refused.headers["www-authenticate"] == (
        f'Bearer error="insufficient_scope", scope="bus:read bus:write", resource_metadata="{metadata_url}"'
    )


def test_the_sdk_registers_where_it_has_no_document(service: Service, db: Database, team: Team) -> None:
    storage = MemoryStorage()

    async def work() -> None:
        async with connecting(service, storage, script_consent(service, db, team.owner), None) as (client, _):
            assert (await whoami(client))["actor"] == f"{team.owner.handle}/sdk"

    anyio.run(work)
    assert storage.client_info is not None
    assert storage.client_info.client_id.startswith("client-")


def test_metadata_and_challenges_lead_from_the_endpoint_to_the_web(service: Service) -> None:
    base = service.mcp_url.removesuffix("/mcp")
    unauthorized = httpx2.post(service.mcp_url, json={})
    metadata_url = f"{base}/.well-known/oauth-protected-resource/mcp"
    assert unauthorized.status_code == 401
    assert unauthorized.headers.get_list("WWW-Authenticate") == [
        f'Bearer resource_metadata="{metadata_url}", scope="bus:read bus:write"'
    ]
    for path in ("/mcp", ""):
        answer = httpx2.get(f"{base}/.well-known/oauth-protected-resource{path}")
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.json()["resource"] == service.mcp_url
        assert answer.json()["authorization_servers"] == [service.web_url]
    assert httpx2.options(metadata_url).status_code == 204
    assert httpx2.post(metadata_url).status_code == 405


def test_an_access_token_is_for_its_endpoint_alone(service: Service, db: Database, team: Team) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, team.project)
        issued = []
        for resource in (service.mcp_url, "https://other.example.org/mcp"):
            request = client_consent.ConsentRequest(CLIENT_ID, "App", REDIRECT_URI, resource, "c" * 43)
            code = client_consent.connect_participant(
                conn, team.owner.id, agent.ctx.participation_id, request, ttl=None, actor="web"
            )
            grant = client_grants.lock_by_code(conn, code)
            assert grant is not None
            issued.append(client_grants.issue_tokens(conn, grant))
    statuses = []
    for token in (agent.token, issued[0].access_token, issued[1].access_token, issued[0].refresh_token):
        with closing(McpClient(service.mcp_url, token)) as caller:
            statuses.append(caller.call("whoami").status)
    assert statuses == [200, 200, 401, 401]


def test_a_gateway_without_a_public_address_serves_no_metadata(service: Service, db: Database, team: Team) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, team.project)
        request = client_consent.ConsentRequest(CLIENT_ID, "App", REDIRECT_URI, "http://127.0.0.1:8787/mcp", "c" * 43)
        code = client_consent.connect_participant(
            conn, team.owner.id, agent.ctx.participation_id, request, ttl=None, actor="web"
        )
        grant = client_grants.lock_by_code(conn, code)
        assert grant is not None
        issued = client_grants.issue_tokens(conn, grant)
    with running_gateways(service.database_url) as (gateway,):
        base = gateway.url.removesuffix("/mcp")
        assert httpx2.post(gateway.url, json={}).headers.get_list("WWW-Authenticate") == ["Bearer"]
        assert httpx2.get(f"{base}/.well-known/oauth-protected-resource/mcp").status_code == 404
        with closing(McpClient(gateway.url, issued.access_token)) as caller:
            assert caller.call("whoami").status == 401
            caller.token = agent.token
            assert caller.call("whoami").status == 200


@pytest.mark.exhaustive
def test_a_person_consents_on_a_phone(service: Service, db: Database, team: Team, chromium: Browser) -> None:
    """The client runs in a thread of its own, since the browser is driven from this one."""
    addresses: Queue[str] = Queue()
    answers: Queue[str] = Queue()
    storage = MemoryStorage()

    def open_address(address: str) -> str:
        addresses.put(address)
        return answers.get(timeout=60)

    async def work() -> None:
        async with connecting(service, storage, open_address) as (client, _):
            assert (await whoami(client))["actor"] == f"{team.owner.handle}/example-app"

    with ThreadPoolExecutor(1) as pool:
        connected = pool.submit(anyio.run, work)
        with open_page(chromium, viewport=PHONE_VIEWPORT, java_script_enabled=False) as page:
            sign_in(page, service.web_url, db, team.owner)
            page.goto(addresses.get(timeout=60))
            # Nothing is beside the screen.
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE_VIEWPORT["width"]
            with page.expect_event("requestfailed", lambda failed: failed.url.startswith(REDIRECT_URI)) as returned:
                page.get_by_role("button", name="Connect client").click()
            answers.put(returned.value.url)
        connected.result(timeout=60)
