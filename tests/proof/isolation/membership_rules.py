"""Rules for the people of a project: the other tenant joins, acts with a role, brings agents, leaves, or has no role.

Agents of a member call the tools by the rules of tools, and members act in the web by the rules of accounts.
"""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from bus.coordination import posts
from bus.notifications import invite_mails
from bus.tenancy import invite_redemption, invites, memberships, owner_participation, participations, tokens
from bus.tenancy.invite_redemption import Acceptor
from tests.proof.isolation import model_acts, model_memberships, model_posts, model_tools
from tests.proof.isolation.account_rules import AccountRules
from tests.proof.isolation.model import Caller, Participation, PersonInvite, Project, Refused, Tenant
from tests.proof.isolation.tool_rules import LABELS, LANES, NUMBERS, TENANTS

_ROLE_NAMES = ("viewer", "member", "lead")
_ROLES = st.sampled_from(_ROLE_NAMES)
_READS = (
    "list_participants",
    "list_sequences",
    "list_tasks",
    "query_events",
    "read_posts",
    "whats_new",
    "who_holds",
    "who_is_active",
    "whoami",
)
# What changes a participant: of the acting owner, of one whose role it manages, or of any if it owns the project.
_MANAGEMENT = ("participations.remove", "participations.set_lane", "participations.set_admin", "tokens.revoke_all")


def _guest_of(tenant: Tenant) -> str:
    return f"guest@{tenant.handle}.example.org"


class MembershipRules(AccountRules):
    """Rules of memberships: a role gives what the model states, and without one the project does not exist."""

    def _acting(self, tenant: Tenant, is_other: bool) -> Tenant:
        return self.other(tenant) if is_other else tenant

    @initialize(
        roles=st.tuples(*[st.sampled_from((None, *_ROLE_NAMES))] * 2), labels=st.tuples(*[st.sampled_from(LABELS)] * 2)
    )
    def begin_with_members(self, roles: tuple[str | None, ...], labels: tuple[str, ...]) -> None:
        """Most examples begin with members who post, and may have an agent with the same name as one of the owner."""
        for t, (role, label) in enumerate(zip(roles, labels, strict=True)):
            if role is not None:
                self.invite_person(t, 0, role, False)
                self.accept_invite(t, 0, 0, True, False)
                self.add_agent(t, 0, label, None, True)
                self.write_as_person(1 - t, 0)

    @rule(t=TENANTS, p=NUMBERS, role=_ROLES, is_other=st.booleans())
    def invite_person(self, t: int, p: int, role: str, is_other: bool) -> None:
        acting = self._acting(self.tenants[t], is_other)
        invite = self._act_in_project(
            t,
            p,
            "invites.create_for_person",
            lambda project: model_memberships.create_invite(project, role, acting),
            lambda conn, project: invites.create_for_person(
                conn, project.id, role, acting_owner_id=acting.owner_id, actor=acting.handle
            ),
            acting=acting,
        )
        project = self._project(self.tenants[t], p)
        if invite is not None and project is not None:
            project.person_invites[invite.id] = PersonInvite(invite.code, role, acting)

    @rule(t=TENANTS, p=NUMBERS, is_other=st.booleans())
    def mail_person_invite(self, t: int, p: int, is_other: bool) -> None:
        """An invite for an address of this tenant's guest; or one of the other tenant's, which does not exist here."""
        tenant, own = self.tenants[t], self._project(self.tenants[t], p)
        if own is None or own.is_archived or tenant.is_suspended:
            return
        foreign = [number for project in self.other(tenant).projects for number in project.person_invites]
        invite_id = foreign[0] if is_other and foreign else 0
        if not is_other:
            invite = self._act_in_project(
                t,
                p,
                "invites.create_for_person",
                lambda _: None,
                lambda conn, project: invites.create_for_person(
                    conn,
                    project.id,
                    "viewer",
                    email=_guest_of(tenant),
                    acting_owner_id=tenant.owner_id,
                    actor="owner",
                ),
            )
            invite_id = invite.id
            own.person_invites[invite_id] = PersonInvite(invite.code, "viewer", tenant, _guest_of(tenant))

        def expect(_: Project) -> str:
            if is_other:
                raise Refused("not_found")
            tenant.mailed_invites += 1
            return "queued" if tenant.mailed_invites <= invite_mails.MAX_PER_ADDRESS else "limit"

        self._act_in_project(
            t,
            p,
            "invite_mails.queue",
            expect,
            lambda conn, project: invite_mails.queue(conn, project.id, invite_id, giver_id=tenant.owner_id),
        )

    @rule(t=TENANTS, p=NUMBERS, which=NUMBERS, is_other=st.booleans(), is_guest=st.booleans())
    def accept_invite(self, t: int, p: int, which: int, is_other: bool, is_guest: bool) -> None:
        """The other tenant joins; an owner with a role keeps it, and the invite is not used."""
        tenant, own = self.tenants[t], self._project(self.tenants[t], p)
        acceptor = self._acting(tenant, is_other)
        email = _guest_of(tenant if is_guest else acceptor)
        codes = [] if own is None else list(own.person_invites.values())
        invite = codes[-1 - which % len(codes)] if codes else None
        code = "inv_unknown" if invite is None else invite.code
        joined = self._act_in_project(
            t,
            p,
            "invite_redemption.accept_as_person",
            lambda project: model_memberships.accept(project, invite, acceptor, email),
            lambda conn, _: invite_redemption.accept_as_person(
                conn, code, acceptor.owner_id, Acceptor(acceptor.handle, frozenset({email}))
            ),
            acting=acceptor,
        )
        if joined is not None and own is not None:
            ctx = owner_participation.find_owner_context(self.conn, acceptor.owner_id, own.id)
            participation = own.own_participation(acceptor)
            assert ctx is not None
            assert participation.id in (0, ctx.participation_id)
            participation.id = ctx.participation_id

    @rule(t=TENANTS, p=NUMBERS, which=NUMBERS, is_other=st.booleans())
    def revoke_person_invite(self, t: int, p: int, which: int, is_other: bool) -> None:
        acting = self._acting(self.tenants[t], is_other)
        own = self._project(self.tenants[t], p)
        ids = [] if own is None else list(own.person_invites)
        invite_id = ids[-1 - which % len(ids)] if ids else 0
        self._act_in_project(
            t,
            p,
            "invites.revoke_for_person",
            lambda project: model_memberships.revoke_invite(project, invite_id, acting),
            lambda conn, project: invites.revoke_for_person(
                conn, project.id, invite_id, acting_owner_id=acting.owner_id, actor=acting.handle
            ),
            acting=acting,
        )

    @rule(t=TENANTS, p=NUMBERS, role=_ROLES, is_other=st.booleans(), is_of_other=st.booleans())
    def change_role(self, t: int, p: int, role: str, is_other: bool, is_of_other: bool) -> None:
        acting, target = self._acting(self.tenants[t], is_other), self._acting(self.tenants[t], is_of_other)
        self._act_in_project(
            t,
            p,
            "memberships.set_role",
            lambda project: model_memberships.set_role(project, target, role, acting),
            lambda conn, project: memberships.set_role(
                conn, project.id, target.owner_id, role, acting_owner_id=acting.owner_id, actor=acting.handle
            ),
            acting=acting,
        )
        self._compare_participations(t, p)

    @rule(t=TENANTS, p=NUMBERS, is_other=st.booleans(), is_of_other=st.booleans())
    def remove_person(self, t: int, p: int, is_other: bool, is_of_other: bool) -> None:
        """A member leaves or is removed; the owner stays, and for those without a role the project does not exist."""
        acting, target = self._acting(self.tenants[t], is_other), self._acting(self.tenants[t], is_of_other)
        self._act_in_project(
            t,
            p,
            "memberships.remove",
            lambda project: model_memberships.remove(project, target, acting),
            lambda conn, project: memberships.remove(
                conn, project.id, target.owner_id, acting_owner_id=acting.owner_id, actor=acting.handle
            ),
            acting=acting,
        )
        self._compare_participations(t, p)

    def _compare_participations(self, t: int, p: int) -> None:
        """Compare what a change of a role leaves: who is present, who is project-admin, and who has tokens."""
        project = self._project(self.tenants[t], p)
        if project is None:
            return
        rows = self.conn.fetch_all(
            "SELECT p.id, p.is_admin, count(t.id) FROM participation p"
            " JOIN participant pt ON pt.id = p.participant_id AND pt.removed_at IS NULL"
            " LEFT JOIN token t ON t.participation_id = p.id AND t.revoked_at IS NULL"
            " WHERE p.project_id = %s AND p.removed_at IS NULL GROUP BY p.id",
            (project.id,),
        )
        present = [each for each in project.participations if each.is_present]
        expected = [(each.id, each.is_admin, sum(token.is_live for token in each.tokens)) for each in present]
        assert sorted(rows) == sorted(expected)

    @rule(
        t=TENANTS,
        p=NUMBERS,
        label=st.sampled_from((*LABELS, "{other}")),
        lane=st.one_of(st.none(), LANES),
        is_other=st.booleans(),
    )
    def add_agent(self, t: int, p: int, label: str, lane: str | None, is_other: bool) -> None:
        """An owner with a role brings an agent of its own; one without a role finds no project."""
        tenant = self.tenants[t]
        host, name = self._acting(tenant, is_other), self.name(tenant, label)

        def expect(project: Project) -> None:
            model_memberships.lock_as_member(project, host)
            model_tools.join(project, name, host=host, lane=lane)

        self._act_in_project(
            t,
            p,
            "participations.join",
            expect,
            lambda conn, project: participations.join(
                conn, project.id, name, lane=lane, member_id=host.owner_id, actor=host.handle
            ),
            sent=name,
            acting=host,
        )

    def _act_on_participation_as(
        self, t: int, p: int, who: int, acting: Tenant, what: str, expect: Any, call: Any
    ) -> None:
        """Act on a participation of a project in which the acting owner has a role."""
        tenant = self.tenants[t]
        project = self._project(tenant, p)
        if project is not None and project.role(acting) is not None:
            participation_id, participation = self._participation_id(tenant, project, who)
            self.act(
                acting,
                what,
                lambda: expect(project, participation),
                lambda conn: call(conn, project.id, participation_id),
                project=project,
            )

    @rule(t=TENANTS, p=NUMBERS, who=NUMBERS, is_other=st.booleans(), what=st.sampled_from(_MANAGEMENT))
    def manage_participant(self, t: int, p: int, who: int, is_other: bool, what: str) -> None:
        acting = self._acting(self.tenants[t], is_other)
        authority: dict[str, Any] = {"acting_owner_id": acting.owner_id, "actor": acting.handle}

        def expect(project: Project, participation: Participation | None) -> None:
            if what == "participations.set_admin" and acting is not project.tenant:
                raise Refused("forbidden")
            grants = what == "participations.set_lane"
            holder = model_acts.get_token_holder(project, participation, grants=grants)
            if what != "participations.set_admin":
                model_memberships.require_authority(project, holder, acting)
            if what == "participations.remove":
                model_acts.remove_participation(project, holder)
            elif what == "participations.set_lane":
                model_acts.set_lane(project, holder, "docs")
            elif what == "participations.set_admin":
                model_acts.set_admin(project, holder, False)
            else:
                model_tools.revoke_all(project, holder)

        calls = {
            "participations.remove": lambda conn, project_id, who_id: participations.remove(
                conn, project_id, who_id, **authority
            ),
            "participations.set_lane": lambda conn, project_id, who_id: participations.set_lane(
                conn, project_id, who_id, "docs", **authority
            ),
            "participations.set_admin": lambda conn, project_id, who_id: participations.set_admin(
                conn, project_id, who_id, False, **authority
            ),
            "tokens.revoke_all": lambda conn, project_id, who_id: tokens.revoke_all(
                conn, project_id, who_id, **authority
            ),
        }
        self._act_on_participation_as(t, p, who, acting, what, expect, calls[what])

    @rule(t=TENANTS, p=NUMBERS, who=NUMBERS, is_other=st.booleans(), is_rotated=st.booleans())
    def give_token_to_agent(self, t: int, p: int, who: int, is_other: bool, is_rotated: bool) -> None:
        """Only its own owner gives an agent a token."""
        acting = self._acting(self.tenants[t], is_other)

        def expect(project: Project, participation: Participation | None) -> None:
            holder = model_memberships.get_own_agent(project, participation, acting)
            (model_tools.rotate if is_rotated else model_tools.issue_token)(project, holder)

        give = tokens.rotate if is_rotated else tokens.add
        self._act_on_participation_as(
            t,
            p,
            who,
            acting,
            "tokens.rotate" if is_rotated else "tokens.add",
            expect,
            lambda conn, project_id, who_id: give(
                conn, project_id, who_id, member_id=acting.owner_id, actor=acting.handle
            ),
        )

    @rule(t=TENANTS, p=NUMBERS, which=NUMBERS, is_other=st.booleans())
    def revoke_token_of_agent(self, t: int, p: int, which: int, is_other: bool) -> None:
        tenant = self.tenants[t]
        project, acting = self._project(tenant, p), self._acting(tenant, is_other)
        if project is None or project.role(acting) is None:
            return
        own = {token.id: each for each in project.participations for token in each.tokens}
        token_id = self.pick(list(own), [token.id for token in self.other(tenant).tokens], which)

        def expect() -> bool:
            if token_id in own:
                model_memberships.require_authority(project, own[token_id], acting)
            return model_acts.revoke_token(project, token_id)

        self.act(
            acting,
            "tokens.revoke",
            expect,
            lambda conn: tokens.revoke(
                conn, project.id, token_id, acting_owner_id=acting.owner_id, actor=acting.handle
            ),
            project=project,
        )

    @rule(t=TENANTS, p=NUMBERS, is_other=st.booleans(), name=st.sampled_from(_READS))
    def read_as_person(self, t: int, p: int, is_other: bool, name: str) -> None:
        """What a person reads in the web: all of the project with any role, and nothing without one."""
        project = self._project(self.tenants[t], p)
        if project is not None:
            self.read_in_web(self._acting(self.tenants[t], is_other), project, name)

    @rule(t=TENANTS, which=NUMBERS)
    def write_as_person(self, t: int, which: int) -> None:
        """A member posts in the web, and a viewer may not."""
        acting = self.tenants[t]
        joined = [project for project in acting.joined_projects if project.role(acting) and not project.is_purged]
        if not joined:
            return
        project = joined[which % len(joined)]
        own, body = project.own_participation(acting), f"{project.secret} of a person"
        ctx = owner_participation.find_owner_context(self.conn, acting.owner_id, project.id)
        assert ctx is not None

        def expect() -> None:
            model_posts.post(project, Caller(own, None), body, to_lane="core")

        self.act(
            acting, "posts.create", expect, lambda conn: posts.create(conn, ctx, body, to_lane="core"), project=project
        )
