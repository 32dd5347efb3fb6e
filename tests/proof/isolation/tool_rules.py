"""A rule for each tool. Ids, names, cursors, keys and surfaces are drawn from both tenants."""

import dataclasses
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from bus.coordination import digest
from bus.rules.enums import EVENT_TYPES, TASK_STATUSES
from bus.rules.token_format import fingerprint
from bus.tenancy import authentication, tokens
from tests.proof.isolation.bus_calls import run
from tests.proof.isolation.machine import Machine, iterate_other_ids

LABELS = ("ada", "bob", "eve", "kim")
_NAME_TEMPLATES = (*LABELS, "{own}/ada", "{own}/kim", "{own}", "{other}/ada", "{other}/bob", "{other}")
TENANTS = st.integers(0, 1)
NUMBERS = st.integers(0, 9)
NAMES = st.sampled_from(_NAME_TEMPLATES)
LANES = st.sampled_from(("core", "docs"))
_MAYBE_LANE = st.sampled_from((None, "core", "docs"))
_MAYBE_NAME = st.one_of(st.none(), NAMES)
_REFS = st.sampled_from((None, "PR-1", "PR-2"))
_TAGS = st.sampled_from((None, "t1", "t2"))
_KEYS = st.sampled_from((None, None, "k1", "k2"))
_SEQUENCES = st.sampled_from(("adr", "mig"))
_SURFACES = st.sampled_from(("src", "src/a.py", "src/*.py", "docs", "**/*.md"))
_MAYBE_SURFACE = st.one_of(st.none(), _SURFACES)
_MAYBE_NUMBER = st.one_of(st.none(), NUMBERS)
_LIMITS = st.integers(1, 15)
_SINCE = st.one_of(st.none(), st.integers(0, 40))
_BEFORE = st.one_of(st.none(), st.integers(1, 40))


_SEARCHES = st.sampled_from((None, None, "{own}", "{other}", "1", "owner", "{own} edited"))


class ToolRules(Machine):
    """Rules of the tools, named `tool_` and the tool's name."""

    def _call(self, t: int, caller: int, name: str, **arguments: Any) -> None:
        tenant = self.tenants[t]
        self.tool(tenant, self.pick_token(tenant, caller), name, **arguments)

    def _text(self, number: int) -> str:
        """A text with the secret of the caller's project."""
        return f"{{secret}} {number}"

    def _search(self, t: int, template: str | None) -> str | None:
        """A text to search for, with the secret of the caller's project or of one of the other tenant."""
        other = self.other(self.tenants[t])
        secret = other.projects[-1].secret
        return None if template is None else template.format(own="{secret}", other=secret)

    def _maybe_name(self, t: int, template: str | None) -> str | None:
        return None if template is None else self.name(self.tenants[t], template)

    def _post_id(self, t: int, caller: int, number: int | None) -> int | None:
        return self._pick_own(t, caller, number, "posts")

    def _task_id(self, t: int, caller: int, number: int | None) -> int | None:
        return self._pick_own(t, caller, number, "tasks")

    def _pick_own(self, t: int, caller: int, number: int | None, attribute: str) -> int | None:
        if number is None:
            return None
        tenant = self.tenants[t]
        token = self.pick_token(tenant, caller)
        own = [] if token is None else list(getattr(token.participation.project, attribute))
        return self.pick(own, list(iterate_other_ids(self.other(tenant), attribute)), number)

    @rule(t=TENANTS, caller=NUMBERS)
    def tool_whoami(self, t: int, caller: int) -> None:
        self._call(t, caller, "whoami")

    @rule(t=TENANTS, caller=NUMBERS, before=_MAYBE_NAME)
    def tool_list_participants(self, t: int, caller: int, before: str | None) -> None:
        self._call(t, caller, "list_participants", before=self._maybe_name(t, before))

    @rule(
        t=TENANTS, caller=NUMBERS, advance=st.booleans(), limit=_LIMITS, since=st.one_of(st.none(), st.integers(0, 40))
    )
    def tool_whats_new(self, t: int, caller: int, advance: bool, limit: int, since: int | None) -> None:
        self._call(t, caller, "whats_new", advance_cursor=advance, limit=limit, since=since)

    @rule(
        t=TENANTS,
        caller=NUMBERS,
        lane=_MAYBE_LANE,
        to=_MAYBE_NAME,
        ref=_REFS,
        tag=_TAGS,
        reply=_MAYBE_NUMBER,
        key=_KEYS,
    )
    def tool_post(self, t: int, caller: int, lane: str | None, to: str | None, reply: int | None, **rest: Any) -> None:
        self._call(
            t,
            caller,
            "post",
            body=self._text(caller % 2),
            to_lane=lane,
            to_actor=self._maybe_name(t, to),
            ref=rest["ref"],
            tag=rest["tag"],
            reply_to=self._post_id(t, caller, reply),
            idempotency_key=rest["key"],
        )

    @rule(
        t=TENANTS,
        caller=NUMBERS,
        lane=_MAYBE_LANE,
        to_me=st.booleans(),
        tag=_TAGS,
        ref=_REFS,
        unacked=st.booleans(),
        reply=_MAYBE_NUMBER,
        text=_SEARCHES,
        before=_BEFORE,
        limit=_LIMITS,
    )
    def tool_read_posts(self, t: int, caller: int, lane: str | None, reply: int | None, **rest: Any) -> None:
        self._call(
            t,
            caller,
            "read_posts",
            to_lane=lane,
            to_me=rest["to_me"],
            tag=rest["tag"],
            ref=rest["ref"],
            unacked_only=rest["unacked"],
            reply_to=self._post_id(t, caller, reply),
            text=self._search(t, rest["text"]),
            before=rest["before"],
            limit=rest["limit"],
        )

    @rule(t=TENANTS, caller=NUMBERS, chosen=st.lists(NUMBERS, min_size=1, max_size=4))
    def read_posts_by_id(self, t: int, caller: int, chosen: list[int]) -> None:
        self._call(t, caller, "read_posts", post_ids=[self._post_id(t, caller, number) for number in chosen])

    @rule(t=TENANTS, caller=NUMBERS, chosen=st.lists(NUMBERS, min_size=1, max_size=3))
    def tool_ack(self, t: int, caller: int, chosen: list[int]) -> None:
        self._call(t, caller, "ack", post_ids=[self._post_id(t, caller, number) for number in chosen])

    @rule(
        t=TENANTS,
        caller=NUMBERS,
        actor=_MAYBE_NAME,
        type=st.one_of(st.none(), st.sampled_from(EVENT_TYPES)),
        sequence=st.one_of(st.none(), _SEQUENCES),
        number=st.one_of(st.none(), st.integers(0, 5)),
        ref=_REFS,
        tag=_TAGS,
        limit=_LIMITS,
        before=_BEFORE,
    )
    def tool_query_events(self, t: int, caller: int, actor: str | None, **filters: Any) -> None:
        self._call(t, caller, "query_events", actor=self._maybe_name(t, actor), **filters)

    @rule(t=TENANTS, caller=NUMBERS, limit=_LIMITS, before=_BEFORE)
    def query_all_events(self, t: int, caller: int, limit: int, before: int | None) -> None:
        self._call(t, caller, "query_events", limit=limit, before=before)

    @rule(t=TENANTS, caller=NUMBERS, sequence=_SEQUENCES, key=_KEYS)
    def tool_claim(self, t: int, caller: int, sequence: str, key: str | None) -> None:
        self._call(t, caller, "claim", sequence=sequence, note=self._text(0), idempotency_key=key)

    @rule(
        t=TENANTS,
        caller=NUMBERS,
        sequence=_SEQUENCES,
        current=st.integers(0, 9),
        prefix=st.sampled_from((None, "", "A-")),
        pad=st.sampled_from((None, 0, 3)),
    )
    def tool_seed_sequence(self, t: int, caller: int, **arguments: Any) -> None:
        self._call(t, caller, "seed_sequence", **arguments)

    @rule(t=TENANTS, caller=NUMBERS, before=st.one_of(st.none(), _SEQUENCES))
    def tool_latest_claims(self, t: int, caller: int, before: str | None) -> None:
        self._call(t, caller, "latest_claims", before=before)

    @rule(t=TENANTS, caller=NUMBERS, before=st.one_of(st.none(), _SEQUENCES))
    def tool_list_sequences(self, t: int, caller: int, before: str | None) -> None:
        self._call(t, caller, "list_sequences", before=before)

    @rule(t=TENANTS, caller=NUMBERS, surface=_SURFACES, mode=st.sampled_from(("exclusive", "shared")))
    def tool_lease(self, t: int, caller: int, surface: str, mode: str) -> None:
        self._call(t, caller, "lease", surface=surface, mode=mode, note=self._text(caller))

    @rule(t=TENANTS, caller=NUMBERS, surface=st.one_of(_SURFACES, st.just("*")))
    def tool_release(self, t: int, caller: int, surface: str) -> None:
        self._call(t, caller, "release", surface=surface)

    @rule(t=TENANTS, caller=NUMBERS, surface=_MAYBE_SURFACE, before=_BEFORE)
    def tool_who_holds(self, t: int, caller: int, surface: str | None, before: int | None) -> None:
        self._call(t, caller, "who_holds", surface=surface, before=before)

    @rule(
        t=TENANTS,
        caller=NUMBERS,
        lane=_MAYBE_LANE,
        owner=_MAYBE_NAME,
        priority=st.sampled_from((2, 2, 0)),
        waits=st.lists(NUMBERS, max_size=2),
        key=_KEYS,
    )
    def tool_task_create(self, t: int, caller: int, lane: str | None, owner: str | None, **rest: Any) -> None:
        self._call(
            t,
            caller,
            "task_create",
            title=self._text(caller % 2),
            lane=lane,
            owner=self._maybe_name(t, owner),
            priority=rest["priority"],
            blocked_on=[self._task_id(t, caller, number) for number in rest["waits"]],
            idempotency_key=rest["key"],
        )

    @rule(t=TENANTS, caller=NUMBERS, task=NUMBERS, owner=NAMES)
    def tool_task_assign(self, t: int, caller: int, task: int, owner: str) -> None:
        name = self.name(self.tenants[t], owner)
        self._call(t, caller, "task_assign", task_id=self._task_id(t, caller, task), owner=name)

    @rule(t=TENANTS, caller=NUMBERS, task=NUMBERS)
    def tool_task_start(self, t: int, caller: int, task: int) -> None:
        self._call(t, caller, "task_start", task_id=self._task_id(t, caller, task))

    @rule(t=TENANTS, caller=NUMBERS, task=NUMBERS, on=_MAYBE_NUMBER)
    def tool_task_block(self, t: int, caller: int, task: int, on: int | None) -> None:
        task_id, on_id = self._task_id(t, caller, task), self._task_id(t, caller, on)
        self._call(t, caller, "task_block", task_id=task_id, reason=self._text(task), on=on_id)

    @rule(t=TENANTS, caller=NUMBERS, task=NUMBERS, blocker=_MAYBE_NUMBER)
    def tool_task_resolve(self, t: int, caller: int, task: int, blocker: int | None) -> None:
        task_id, blocker_id = self._task_id(t, caller, task), self._task_id(t, caller, blocker)
        self._call(t, caller, "task_resolve", task_id=task_id, blocker=blocker_id)

    @rule(t=TENANTS, caller=NUMBERS, task=NUMBERS, ref=_REFS)
    def tool_task_ship(self, t: int, caller: int, task: int, ref: str | None) -> None:
        self._call(t, caller, "task_ship", task_id=self._task_id(t, caller, task), ref=ref)

    @rule(t=TENANTS, caller=NUMBERS, lane=_MAYBE_LANE)
    def tool_task_next(self, t: int, caller: int, lane: str | None) -> None:
        self._call(t, caller, "task_next", lane=lane)

    @rule(
        t=TENANTS,
        caller=NUMBERS,
        status=st.one_of(st.none(), st.sampled_from(TASK_STATUSES)),
        owner=_MAYBE_NAME,
        lane=_MAYBE_LANE,
        ready=st.sampled_from((None, True, False)),
        text=_SEARCHES,
        before=_BEFORE,
        limit=_LIMITS,
    )
    def tool_list_tasks(self, t: int, caller: int, owner: str | None, text: str | None, **filters: Any) -> None:
        search = self._search(t, text)
        self._call(t, caller, "list_tasks", owner=self._maybe_name(t, owner), text=search, **filters)

    @rule(
        t=TENANTS,
        caller=NUMBERS,
        kind=st.sampled_from(("any", "inbox", "acks", "task", "lease")),
        surface=_MAYBE_SURFACE,
        take=st.booleans(),
    )
    def tool_wait_for(self, t: int, caller: int, kind: str, surface: str | None, take: bool) -> None:
        self._call(t, caller, "wait_for", kind=kind, surface=surface, take=take)

    @rule(t=TENANTS, caller=NUMBERS)
    def wait_for_acks(self, t: int, caller: int) -> None:
        self._call(t, caller, "wait_for", kind="acks")

    @rule(t=TENANTS, caller=NUMBERS, lane=LANES, status=st.sampled_from((0, 1)))
    def tool_register(self, t: int, caller: int, lane: str, status: int) -> None:
        self._call(t, caller, "register", lane=lane, status=self._text(status))

    @rule(t=TENANTS, caller=NUMBERS, lane=_MAYBE_LANE, before=_MAYBE_NAME)
    def tool_who_is_active(self, t: int, caller: int, lane: str | None, before: str | None) -> None:
        self._call(t, caller, "who_is_active", lane=lane, before=self._maybe_name(t, before))

    @rule(t=TENANTS, caller=NUMBERS, label=NAMES, lane=_MAYBE_LANE, is_admin=st.booleans())
    def tool_admin_provision(self, t: int, caller: int, label: str, lane: str | None, is_admin: bool) -> None:
        name = self.name(self.tenants[t], label)
        self._call(t, caller, "admin_provision", participant_name=name, lane=lane, is_admin=is_admin)

    @rule(t=TENANTS, caller=NUMBERS, name=NAMES)
    def tool_admin_rotate(self, t: int, caller: int, name: str) -> None:
        self._call(t, caller, "admin_rotate", participant_name=self.name(self.tenants[t], name))

    @rule(t=TENANTS, caller=NUMBERS, name=NAMES)
    def tool_admin_revoke(self, t: int, caller: int, name: str) -> None:
        self._call(t, caller, "admin_revoke", participant_name=self.name(self.tenants[t], name))

    @rule(
        t=TENANTS,
        caller=NUMBERS,
        label=st.sampled_from((None, None, *LABELS)),
        lane=_MAYBE_LANE,
        is_admin=st.booleans(),
        uses=st.sampled_from((1, 1, 2)),
    )
    def tool_create_invite(self, t: int, caller: int, label: str | None, **terms: Any) -> None:
        self._call(t, caller, "create_invite", participant_name=label, **terms)

    @rule(t=TENANTS, caller=NUMBERS, other_caller=NUMBERS)
    def token_of_the_other_tenant(self, t: int, caller: int, other_caller: int) -> None:
        """A participation with the token of another one is refused."""
        mine = self.pick_token(self.tenants[t], caller)
        theirs = self.pick_token(self.tenants[1 - t], other_caller)
        ctx = None if mine is None else tokens.find_caller(self.conn, fingerprint(mine.text))
        if ctx is not None and theirs is not None:
            forged = dataclasses.replace(ctx, token_id=theirs.id)
            for call in (authentication.authenticate, digest.read_digest):
                answer = run(self.conn, lambda call=call: call(self.conn, forged))
                assert answer.code == "not_authenticated", (call, forged)
