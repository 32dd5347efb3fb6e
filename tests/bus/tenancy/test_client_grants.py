"""Connected clients: their tokens rotate, a replay revokes them, and they end with the tokens of their participant."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from bus import scopes
from bus.coordination import dashboard, leases, posts, sessions
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, NotAuthenticated, NotFound, OwnerSuspended
from bus.operations import project_purge, retention
from bus.rules.token_format import access_token_fingerprint
from bus.scopes import SCOPES, Scope
from bus.tenancy import (
    authentication,
    client_consent,
    client_grants,
    invite_redemption,
    invites,
    owners,
    participant_queries,
    participants,
    participations,
    projects,
    tokens,
)
from bus.tenancy.client_consent import ConsentRequest
from bus.tenancy.client_grants import ClientTokens
from bus.tenancy.projects import Project
from tests.factories import Agent, make_agent, make_project

RESOURCE = "https://bus.example.org/mcp"
REQUEST = ConsentRequest("https://app.example/client.json", "App", "http://127.0.0.1/done", RESOURCE, "c" * 43)


@dataclass(frozen=True)
class Connected:
    """A client that acts as an agent, with its first tokens."""

    code: str
    tokens: ClientTokens
    ctx: Ctx


def connect(conn: Connection, project: Project, agent: Agent, *, ttl: timedelta | None = None) -> Connected:
    code = client_consent.connect_participant(
        conn, project.owner_id, agent.ctx.participation_id, REQUEST, ttl=ttl, actor=project.owner
    )
    grant = client_grants.lock_by_code(conn, code)
    assert grant is not None
    issued = client_grants.issue_tokens(conn, grant)
    return Connected(code, issued, find_caller(conn, issued))


def find_caller(conn: Connection, issued: ClientTokens) -> Ctx:
    ctx = tokens.find_caller(conn, access_token_fingerprint(issued.access_token, RESOURCE))
    assert ctx is not None
    return ctx


def refresh(conn: Connection, refresh_token: str) -> ClientTokens | None:
    grant = client_grants.lock_by_refresh_token(conn, refresh_token)
    return None if grant is None else client_grants.issue_tokens(conn, grant, refresh_token)


def is_refused(conn: Connection, ctx: Ctx) -> bool:
    try:
        with conn.raw.transaction():
            authentication.authenticate(conn, ctx)
    except NotAuthenticated:
        return True
    return False


@pytest.fixture
def client(conn: Connection, project: Project, ada: Agent) -> Connected:
    return connect(conn, project, ada)


def test_an_access_token_acts_as_its_participant_for_an_hour(conn: Connection, ada: Agent, client: Connected) -> None:
    assert client.ctx.participation_id == ada.ctx.participation_id
    assert client.tokens.expires_in_seconds == 3600
    assert authentication.authenticate(conn, client.ctx).actor == ada.actor
    conn.execute("UPDATE token SET expires_at = clock_timestamp() WHERE id = %s", (client.ctx.token_id,))
    assert is_refused(conn, client.ctx)
    assert not is_refused(conn, ada.ctx)


@pytest.mark.parametrize("granted", SCOPES)
@pytest.mark.parametrize("requested", SCOPES)
def test_no_token_has_a_wider_scope_than_was_granted(
    conn: Connection, project: Project, root: Agent, granted: Scope, requested: Scope
) -> None:
    code = client_consent.connect_participant(
        conn,
        project.owner_id,
        root.ctx.participation_id,
        dataclasses.replace(REQUEST, scope=granted),
        ttl=None,
        actor=project.owner,
    )
    grant = client_grants.lock_by_code(conn, code)
    assert grant is not None
    issued = client_grants.issue_tokens(conn, grant, scope=requested)
    assert issued.scope == find_caller(conn, issued).scope == scopes.narrower(granted, requested)


def test_a_refresh_token_works_once_and_the_older_access_token_goes_on(conn: Connection, client: Connected) -> None:
    second = refresh(conn, client.tokens.refresh_token)
    assert second is not None
    third = refresh(conn, second.refresh_token)
    assert third is not None
    assert not any(is_refused(conn, ctx) for ctx in (client.ctx, find_caller(conn, second), find_caller(conn, third)))


def test_a_refresh_token_that_was_just_replaced_gets_the_same_successor(conn: Connection, client: Connected) -> None:
    first, again = (refresh(conn, client.tokens.refresh_token) for _ in range(2))
    assert first is not None
    assert again is not None
    assert first.refresh_token == again.refresh_token
    assert first.access_token != again.access_token
    assert not any(is_refused(conn, find_caller(conn, tokens)) for tokens in (first, again))
    following = refresh(conn, again.refresh_token)
    assert following is not None
    assert following.refresh_token != first.refresh_token
    # One that is two refreshes old is not.
    assert refresh(conn, client.tokens.refresh_token) is None
    assert is_refused(conn, client.ctx)


def test_a_refresh_token_that_was_replaced_a_minute_ago_revokes_everything(conn: Connection, client: Connected) -> None:
    assert refresh(conn, client.tokens.refresh_token) is not None
    conn.execute("UPDATE client_grant SET replaced_at = replaced_at - interval '60 seconds'")
    assert refresh(conn, client.tokens.refresh_token) is None
    assert is_refused(conn, client.ctx)


@pytest.mark.parametrize("age", [0, 1])
def test_a_replayed_refresh_token_revokes_everything(conn: Connection, client: Connected, age: int) -> None:
    used, latest = [client.tokens.refresh_token], client.tokens
    for _ in range(2):
        rotated = refresh(conn, used[-1])
        assert rotated is not None
        latest = rotated
        used.append(latest.refresh_token)
    conn.execute("UPDATE client_grant SET replaced_at = replaced_at - %s", (client_grants.REPEAT_TTL,))
    assert refresh(conn, used[age]) is None
    assert is_refused(conn, client.ctx)
    assert is_refused(conn, find_caller(conn, latest))
    assert refresh(conn, used[-1]) is None
    (reason,) = conn.fetch_one("SELECT detail ->> 'reason' FROM audit ORDER BY id DESC LIMIT 1")
    assert reason == "its refresh token was used twice"


def test_a_replayed_code_revokes_what_it_gave(conn: Connection, ada: Agent, client: Connected) -> None:
    assert client_grants.lock_by_code(conn, client.code) is None
    assert is_refused(conn, client.ctx)
    assert refresh(conn, client.tokens.refresh_token) is None
    # The participant's other tokens stay.
    assert not is_refused(conn, ada.ctx)


def test_a_code_expires(conn: Connection, project: Project, ada: Agent) -> None:
    code = client_consent.connect_participant(
        conn, project.owner_id, ada.ctx.participation_id, REQUEST, ttl=None, actor="ada"
    )
    conn.execute("UPDATE token SET expires_at = clock_timestamp() WHERE id = (SELECT max(token_id) FROM client_grant)")
    assert client_grants.lock_by_code(conn, code) is None


@pytest.mark.parametrize("text", ["", "x", "lbusr_" + "0" * 71, "\0", "é" * 77])
def test_unknown_codes_and_tokens_find_nothing(conn: Connection, client: Connected, text: str) -> None:
    assert client_grants.lock_by_code(conn, text) is None
    assert client_grants.lock_by_refresh_token(conn, text) is None
    assert client_grants.lock_by_access_token(conn, text, RESOURCE) is None
    assert client_grants.lock_by_access_token(conn, client.tokens.access_token, "https://other/mcp") is None
    assert not is_refused(conn, client.ctx)


def test_a_client_that_is_not_used_for_thirty_days_ends(conn: Connection, client: Connected) -> None:
    conn.execute("UPDATE token SET expires_at = expires_at - interval '30 days'")
    assert refresh(conn, client.tokens.refresh_token) is None


def test_a_limit_of_the_owner_ends_access_and_refresh_tokens(conn: Connection, project: Project, ada: Agent) -> None:
    client = connect(conn, project, ada, ttl=timedelta(minutes=10))
    assert 595 <= client.tokens.expires_in_seconds <= 600
    conn.execute("UPDATE client_grant SET ends_at = clock_timestamp() + interval '1 minute'")
    second = refresh(conn, client.tokens.refresh_token)
    assert second is not None
    assert second.expires_in_seconds <= 60
    (longest,) = conn.fetch_one(
        "SELECT max(expires_at) < clock_timestamp() + interval '61 seconds' FROM token WHERE id = (SELECT token_id FROM"
        " client_grant)"
    )
    assert longest


_ENDS: dict[str, Callable[[Connection, Project, Agent], object]] = {
    "disconnected": lambda conn, project, _: client_grants.disconnect(
        conn, project.owner_id, client_grants.list_connected(conn, project.owner_id)[0].id, actor="web"
    ),
    "all tokens revoked": lambda conn, project, ada: tokens.revoke_all(conn, project.id, ada.label, actor="web"),
    "rotated": lambda conn, project, ada: tokens.rotate(conn, project.id, ada.label, actor="web"),
    "removed from the project": lambda conn, project, ada: participations.remove(
        conn, project.id, ada.label, actor="web"
    ),
    "participant removed": lambda conn, project, ada: participants.remove(
        conn, project.owner_id, ada.ctx.participant_id, actor="web"
    ),
}


@pytest.mark.parametrize("end", _ENDS.values(), ids=list(_ENDS))
def test_a_client_ends_with_the_tokens_of_its_participant(
    conn: Connection, project: Project, ada: Agent, end: Callable[[Connection, Project, Agent], object]
) -> None:
    client = connect(conn, project, ada)
    second = refresh(conn, client.tokens.refresh_token)
    assert second is not None
    end(conn, project, ada)
    assert is_refused(conn, client.ctx)
    assert is_refused(conn, find_caller(conn, second))
    assert refresh(conn, second.refresh_token) is None
    assert client_grants.list_connected(conn, project.owner_id) == []


def test_a_project_that_is_deleted_takes_its_clients_along(
    conn: Connection, project: Project, client: Connected
) -> None:
    assert project_purge.begin_purge(conn, project.id, actor="cli")
    assert is_refused(conn, client.ctx)
    assert refresh(conn, client.tokens.refresh_token) is None
    conn.enter_all_projects()
    while not project_purge.purge_step(conn, project.id):
        pass
    assert conn.fetch_one("SELECT count(*) FROM client_grant") == (0,)


def test_a_client_connects_as_a_new_participant(conn: Connection, project: Project) -> None:
    code = client_consent.connect_new_participant(
        conn, project.owner_id, project.id, "app", "review", REQUEST, ttl=None, actor=project.owner
    )
    grant = client_grants.lock_by_code(conn, code)
    assert grant is not None
    assert grant.actor == f"{project.owner}/app"
    ctx = find_caller(conn, client_grants.issue_tokens(conn, grant))
    assert participant_queries.whoami(conn, ctx).lane == "review"
    (connected,) = client_grants.list_connected(conn, project.owner_id)
    assert (connected.actor, connected.project, connected.client_name) == (grant.actor, project.name, "App")
    with pytest.raises(BusError, match="choose that participant"):
        client_consent.connect_new_participant(
            conn, project.owner_id, project.id, "APP", None, REQUEST, ttl=None, actor=project.owner
        )


def test_an_owner_connects_and_disconnects_only_its_own(conn: Connection, project: Project, client: Connected) -> None:
    stranger = make_project(conn)
    agent = make_agent(conn, stranger)
    (connected,) = client_grants.list_connected(conn, project.owner_id)
    for act in (
        lambda: client_consent.connect_participant(
            conn, project.owner_id, agent.ctx.participation_id, REQUEST, ttl=None, actor="x"
        ),
        lambda: client_consent.connect_new_participant(
            conn, project.owner_id, stranger.id, "mine", None, REQUEST, ttl=None, actor="x"
        ),
        lambda: client_grants.disconnect(conn, stranger.owner_id, connected.id, actor="x"),
    ):
        with pytest.raises(NotFound):
            act()
    assert client_grants.list_connected(conn, stranger.owner_id) == []
    assert not is_refused(conn, client.ctx)


def test_a_suspended_owner_connects_nothing(conn: Connection, project: Project, ada: Agent) -> None:
    owners.suspend(conn, project.owner_id, reason="x", actor="cli")
    with pytest.raises(OwnerSuspended):
        connect(conn, project, ada)


def test_an_archived_project_gets_no_new_client(conn: Connection, project: Project, ada: Agent) -> None:
    projects.archive(conn, project.id, actor="cli")
    with pytest.raises(BusError, match="archived"):
        connect(conn, project, ada)


def test_between_two_access_tokens_a_client_stays_in_its_lane(conn: Connection, project: Project, bob: Agent) -> None:
    code = client_consent.connect_new_participant(
        conn, project.owner_id, project.id, "app", "review", REQUEST, ttl=None, actor=project.owner
    )
    grant = client_grants.lock_by_code(conn, code)
    assert grant is not None
    client_grants.issue_tokens(conn, grant)
    conn.execute("UPDATE token SET expires_at = clock_timestamp() WHERE parent_id IS NOT NULL")
    assert posts.create(conn, bob.ctx, "x", to_lane="review").recipients == 1


def test_the_expiry_of_an_access_token_ends_no_session(conn: Connection, project: Project, client: Connected) -> None:
    session = client.ctx.with_session("one")
    sessions.look(conn, session)
    leases.acquire(conn, session, "src/a.py")
    conn.execute("UPDATE token SET expires_at = clock_timestamp() WHERE id = %s", (client.ctx.token_id,))
    assert sessions.list_projects_with_stale_sessions(conn) == []
    client_grants.disconnect(
        conn, project.owner_id, client_grants.list_connected(conn, project.owner_id)[0].id, actor="web"
    )
    assert sessions.list_projects_with_stale_sessions(conn) == [project.id]


def test_an_invite_of_a_client_lasts_as_long_as_the_client(conn: Connection, project: Project, root: Agent) -> None:
    client = connect(conn, project, root)
    first, second = invites.create(conn, client.ctx), invites.create(conn, client.ctx)
    conn.execute("UPDATE token SET expires_at = expires_at - interval '2 days' WHERE id = %s", (client.ctx.token_id,))
    assert retention.prune_batch(conn, "access_tokens") == 1
    assert invite_redemption.redeem(conn, first.code, name="guest").participant == "guest"
    client_grants.disconnect(
        conn, project.owner_id, client_grants.list_connected(conn, project.owner_id)[0].id, actor="web"
    )
    with pytest.raises(BusError):
        invite_redemption.redeem(conn, second.code, name="other")


def test_tokens_of_clients_are_not_listed_among_those_that_people_handle(
    conn: Connection, project: Project, ada: Agent, client: Connected
) -> None:
    assert [token.id for token in tokens.list_tokens(conn, ada.ctx.participation_id)] == [ada.ctx.token_id]
    assert dashboard.list_attention_items(conn, project.owner_id).expiring_tokens == []
    detail = participant_queries.get_participation_detail(conn, project.owner_id, project.id, ada.ctx.participation_id)
    # A client counts once.
    assert detail.live_token_count == 2
    assert project_purge.get_contents(conn, project.id).live_token_count == 2
    assert not is_refused(conn, client.ctx)


def test_the_last_use_of_a_client_is_that_of_its_access_tokens(
    conn: Connection, project: Project, client: Connected
) -> None:
    def last_used() -> object:
        return client_grants.list_connected(conn, project.owner_id)[0].last_used_at

    assert last_used() is None
    assert client.ctx.token_id is not None
    tokens.record_use(conn, [client.ctx.token_id])
    used_at = last_used()
    assert used_at is not None
    assert refresh(conn, client.tokens.refresh_token) is not None
    conn.execute("UPDATE token SET expires_at = expires_at - interval '9 days' WHERE parent_id IS NOT NULL")
    assert retention.prune_batch(conn, "access_tokens") == 2
    assert last_used() == used_at


def test_old_connections_are_pruned_with_their_tokens(conn: Connection, project: Project, client: Connected) -> None:
    assert retention.prune_batch(conn, "ended_clients") == 0
    conn.execute("UPDATE token SET expires_at = expires_at - interval '61 days' WHERE parent_id IS NULL")
    assert retention.prune_batch(conn, "ended_clients") == 1
    assert conn.fetch_one("SELECT count(*) FROM client_grant") == (0,)
    assert is_refused(conn, client.ctx)
