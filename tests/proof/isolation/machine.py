"""The base of the state machine: two tenants in one transaction, and the judgement of each step."""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar
from unittest import mock

from hypothesis.stateful import RuleBasedStateMachine

from bus.coordination import long_poll
from bus.db import Connection, Database
from bus.operations import integrity_checks
from bus.tenancy import owner_participation, participations
from tests.assertions import assert_ledger_consistent, list_event_types
from tests.proof.isolation.beginning import TOOL_MODELS, Beginning, add_project, learn
from tests.proof.isolation.bus_calls import TOOLS, Answer, call_as, call_tool, run, without_numbers, without_times
from tests.proof.isolation.fingerprints import NO_PROJECT, Scope, take_fingerprints
from tests.proof.isolation.model import Caller, Participation, Project, Refused, Tenant, Token

# Offers of tasks and turns in the queue for a surface last longer than any run, so that the model needs no clock.
_NEVER = 86_400.0
_SECRET_FIELDS = frozenset({"token", "setup", "code", "redeem_url", "invite_prompt"})
# Values with which payloads say nothing; answers leave some of them out.
_SILENT_VALUES = (("reply_to", None), ("recipients", 1), ("mode", "exclusive"), ("contended", 0))
_ID_ARGUMENTS = frozenset({"post_id", "reply_to", "task_id", "on"})
UNKNOWN_ID = 1_000_000
ANY_PROJECT = -1


class Machine(RuleBasedStateMachine):
    """Runs one example inside a transaction, which is rolled back at its end.

    Attributes:
        database: the database; set on a subclass.
        beginning: what it holds when an example begins.
        counts: how many examples and steps ran, and which rules.
    """

    database: ClassVar[Database]
    beginning: ClassVar[Beginning]
    counts: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.conn: Connection = self._stack.enter_context(self.database.connection())
        self._stack.enter_context(self.conn.raw.transaction(force_rollback=True))
        for constant in ("TASK_OFFER_SECONDS", "LEASE_GRACE_SECONDS"):
            self._stack.enter_context(mock.patch.object(long_poll, constant, _NEVER))
        self.tenants, self._before = copy.deepcopy(self.beginning)
        self._count("examples")

    def teardown(self) -> None:
        """Compare ledgers and balances with the model, and roll back."""
        try:
            for tenant in self.tenants:
                for project in tenant.open_projects:
                    assert list_event_types(self.conn, project.id) == [event.type for event in project.events]
                    assert_ledger_consistent(self.conn, project.id)
                    assert integrity_checks.check_project(self.conn, project.id) == []
            assert integrity_checks.check_accounts(self.conn) == []
        finally:
            self._stack.close()

    def other(self, tenant: Tenant) -> Tenant:
        return self.tenants[1 - self.tenants.index(tenant)]

    def pick_token(self, tenant: Tenant, number: int) -> Token | None:
        """Choose a token, mostly a live one."""
        live = [token for token in tenant.tokens if token.is_live and not token.participation.project.is_purged]
        candidates = live if live and number < 8 else tenant.tokens
        return candidates[number % len(candidates)] if candidates else None

    def pick(self, own: list[int], others: list[int], number: int) -> int:
        """Choose an id: of the caller, of the other tenant, or of none."""
        if number < 6 and own:
            return own[-1 - number % len(own)]
        return others[-1 - number % len(others)] if number < 9 and others else UNKNOWN_ID

    def name(self, tenant: Tenant, template: str) -> str:
        return template.format(own=tenant.handle, other=self.other(tenant).handle)

    def tool(self, tenant: Tenant, token: Token | None, name: str, **arguments: Any) -> None:
        """Call a tool in the bus and in the model, and judge the answer and the change of the database."""
        if token is None:
            return
        self._count(f"tool {name}")
        caller, project = Caller(token.participation, token), token.participation.project
        sent = {
            argument: value.replace("{secret}", project.secret) if isinstance(value, str) else value
            for argument, value in arguments.items()
            if value is not None
        }
        expected = self._expect(lambda: TOOL_MODELS[name](project, caller, **sent))
        if isinstance(expected, dict):
            expected |= self._expect_unread(project, caller.participation, name, expected)
        answer = call_tool(self.conn, token.text, name, sent)
        scopes = set()
        if not TOOLS[name].annotations.get("readOnlyHint"):
            scopes.add((project.tenant.owner_id, project.id))
        if TOOLS[name].admin_only:
            # What concerns an agent of a member is in the audit log of the member, too.
            scopes |= {(project.tenant.owner_id, NO_PROJECT), *_scopes_of_members(project)}
        self._judge(tenant, (name, sent), expected, answer, scopes, [project])
        if answer.code is None:
            self._learn(project, answer.content)
        elif answer.code in ("not_found", "unknown_recipient"):
            self._compare_with_unknown(tenant, token, name, sent, answer)

    def read_in_web(self, tenant: Tenant, project: Project, name: str) -> None:
        """Read with a tool as an owner without a token, who needs a role in the project, and judge the answer."""
        self._count("read as person")
        if project.role(tenant) is None:
            answer = run(
                self.conn, lambda: owner_participation.find_owner_context(self.conn, tenant.owner_id, project.id) and {}
            )
            self._judge(tenant, (name, "without a role"), Refused("not_found"), answer, set(), [])
            return
        own = project.own_participation(tenant)
        expected = self._expect(lambda: TOOL_MODELS[name](project, Caller(own, None)))
        if isinstance(expected, dict):
            expected |= self._expect_unread(project, own, name, expected)
        ctx = owner_participation.find_owner_context(self.conn, tenant.owner_id, project.id)
        assert ctx is not None
        # Only the cursor of a digest moves.
        may_change = {(project.tenant.owner_id, project.id)} if name == "whats_new" else set()
        self._judge(tenant, (name, ""), expected, call_as(self.conn, ctx, name, {}), may_change, [project])

    def act(
        self,
        tenant: Tenant,
        what: str,
        expect: Callable[[], Any],
        call: Callable[[Connection], Any],
        *,
        sent: str = "",
        project: Project | None = None,
        joined: Sequence[Project] = (),
    ) -> Any:
        """Run an act of an owner or an operator in the bus and in the model, and judge it.

        Args:
            what: its name, for the report.
            expect: changes the model; its result is compared unless it is None.
            sent: names that are sent, which a refusal may repeat.
            project: where the tenant acts, and a new participation is learned; None for an act on its account.
            joined: projects of the other tenant that the act may change.
        Returns:
            The result of the engine; None if the act was refused.
        """
        self._count(f"act {what}")
        seen = self._list_projects(tenant) if project is None else [project] if project.role(tenant) else []
        expected = self._expect(expect)
        scopes = {scope for each in (project, *joined) if each is not None for scope in _scopes_of(each)}
        if project is None or project.tenant is tenant:
            scopes.add((tenant.owner_id, ANY_PROJECT))
        else:
            scopes |= {(tenant.owner_id, NO_PROJECT), (tenant.owner_id, project.id)}
        if not isinstance(expected, Refused):
            expected = None if expected is None else {"result": expected}
        result: Any = None

        def call_and_keep() -> Any:
            nonlocal result
            result = call(self.conn)
            return result if expected else {}

        answer = run(self.conn, call_and_keep)
        self._judge(tenant, (what, sent), expected, answer, scopes, seen)
        if answer.code is not None:
            return None
        if project is not None and isinstance(result, participations.IssuedParticipation):
            self._learn(project, {"token": result.token})
        return result

    def _judge(
        self,
        tenant: Tenant,
        call: Any,
        expected: Any,
        answer: Answer,
        may_change: set[Scope],
        seen: Sequence[Project],
    ) -> None:
        """Judge an answer and the change of the database.

        Args:
            may_change: the scopes that may change, unless the call was refused.
            seen: the projects of which the answer may have texts and names.
        """
        context = (tenant.handle, call, expected, answer)
        if isinstance(expected, Refused):
            assert answer.code == expected.code, context
        elif expected is not None:
            assert answer.code is None, context
            assert _comparable(answer.content) == _comparable(expected), context
        else:
            assert answer.code is None, context
        after = take_fingerprints(self.conn)
        for scope in {*self._before, *after}:
            is_allowed = scope in may_change or (scope[0], ANY_PROJECT) in may_change
            if answer.code is not None or not is_allowed:
                assert self._before.get(scope) == after.get(scope), (scope, context)
        self._before = after
        other, sent = self.other(tenant), repr(call)
        shown = answer.text + json.dumps(answer.content, default=repr)
        traces = [project.secret for each in self.tenants for project in each.projects if project not in seen]
        if tenant.find_participant(other.handle) is None and not any(project.knows(other) for project in seen):
            # An owner may give a participant a label that is the handle of another owner.
            traces.append(other.handle)
        for trace in traces:
            assert trace in sent or trace not in shown, (trace, context)

    def _expect(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Refused as refused:
            return refused

    def _expect_unread(
        self, project: Project, me: Participation, name: str, expected: dict[str, Any]
    ) -> dict[str, int]:
        reports = TOOLS[name].reports_unread and (name != "wait_for" or expected.get("kind") in ("acks", "task"))
        unread = project.unread(me) if reports else 0
        return {"_unread_posts": unread} if unread else {}

    def _learn(self, project: Project, content: dict[str, Any]) -> None:
        learn(self.conn, project, content)

    def _compare_with_unknown(
        self, tenant: Tenant, token: Token, name: str, sent: dict[str, Any], answer: Answer
    ) -> None:
        """What exists only at the other tenant is answered like what exists nowhere."""
        handle, project = self.other(tenant).handle, token.participation.project
        # Unless the handle is known in the project, or the label of a participant there.
        is_named = any(handle in each.participant.names for each in project.participations)
        is_unknown = not is_named and not project.knows(self.other(tenant))
        twin = {
            argument: value + UNKNOWN_ID
            if argument in _ID_ARGUMENTS and self._is_foreign(token, argument, value)
            else value.replace(handle, "none")
            if isinstance(value, str) and is_unknown
            else value
            for argument, value in sent.items()
        }
        if twin != sent:
            unknown = call_tool(self.conn, token.text, name, twin)
            text = answer.text.replace(handle, "none") if is_unknown else answer.text
            assert (unknown.code, without_numbers(unknown.text)) == (answer.code, without_numbers(text)), (
                sent,
                answer,
                unknown,
            )

    def _is_foreign(self, token: Token, argument: str, value: int) -> bool:
        project = token.participation.project
        return value not in (project.posts if argument in ("post_id", "reply_to") else project.tasks)

    def add_project(self, tenant: Tenant, project_id: int, name: str) -> Project:
        """Add a new project to the model, with the owner's own participation."""
        return add_project(self.conn, tenant, project_id, name)

    def _list_projects(self, tenant: Tenant) -> list[Project]:
        """The projects of a tenant, and those in which it has a role."""
        return tenant.projects + [project for project in self.other(tenant).open_projects if project.role(tenant)]

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


def _scopes_of(project: Project) -> set[Scope]:
    return {(project.tenant.owner_id, project.id), *_scopes_of_members(project)}


def _scopes_of_members(project: Project) -> set[Scope]:
    """Where what concerns members is in their own audit logs."""
    return {(tenant.owner_id, project.id) for tenant in project.former_people}


def _comparable(value: Any) -> Any:
    """Return an answer without times, secrets and the values with which payloads say nothing."""
    if isinstance(value, dict):
        return {
            name: {key: each for key, each in payload.items() if (key, each) not in _SILENT_VALUES}
            if name == "payload"
            else _comparable(payload)
            for name, payload in without_times(value).items()
            if name not in _SECRET_FIELDS
        }
    return [_comparable(each) for each in value] if isinstance(value, list) else value


def iterate_other_ids(tenant: Tenant, attribute: str) -> Iterator[int]:
    """Yield the ids of a kind in all open projects of a tenant, such as its posts."""
    for project in tenant.open_projects:
        yield from getattr(project, attribute)
