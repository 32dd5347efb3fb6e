"""Idempotency keys: one effect, the first result again, and an error for the same key with other arguments."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from bus.coordination import posts, sequences, tasks
from bus.coordination.idempotency import validate_and_fingerprint
from bus.ctx import Ctx
from bus.db import Connection
from bus.tenancy import participations
from tests import factories
from tests.assertions import assert_ledger_consistent, assert_refused, database_checksum
from tests.factories import Agent

Call = Callable[..., Any]


def _claim(conn: Connection, ctx: Ctx, key: str | None = "k", note: str | None = None) -> Any:
    return sequences.claim(conn, ctx, "adr", note=note, idempotency_key=key)


def _post(conn: Connection, ctx: Ctx, key: str | None = "k", note: str | None = None) -> Any:
    return posts.create(conn, ctx, note or "hello", to_actor="bob", to_lane="core", idempotency_key=key)


def _task(conn: Connection, ctx: Ctx, key: str | None = "k", note: str | None = None) -> Any:
    return tasks.create(conn, ctx, note or "build it", owner="bob", idempotency_key=key)


CALLS = pytest.mark.parametrize("call", [_claim, _post, _task])


@CALLS
def test_a_repeated_call_has_one_effect_and_the_same_result(
    conn: Connection, ada: Agent, bob: Agent, call: Call
) -> None:
    first = call(conn, ada.ctx)
    before = database_checksum(conn)
    for _ in range(3):
        assert call(conn, ada.ctx) == first
    assert database_checksum(conn) == before
    assert assert_ledger_consistent(conn, ada.ctx.project_id) == 1


@CALLS
def test_the_first_result_is_returned_after_later_changes(
    conn: Connection, ada: Agent, bob: Agent, root: Agent, call: Call
) -> None:
    first = call(conn, ada.ctx)
    # Each of these changes the result of a new call with the same arguments.
    sequences.seed(conn, root.ctx, "adr", 100, prefix="ADR-", pad=4)
    factories.make_agent(conn, None, "elsewhere")
    for name in ("one", "two"):
        tasks.create(conn, root.ctx, name)
    if call is _task:
        tasks.start(conn, bob.ctx, first.task_id)
        tasks.ship(conn, bob.ctx, first.task_id)
    assert call(conn, ada.ctx) == first


@CALLS
def test_the_same_key_with_other_arguments_is_refused_without_effect(
    conn: Connection, ada: Agent, bob: Agent, call: Call
) -> None:
    first = call(conn, ada.ctx)
    before = database_checksum(conn)
    with assert_refused(conn, "key_reuse"):
        call(conn, ada.ctx, note="something else")
    assert database_checksum(conn) == before
    assert call(conn, ada.ctx) == first


@CALLS
@pytest.mark.parametrize("other", [_claim, _post, _task])
def test_a_key_is_refused_for_a_second_tool(conn: Connection, ada: Agent, bob: Agent, call: Call, other: Call) -> None:
    if call is other:
        return
    call(conn, ada.ctx)
    before = database_checksum(conn)
    with assert_refused(conn, "key_reuse"):
        other(conn, ada.ctx)
    assert database_checksum(conn) == before


@CALLS
def test_keys_of_different_participations_are_independent(conn: Connection, ada: Agent, bob: Agent, call: Call) -> None:
    mine, theirs = call(conn, ada.ctx), call(conn, bob.ctx)
    assert mine != theirs
    assert assert_ledger_consistent(conn, ada.ctx.project_id) == 2


@CALLS
def test_each_call_without_a_key_has_its_own_effect(conn: Connection, ada: Agent, bob: Agent, call: Call) -> None:
    assert call(conn, ada.ctx, None) != call(conn, ada.ctx, None)
    assert call(conn, ada.ctx, "one") != call(conn, ada.ctx, "two")
    assert assert_ledger_consistent(conn, ada.ctx.project_id) == 4


def test_an_error_is_not_stored(conn: Connection, root: Agent) -> None:
    """The key works after the cause of the error has been removed."""
    failing: list[tuple[str, Call]] = [
        (
            "unknown_recipient",
            lambda: posts.create(conn, root.ctx, "x", to_actor="late", idempotency_key="p"),
        ),
        ("unknown_recipient", lambda: tasks.create(conn, root.ctx, "x", owner="late", idempotency_key="t")),
        ("not_found", lambda: tasks.create(conn, root.ctx, "x", blocked_on=[1], idempotency_key="b")),
        (
            "not_found",
            lambda: posts.create(conn, root.ctx, "x", to_lane="l", reply_to=1, idempotency_key="r"),
        ),
    ]
    for code, call in failing:
        with assert_refused(conn, code):
            call()
    assert conn.fetch_one("SELECT count(*) FROM idempotency WHERE project_id = %s", (root.ctx.project_id,)) == (0,)
    posts.create(conn, root.ctx, "the first", to_lane="l")
    tasks.create(conn, root.ctx, "the first")
    project = root.ctx.project_id
    participations.join(conn, project, "late", actor="cli")
    for _, call in failing:
        call()
    assert assert_ledger_consistent(conn, project) == 6


def test_a_refused_claim_does_not_consume_the_key(conn: Connection, root: Agent) -> None:
    sequences.seed(conn, root.ctx, "adr", 2**53 - 1)
    with assert_refused(conn, "conflict"):
        _claim(conn, root.ctx)
    assert sequences.claim(conn, root.ctx, "other", idempotency_key="k").number == 1


def test_spellings_of_one_lane_have_one_fingerprint(conn: Connection, ada: Agent) -> None:
    first = tasks.create(conn, ada.ctx, "x", lane="caf\u00e9", idempotency_key="k")
    assert tasks.create(conn, ada.ctx, "x", lane="cafe\u0301", idempotency_key="k") == first


def test_a_repeated_result_has_the_present_unread_count(conn: Connection, ada: Agent, bob: Agent) -> None:
    for call in (_claim, _post, _task):
        key = call.__name__
        assert call(conn, ada.ctx, key).unread == 0
    posts.create(conn, bob.ctx, "for you", to_actor="ada")
    for call in (_claim, _post, _task):
        assert call(conn, ada.ctx, call.__name__).unread == 1


def test_long_keys_and_visible_characters_are_accepted(conn: Connection, ada: Agent) -> None:
    for key in ("x" * 64, "ключ", "a b", "\u00e9"):
        assert _claim(conn, ada.ctx, key) == _claim(conn, ada.ctx, key)


def test_a_fingerprint_covers_the_tool_and_every_argument() -> None:
    first = validate_and_fingerprint("claim", "k", sequence="adr", note=None)
    assert validate_and_fingerprint("claim", "k", note=None, sequence="adr") == first
    others = [
        validate_and_fingerprint("seed", "k", sequence="adr", note=None),
        validate_and_fingerprint("claim", "k", sequence="adr", note=""),
        validate_and_fingerprint("claim", "k", sequence="adr"),
        validate_and_fingerprint("claim", "k", sequence="adr,", note=None),
    ]
    assert len({fingerprinted for _, fingerprinted in [first, *others]}) == 5
    assert validate_and_fingerprint("claim", None, sequence="adr") == (None, None)


# Two values of an argument; other arguments get those of their type, so that a new one is covered by itself.
_VALUES: dict[str, tuple[Any, Any]] = {
    "to_actor": ("ada", "bob"),
    "owner": ("ada", "bob"),
    "reply_to": (1, 2),
    "priority": (1, 3),
    "blocked_on": ([1], [2]),
}
_VALUES_BY_TYPE: dict[str, tuple[Any, Any]] = {"str": ("some", "other"), "int": (60, 61), "bool": (False, True)}
_VERBS: dict[str, Call] = {"post": posts.create, "claim": sequences.claim, "task_create": tasks.create}


def _list_values(verb: Call) -> dict[str, tuple[Any, Any]]:
    """Two values for each argument of a verb, by name."""
    return {
        name: _VALUES.get(name) or _VALUES_BY_TYPE[inspect.formatannotation(parameter.annotation).split(" | ")[0]]
        for name, parameter in inspect.signature(verb).parameters.items()
        if name not in ("conn", "ctx", "idempotency_key")
    }


@pytest.mark.parametrize(
    ("tool", "argument"), [(tool, name) for tool, verb in _VERBS.items() for name in _list_values(verb)]
)
def test_a_key_is_refused_when_one_argument_differs(
    conn: Connection, root: Agent, ada: Agent, bob: Agent, tool: str, argument: str
) -> None:
    for body in ("a question", "another question"):
        posts.create(conn, root.ctx, body, to_lane="core")
    for title in ("a blocker", "another blocker"):
        tasks.create(conn, root.ctx, title)
    verb = _VERBS[tool]
    values = _list_values(verb)
    arguments = {name: value for name, (value, _) in values.items()}
    first = verb(conn, root.ctx, **arguments, idempotency_key="k")
    with assert_refused(conn, "key_reuse"):
        verb(conn, root.ctx, **{**arguments, argument: values[argument][1]}, idempotency_key="k")
    assert verb(conn, root.ctx, **arguments, idempotency_key="k") == first
