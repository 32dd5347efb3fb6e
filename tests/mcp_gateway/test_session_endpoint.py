"""The endpoint of a session, and sessions of one token over the wire: waits, presence, and arguments."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.concurrency import hold_for, wait_until
from tests.factories import Agent
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient

Connect = Callable[..., McpClient]


def _session(
    client: McpClient, key: str | None, body: Any = b"", method: str = "POST", token: str | None = ""
) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {client.token if token == '' else token}"}
    if key is not None:
        headers["X-Bus-Session"] = key
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.http_client.request(method, f"{client.url}/session", content=content, headers=headers)
    return response.status_code, response.json() if response.content else {}


def _call(client: McpClient, key: str, tool: str, **arguments: Any) -> dict[str, Any]:
    return client.call(tool, _session=key, **arguments).structured_content


def test_a_look_shows_mail_once_and_the_holders_of_a_surface(connect: Connect, team: Team) -> None:
    alice, bob = connect(team.alice), connect(team.bob)
    post_id = alice.call("post", to_actor="bob", body="b" * 300, subject="parser").structured_content["post_id"]
    _call(bob, "one", "lease", surface="src/api", note="parser")
    look = {"mail": True, "surface": "src/api/a.py", "wake": "hooks"}
    status, answer = _session(bob, "two", look)
    assert status == 200
    (post,), (holder,) = answer.pop("posts"), answer.pop("holders")
    assert answer == {"session": "two", "unread": 1, "unshown": 1}
    assert (post["post_id"], post["from"], post["subject"]) == (post_id, team.alice.actor, "parser")
    assert post["body"] == "b" * 200
    assert (holder["actor"], holder["session"], holder["note"]) == (team.bob.actor, "one", "parser")
    assert _session(bob, "two", look)[1]["posts"] == []
    assert _session(bob, "one", {"surface": "src"})[1] == {"session": "one", "unread": 1, "holders": []}
    assert _session(bob, "one")[1] == {"session": "one", "unread": 1}


def test_delete_ends_a_session_and_its_leases(connect: Connect, team: Team) -> None:
    bob = connect(team.bob)
    _call(bob, "one", "lease", surface="a")
    _call(bob, "two", "lease", surface="b")
    assert _session(bob, "one", method="DELETE") == (
        200,
        {"session": "one", "ended": True, "released": 1, "requeued": 0},
    )
    assert _session(bob, "one", method="DELETE")[1]["ended"] is False
    assert [row["surface"] for row in bob.call("who_holds").structured_content["leases"]] == ["b"]


def test_requests_that_cannot_be_served_say_what_to_send(connect: Connect, team: Team) -> None:
    bob = connect(team.bob)
    for method in ("POST", "DELETE"):
        assert _session(bob, None, method=method)[0] == 400
        assert _session(bob, "one", method=method, token="x")[0] == 401
        assert _session(bob, "a b", method=method)[0] == 400
    assert _session(bob, "one", method="PUT")[0] == 405
    for body in (b"{", b"[]", {"mail": "yes"}, {"x": 1}, {"wake": "never"}, {"surface": "../x"}, {"surface": ""}):
        status, answer = _session(bob, "one", body)
        assert status == 400, body
        assert answer["message"].endswith(".")


@pytest.mark.parametrize("modern", [True, False])
def test_an_argument_of_any_tool_may_name_the_session(connect: Connect, team: Team, modern: bool) -> None:
    alice, bob = connect(team.alice), connect(team.bob, modern=modern)
    alice.call("claim", sequence="s")
    for _ in range(2):
        assert len(_call(bob, f"one/{modern}", "whats_new", advance_cursor=False)["events"]) == 1
    for key in ("", "a b", 7, None):
        error = bob.call("whats_new", _session=key).error
        assert (error["code"], "printable ASCII" in error["message"]) == ("invalid_argument", True)


def test_one_post_wakes_one_of_two_waiting_sessions_in_two_processes(connect: Connect, team: Team) -> None:
    alice = connect(team.alice)
    waiting = [connect(team.bob, process=process) for process in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        waits = [
            pool.submit(_call, client, f"session-{number}", "wait_for", kind="inbox", timeout_seconds=30)
            for number, client in enumerate(waiting)
        ]
        wait_until(lambda: len(_find_sessions(alice, team.bob, "waiting")) == 2)
        result = alice.call("post", to_actor="bob", body="job").structured_content
        assert result["reach"] == {"now": [team.bob.actor]}
        first = wait_until(lambda: next((wait for wait in waits if wait.done()), None))
        (post,) = first.result()["posts"]
        (other,) = [wait for wait in waits if wait is not first]
        hold_for(lambda: not other.done(), 4)
        _call(waiting[0], "session-0" if first is waits[0] else "session-1", "ack", post_id=post["post_id"])
        second_id = alice.call("post", to_actor="bob", body="next job").structured_content["post_id"]
        assert [post["post_id"] for post in other.result(30)["posts"]] == [second_id]
    wait_until(lambda: not _find_sessions(alice, team.bob, "waiting"))


def test_those_who_share_a_lease_are_not_named_to_each_other(connect: Connect, team: Team) -> None:
    alice, bob = connect(team.alice), connect(team.bob)
    alice.call("lease", surface="src/**", mode="shared")
    look = {"surface": "src/a.py"}
    assert [row["actor"] for row in _session(bob, "one", look)[1]["holders"]] == [team.alice.actor]
    _call(bob, "one", "lease", surface="src/a.py", mode="shared")
    assert _session(bob, "one", look)[1]["holders"] == []
    # Another session of the same participant shares nothing.
    assert {row["actor"] for row in _session(bob, "two", look)[1]["holders"]} == {team.alice.actor, team.bob.actor}
    alice.call("lease", surface="src/a.py")
    assert [row["mode"] for row in _session(bob, "one", look)[1]["holders"]] == ["exclusive"]


def _find_sessions(client: McpClient, agent: Agent, wake: str) -> list[str]:
    active = client.call("who_is_active").structured_content["active"]
    return [
        session["session"]
        for one in active
        if one["actor"] == agent.actor
        for session in one.get("sessions", [])
        if session.get("wake") == wake
    ]
