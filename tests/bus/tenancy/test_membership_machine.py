"""A state machine of people who join, act in, manage and leave one project; each step agrees with a small model."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from bus.coordination import leases, ledger, tasks
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.errors import BusError, NotAuthenticated, OwnerSuspended
from bus.rules.member_rights import has_right, managed_roles
from bus.tenancy import invite_redemption, invites, memberships, owner_participation, owners, participations, projects
from bus.tenancy.invite_redemption import Acceptor
from bus.tenancy.owners import Owner
from tests.assertions import assert_ledger_consistent
from tests.factories import authenticate_agent, join_as, make_owner, make_project

_HANDLES = ("ada", "bob", "carol", "dan")
_PEOPLE = st.integers(0, len(_HANDLES) - 1)
_ROLE_NAMES = ("viewer", "member", "lead")
_ROLES = st.sampled_from(_ROLE_NAMES)


@dataclass
class Person:
    """A person in the model; the first one owns the project."""

    owner: Owner
    role: str | None = None
    is_suspended: bool = False

    @property
    def handle(self) -> str:
        return self.owner.handle


@dataclass
class Invite:
    """An invite in the model; void once its giver is not what it was."""

    code: str
    role: str
    giver: Person
    is_void: bool = False
    is_used: bool = False


@dataclass
class MemberAgent:
    """An agent in the model, with access as long as it was not removed with its person."""

    ctx: Ctx
    person: Person
    is_there: bool = True


class People(RuleBasedStateMachine):
    """Runs one example in a transaction that is rolled back at its end."""

    database: ClassVar[Database]

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.conn: Connection = self._stack.enter_context(self.database.connection())
        self._stack.enter_context(self.conn.raw.transaction(force_rollback=True))
        self.people = [Person(make_owner(self.conn, handle)) for handle in _HANDLES]
        self.ada = self.people[0]
        self.ada.role = "owner"
        self.project = make_project(self.conn, "apollo", self.ada.owner)
        owner_participation.get_or_create_owner_context(self.conn, self.ada.owner.id, self.project.id)
        self.is_archived = False
        self.invites: list[Invite] = []
        self.agents: list[MemberAgent] = []
        # The last one is a stranger at first.
        for person, role in zip(self.people[1:], ("viewer", "lead"), strict=False):
            join_as(self.conn, self.project, person.owner, role)
            person.role = role

    def teardown(self) -> None:
        try:
            for person in self.people:
                assert memberships.find_role(self.conn, person.owner.id, self.project.id) == person.role
                live, held = self._count_held(person)
                if not has_right(person.role, "act"):
                    assert (live, held) == (0, 0), person
            listed = {member.handle: member.role for member in memberships.list_members(self.conn, self.project.id)}
            assert listed == {person.handle: person.role for person in self.people if person.role is not None}
            assert_ledger_consistent(self.conn, self.project.id)
        finally:
            self._stack.close()

    def _count_held(self, person: Person) -> tuple[int, int]:
        mine = (
            "SELECT p.id FROM participation p JOIN participant pt ON pt.id = p.participant_id WHERE pt.owner_id = %(o)s"
        )
        (live, held) = self.conn.fetch_one(
            f"SELECT (SELECT count(*) FROM token t WHERE t.participation_id IN ({mine}) AND t.revoked_at IS NULL),"
            f" (SELECT count(*) FROM lease l WHERE l.participation_id IN ({mine}) AND l.ended_at IS NULL)"
            f" + (SELECT count(*) FROM task t WHERE t.participation_id IN ({mine}) AND t.status <> 'done')",
            {"o": person.owner.id},
        )
        return live, held

    def _expect(self, is_allowed: bool, call: Callable[[], Any], *, is_outside: bool = False) -> Any:
        """Make a call; one that is refused changes nothing, and for those without a role nothing exists."""
        result, refusal = None, None
        try:
            with self.conn.raw.transaction():
                result = call()
        except (BusError, NotAuthenticated, OwnerSuspended) as error:
            refusal = error
        assert (refusal is None) == is_allowed, (refusal, result)
        if refusal is not None and is_outside:
            assert isinstance(refusal, NotAuthenticated) or getattr(refusal, "code", "") == "not_found", refusal
        return result

    def _grants_work(self, *people: Person) -> bool:
        return not (self.is_archived or any(person.is_suspended for person in (self.ada, *people)))

    def _may_take(self, by: Person, of: Person) -> bool:
        """Whether a person who manages a role may take it away: a suspended lead takes nothing from others."""
        return by is of or by is self.ada or not by.is_suspended

    def _end(self, person: Person, role: str | None) -> None:
        if person.role == "lead":
            for invite in self.invites:
                invite.is_void |= invite.giver is person and not invite.is_used
        person.role = role
        if not has_right(role, "act"):
            for agent in self.agents:
                agent.is_there &= agent.person is not person

    @rule(giver=_PEOPLE, role=_ROLES)
    def invite(self, giver: int, role: str) -> None:
        person = self.people[giver]
        created = self._expect(
            role in managed_roles(person.role) and self._grants_work(person),
            lambda: invites.create_for_person(
                self.conn, self.project.id, role, acting_owner_id=person.owner.id, actor=person.handle
            ),
            is_outside=person.role is None,
        )
        if created is not None:
            self.invites.append(Invite(created.code, role, person))

    @rule(who=_PEOPLE, which=st.integers(0, 5))
    def accept(self, who: int, which: int) -> None:
        if not self.invites:
            return
        person, invite = self.people[who], self.invites[-1 - which % len(self.invites)]
        is_open = not (invite.is_used or invite.giver.is_suspended) and self._grants_work(person)
        joined = self._expect(
            not invite.is_void and (person.role is not None or is_open),
            lambda: invite_redemption.accept_as_person(
                self.conn, invite.code, person.owner.id, Acceptor(person.handle, frozenset())
            ),
        )
        if joined is not None and person.role is None:
            person.role, invite.is_used = invite.role, True

    @rule(acting=_PEOPLE, whom=_PEOPLE, role=_ROLES)
    def change_role(self, acting: int, whom: int, role: str) -> None:
        by, of = self.people[acting], self.people[whom]
        managed = managed_roles(by.role)
        is_managed = of.role in managed if by is not of else of.role in ("viewer", "member", "lead")
        is_lower = of.role in _ROLE_NAMES[_ROLE_NAMES.index(role) :]
        changed = self._expect(
            is_managed and role in managed and self._may_take(by, of) and (is_lower or self._grants_work(of)),
            lambda: memberships.set_role(
                self.conn, self.project.id, of.owner.id, role, acting_owner_id=by.owner.id, actor=by.handle
            ),
            is_outside=by.role is None,
        )
        if changed:
            self._end(of, role)

    @rule(acting=_PEOPLE, whom=_PEOPLE)
    def remove(self, acting: int, whom: int) -> None:
        by, of = self.people[acting], self.people[whom]
        is_own = by is of and of.role in ("viewer", "member", "lead")
        is_allowed = is_own or (by is not of and of.role in managed_roles(by.role) and self._may_take(by, of))
        self._expect(
            is_allowed,
            lambda: memberships.remove(
                self.conn, self.project.id, of.owner.id, acting_owner_id=by.owner.id, actor=by.handle
            ),
            is_outside=by.role is None,
        )
        if is_allowed:
            self._end(of, None)

    @rule(who=_PEOPLE)
    def add_agent(self, who: int) -> None:
        person, label = self.people[who], f"agent-{len(self.agents)}"
        issued = self._expect(
            has_right(person.role, "act") and self._grants_work(person),
            lambda: participations.join(
                self.conn, self.project.id, label, member_id=person.owner.id, actor=person.handle
            ),
            is_outside=person.role is None,
        )
        if issued is not None:
            assert issued.actor == f"{person.handle}/{label}"
            self.agents.append(MemberAgent(authenticate_agent(self.conn, issued).ctx, person))

    @rule(which=st.integers(0, 5), is_write=st.booleans())
    def call_as_agent(self, which: int, is_write: bool) -> None:
        if self.agents:
            agent = self.agents[-1 - which % len(self.agents)]
            is_active = not (self.ada.is_suspended or agent.person.is_suspended)
            self._call(agent.ctx, is_write, agent.is_there and is_active, agent.person)

    @rule(who=_PEOPLE, is_write=st.booleans())
    def call_as_person(self, who: int, is_write: bool) -> None:
        person = self.people[who]
        if person.role is None:
            self._expect(
                False,
                lambda: owner_participation.find_owner_context(self.conn, person.owner.id, self.project.id),
                is_outside=True,
            )
            return
        ctx = owner_participation.find_owner_context(self.conn, person.owner.id, self.project.id)
        assert ctx is not None
        is_active = not is_write or not (self.ada.is_suspended or person.is_suspended)
        self._call(ctx, is_write, is_active and (not is_write or has_right(person.role, "act")), person)

    def _call(self, ctx: Ctx, is_write: bool, is_allowed: bool, person: Person) -> None:
        if not is_write:
            self._expect(is_allowed, lambda: ledger.query_events(self.conn, ctx, limit=1))
            return
        is_allowed = is_allowed and not self.is_archived

        def take_work() -> bool:
            leases.acquire(self.conn, ctx, f"src/{ctx.participation_id}.py")
            tasks.start(self.conn, ctx, tasks.create(self.conn, ctx, f"of {person.handle}").task_id)
            return True

        self._expect(is_allowed, take_work)

    @rule(who=_PEOPLE, is_suspended=st.sampled_from((True, False, False)))
    def suspend(self, who: int, is_suspended: bool) -> None:
        person = self.people[who]
        if is_suspended:
            owners.suspend(self.conn, person.owner.id, reason="abuse", actor="operator")
        else:
            owners.lift_suspension(self.conn, person.owner.id, actor="operator")
        person.is_suspended = is_suspended

    @rule(is_archived=st.sampled_from((True, False, False)))
    def archive(self, is_archived: bool) -> None:
        if is_archived:
            projects.archive(self.conn, self.project.id, actor="ada")
        elif self.ada.is_suspended:
            return
        else:
            projects.reopen(self.conn, self.project.id, actor="ada")
        self.is_archived = is_archived


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, pool_size=2)) as opened:
        yield opened


def _run(database: Database, examples: int, *, is_new: bool) -> None:
    class Machine(People):
        pass

    Machine.database = database
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            derandomize=not is_new,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_people_agree_with_the_model(database: Database) -> None:
    """The same steps each time; the next test draws new ones."""
    _run(database, 6, is_new=False)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_people_agree_with_the_model_in_new_runs(database: Database) -> None:
    _run(database, 600, is_new=True)
