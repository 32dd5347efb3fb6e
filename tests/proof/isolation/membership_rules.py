"""Rules for the people of a project: acts of its owner, and the same acts tried by the other tenant.

Roles of owners in each other's projects are in tests/bus/tenancy/test_membership_machine.py.
"""

from hypothesis import strategies as st
from hypothesis.stateful import rule

from bus.notifications import invite_mails
from bus.tenancy import invite_redemption, invites, memberships
from bus.tenancy.invite_redemption import Acceptor
from tests.proof.isolation import model_acts
from tests.proof.isolation.account_rules import AccountRules
from tests.proof.isolation.model import Project, Refused, Tenant
from tests.proof.isolation.tool_rules import NUMBERS, TENANTS

_ROLES = st.sampled_from(("viewer", "member", "lead"))


def _guest_of(tenant: Tenant) -> str:
    return f"guest@{tenant.handle}.example.org"


class MembershipRules(AccountRules):
    """Rules of memberships: for the other tenant, a project in which it has no role does not exist."""

    def _acting(self, tenant: Tenant, is_other: bool) -> Tenant:
        return self.other(tenant) if is_other else tenant

    @rule(t=TENANTS, p=NUMBERS, role=_ROLES, is_other=st.booleans())
    def invite_person(self, t: int, p: int, role: str, is_other: bool) -> None:
        acting = self._acting(self.tenants[t], is_other)

        def expect(project: Project) -> None:
            if is_other:
                raise Refused("not_found")
            model_acts.require_active(project.tenant)
            if project.is_archived:
                raise Refused("forbidden")

        invite = self._act_in_project(
            t,
            p,
            "invites.create_for_person",
            expect,
            lambda conn, project: invites.create_for_person(
                conn, project.id, role, acting_owner_id=acting.owner_id, actor="owner"
            ),
        )
        project = self._project(self.tenants[t], p)
        if invite is not None and project is not None:
            project.person_invites[invite.id] = invite.code

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
            invite_id, own.person_invites[invite.id] = invite.id, invite.code

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

    @rule(t=TENANTS, p=NUMBERS, which=NUMBERS)
    def accept_own_invite(self, t: int, p: int, which: int) -> None:
        """The owner has a role already, so the invite is not used."""
        tenant = self.tenants[t]
        codes = [] if (own := self._project(tenant, p)) is None else list(own.person_invites.values())
        code = codes[which % len(codes)] if codes else "inv_unknown"

        def expect(project: Project) -> int:
            if not codes:
                raise Refused("not_found")
            return project.id

        self._act_in_project(
            t,
            p,
            "invite_redemption.accept_as_person",
            expect,
            lambda conn, _: invite_redemption.accept_as_person(
                conn, code, tenant.owner_id, Acceptor(tenant.handle, frozenset({_guest_of(tenant)}))
            ),
        )

    @rule(t=TENANTS, p=NUMBERS, which=NUMBERS, is_other=st.booleans())
    def revoke_person_invite(self, t: int, p: int, which: int, is_other: bool) -> None:
        acting = self._acting(self.tenants[t], is_other)
        own = self._project(self.tenants[t], p)
        ids = [] if own is None else list(own.person_invites)
        invite_id = ids[which % len(ids)] if ids else 0

        def expect(project: Project) -> bool:
            if is_other or project.person_invites.pop(invite_id, None) is None:
                raise Refused("not_found")
            return True

        self._act_in_project(
            t,
            p,
            "invites.revoke_for_person",
            expect,
            lambda conn, project: invites.revoke_for_person(
                conn, project.id, invite_id, acting_owner_id=acting.owner_id, actor="owner"
            ),
        )

    @rule(t=TENANTS, p=NUMBERS, role=_ROLES, is_other=st.booleans(), is_of_other=st.booleans())
    def change_people(self, t: int, p: int, role: str, is_other: bool, is_of_other: bool) -> None:
        """Neither tenant is a member of the other's project, and its owner stays."""
        tenant = self.tenants[t]
        acting, target = self._acting(tenant, is_other), self._acting(tenant, is_of_other)

        def expect(_: Project) -> None:
            raise Refused("not_found" if is_other or is_of_other else "forbidden")

        self._act_in_project(
            t,
            p,
            "memberships.set_role",
            expect,
            lambda conn, project: memberships.set_role(
                conn, project.id, target.owner_id, role, acting_owner_id=acting.owner_id, actor="owner"
            ),
        )
        self._act_in_project(
            t,
            p,
            "memberships.remove",
            expect,
            lambda conn, project: memberships.remove(
                conn, project.id, target.owner_id, acting_owner_id=acting.owner_id, actor="owner"
            ),
        )
