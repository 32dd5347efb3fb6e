"""A rule for each act of owners and operators in the web. Ids are drawn from both tenants."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from bus.coordination import leases
from bus.db import Connection
from bus.operations import project_purge
from bus.tenancy import (
    invite_redemption,
    invites,
    participants,
    participation_queries,
    participations,
    projects,
    ref_patterns,
    tokens,
)
from tests.proof.isolation import model_acts, model_tools
from tests.proof.isolation.machine import Machine, iterate_other_ids
from tests.proof.isolation.model import Participant, Participation, Project, Refused, Tenant
from tests.proof.isolation.tool_rules import LABELS, LANES, NAMES, NUMBERS, TENANTS

_PROJECT_NAMES = st.sampled_from(("apollo", "gemini"))
_LABELS = st.sampled_from(LABELS)
_MAX_PROJECTS = 2


class ActRules(Machine):
    """Rules of acts. Where a page has loaded the project of the owner, so has the rule."""

    def _project(self, tenant: Tenant, number: int) -> Project | None:
        found = tenant.open_projects
        return found[number % len(found)] if found else None

    def _project_of_person(self, tenant: Tenant, number: int) -> Project | None:
        """Choose a project of the tenant, or one in which it has a role."""
        found = [project for project in self._list_projects(tenant) if not project.is_purged]
        return found[number % len(found)] if found else None

    def _participation_id(self, tenant: Tenant, project: Project, number: int) -> tuple[int, Participation | None]:
        """Choose the id of a participation: of the project, of other projects, or of none."""
        own = [each.id for each in project.participations]
        others = [
            each.id
            for other in (*self.other(tenant).open_projects, *tenant.open_projects)
            if other is not project
            for each in other.participations
        ]
        chosen = self.pick(own, others, number)
        return chosen, next((each for each in project.participations if each.id == chosen), None)

    def _participant_id(self, tenant: Tenant, number: int) -> tuple[int, Participant | None]:
        own = [each.id for each in tenant.participants]
        chosen = self.pick(own, [each.id for each in self.other(tenant).participants], number)
        return chosen, next((each for each in tenant.participants if each.id == chosen), None)

    def _act_in_project(
        self,
        t: int,
        p: int,
        what: str,
        expect: Callable[[Project], Any],
        call: Callable[[Connection, Project], Any],
        sent: str = "",
        acting: Tenant | None = None,
    ) -> Any:
        """Act in a project of a tenant, as its owner or as another one."""
        tenant = self.tenants[t]
        project = self._project(tenant, p)
        if project is None:
            return None
        return self.act(
            acting or tenant,
            what,
            lambda: expect(project),
            lambda conn: call(conn, project),
            sent=sent,
            project=project,
        )

    @rule(t=TENANTS, name=_PROJECT_NAMES)
    def add_project_of_owner(self, t: int, name: str) -> None:
        tenant = self.tenants[t]
        if len(tenant.open_projects) < _MAX_PROJECTS:
            added = self.act(
                tenant,
                "projects.add",
                lambda: model_acts.add_project(tenant, name),
                lambda conn: projects.add(conn, tenant.owner_id, name, actor=tenant.handle),
            )
            if added is not None:
                self.act(
                    tenant,
                    "owner_participation.get_or_create_owner_context",
                    lambda: None,
                    lambda conn: self.add_project(tenant, added.id, name),
                )

    @rule(t=TENANTS, p=NUMBERS, name=_PROJECT_NAMES)
    def rename_project(self, t: int, p: int, name: str) -> None:
        self._act_in_project(
            t,
            p,
            "projects.rename",
            lambda project: model_acts.rename_project(project, name),
            lambda conn, project: projects.rename(conn, project.id, name, actor="owner"),
        )

    @rule(t=TENANTS, p=NUMBERS)
    def archive(self, t: int, p: int) -> None:
        self._act_in_project(
            t,
            p,
            "projects.archive",
            model_acts.archive,
            lambda conn, project: projects.archive(conn, project.id, actor="owner"),
        )

    @rule(t=TENANTS, p=NUMBERS)
    def reopen(self, t: int, p: int) -> None:
        self._act_in_project(
            t,
            p,
            "projects.reopen",
            model_acts.reopen,
            lambda conn, project: projects.reopen(conn, project.id, actor="owner"),
        )

    @rule(t=TENANTS, p=NUMBERS, ignores_case=st.booleans())
    def save_settings(self, t: int, p: int, ignores_case: bool) -> None:
        def expect(project: Project) -> None:
            project.ignores_case = ignores_case

        def call(conn: Connection, project: Project) -> None:
            address = f"alarm@{project.tenant.handle}.example.org"
            settings = replace(
                projects.get_settings(conn, project.id), case_insensitive_paths=ignores_case, escalation_email=address
            )
            projects.set_settings(conn, project.id, settings, actor="owner")
            leases.fold_live_leases(conn, project.id)

        self._act_in_project(t, p, "projects.set_settings", expect, call)

    @rule(t=TENANTS, p=NUMBERS, pattern=st.sampled_from(("PR-(.)", "CVE-(.)")))
    def add_ref_pattern(self, t: int, p: int, pattern: str) -> None:
        def expect(project: Project) -> None:
            if pattern in project.ref_patterns:
                raise Refused("conflict")
            project.ref_patterns.add(pattern)

        self._act_in_project(
            t,
            p,
            "ref_patterns.add_pattern",
            expect,
            lambda conn, project: ref_patterns.add_pattern(
                conn, project.id, pattern, "https://example.org/$1", actor="owner"
            ),
        )

    @rule(t=TENANTS, p=NUMBERS, pattern=st.sampled_from(("PR-(.)", "CVE-(.)")))
    def remove_ref_pattern(self, t: int, p: int, pattern: str) -> None:
        self._act_in_project(
            t,
            p,
            "ref_patterns.remove_pattern",
            lambda project: project.ref_patterns.discard(pattern),
            lambda conn, project: ref_patterns.remove_pattern(conn, project.id, pattern, actor="owner"),
        )

    @rule(t=TENANTS, p=NUMBERS, is_meant=st.integers(0, 3))
    def delete_project(self, t: int, p: int, is_meant: int) -> None:
        def call(conn: Connection, project: Project) -> None:
            assert project_purge.begin_purge(conn, project.id, actor="owner")
            while not project_purge.purge_step(conn, project.id):
                pass

        # Rarely, so that tenants have projects most of the time.
        if is_meant == 0:
            self._act_in_project(t, p, "project_purge.begin_purge", model_acts.delete_project, call)

    @rule(t=TENANTS, label=_LABELS)
    def create_participant(self, t: int, label: str) -> None:
        tenant = self.tenants[t]
        participant_id = self.act(
            tenant,
            "participants.create",
            lambda: model_acts.create_participant(tenant, label) and None,
            lambda conn: participants.create(conn, tenant.owner_id, label, actor="owner"),
        )
        if participant_id is not None:
            tenant.participants[-1].id = participant_id

    @rule(t=TENANTS, who=NUMBERS, label=_LABELS)
    def rename_participant(self, t: int, who: int, label: str) -> None:
        tenant = self.tenants[t]
        participant_id, participant = self._participant_id(tenant, who)
        self.act(
            tenant,
            "participants.rename",
            lambda: model_acts.rename_participant(tenant, participant, label),
            lambda conn: participants.rename(conn, tenant.owner_id, participant_id, label, actor="owner"),
            joined=tenant.joined_projects,
        )

    @rule(t=TENANTS, who=NUMBERS, is_meant=st.booleans())
    def remove_participant(self, t: int, who: int, is_meant: bool) -> None:
        tenant = self.tenants[t]
        participant_id, participant = self._participant_id(tenant, who)

        def call(conn: Connection) -> None:
            # As the page does, which leaves each project first.
            for project in model_acts.list_projects(tenant):
                own = participation_queries.find_of_participant(conn, project.id, participant_id)
                if own is not None and not own.is_owner:
                    participations.remove(conn, project.id, own.id, actor="owner")
            participants.remove(conn, tenant.owner_id, participant_id, actor="owner")

        if is_meant:
            self.act(
                tenant,
                "participants.remove",
                lambda: model_acts.remove_participant(tenant, participant),
                call,
                joined=tenant.joined_projects,
            )

    @rule(t=TENANTS, p=NUMBERS, label=NAMES, lane=st.one_of(st.none(), LANES), is_admin=st.booleans())
    def join_project(self, t: int, p: int, label: str, lane: str | None, is_admin: bool) -> None:
        name = self.name(self.tenants[t], label)

        def expect(project: Project) -> None:
            model_acts.lock(project)
            model_tools.join(project, name, lane=lane, is_admin=is_admin)

        self._act_in_project(
            t,
            p,
            "participations.join",
            expect,
            lambda conn, project: participations.join(
                conn, project.id, name, lane=lane, is_admin=is_admin, actor="owner"
            ),
            sent=name,
        )

    def _act_on_participation(
        self,
        t: int,
        p: int,
        who: int,
        what: str,
        expect: Callable[[Project, Participation | None], Any],
        call: Callable[[Connection, int, int], Any],
    ) -> None:
        tenant = self.tenants[t]
        project = self._project(tenant, p)
        if project is not None:
            participation_id, participation = self._participation_id(tenant, project, who)
            self.act(
                tenant,
                what,
                lambda: expect(project, participation),
                lambda conn: call(conn, project.id, participation_id),
                project=project,
            )

    @rule(t=TENANTS, p=NUMBERS, who=NUMBERS)
    def remove_participation(self, t: int, p: int, who: int) -> None:
        self._act_on_participation(
            t,
            p,
            who,
            "participations.remove",
            model_acts.remove_participation,
            lambda conn, project_id, who_id: participations.remove(conn, project_id, who_id, actor="owner"),
        )

    @rule(t=TENANTS, p=NUMBERS, who=NUMBERS, is_admin=st.booleans())
    def set_admin(self, t: int, p: int, who: int, is_admin: bool) -> None:
        self._act_on_participation(
            t,
            p,
            who,
            "participations.set_admin",
            lambda project, participation: model_acts.set_admin(project, participation, is_admin),
            lambda conn, project_id, who_id: participations.set_admin(
                conn, project_id, who_id, is_admin, actor="owner"
            ),
        )

    @rule(t=TENANTS, p=NUMBERS, who=NUMBERS, lane=st.one_of(st.none(), LANES))
    def set_lane(self, t: int, p: int, who: int, lane: str | None) -> None:
        self._act_on_participation(
            t,
            p,
            who,
            "participations.set_lane",
            lambda project, participation: model_acts.set_lane(project, participation, lane),
            lambda conn, project_id, who_id: participations.set_lane(conn, project_id, who_id, lane, actor="owner"),
        )

    @rule(t=TENANTS, p=NUMBERS, who=NUMBERS)
    def add_token(self, t: int, p: int, who: int) -> None:
        def expect(project: Project, participation: Participation | None) -> None:
            model_tools.issue_token(project, model_acts.get_own_token_holder(project, participation))

        self._act_on_participation(
            t,
            p,
            who,
            "tokens.add",
            expect,
            lambda conn, project_id, who_id: tokens.add(conn, project_id, who_id, actor="owner"),
        )

    @rule(t=TENANTS, p=NUMBERS, who=NUMBERS)
    def rotate_token(self, t: int, p: int, who: int) -> None:
        def expect(project: Project, participation: Participation | None) -> None:
            model_tools.rotate(project, model_acts.get_own_token_holder(project, participation))

        self._act_on_participation(
            t,
            p,
            who,
            "tokens.rotate",
            expect,
            lambda conn, project_id, who_id: tokens.rotate(conn, project_id, who_id, actor="owner"),
        )

    @rule(t=TENANTS, p=NUMBERS, who=NUMBERS)
    def revoke_all_tokens(self, t: int, p: int, who: int) -> None:
        def expect(project: Project, participation: Participation | None) -> None:
            model_tools.revoke_all(project, model_acts.get_token_holder(project, participation, grants=False))

        self._act_on_participation(
            t,
            p,
            who,
            "tokens.revoke_all",
            expect,
            lambda conn, project_id, who_id: tokens.revoke_all(conn, project_id, who_id, actor="owner"),
        )

    @rule(t=TENANTS, p=NUMBERS, which=NUMBERS)
    def revoke_token(self, t: int, p: int, which: int) -> None:
        tenant = self.tenants[t]
        project = self._project(tenant, p)
        if project is not None:
            own = [token.id for each in project.participations for token in each.tokens]
            token_id = self.pick(own, [token.id for token in self.other(tenant).tokens], which)
            self.act(
                tenant,
                "tokens.revoke",
                lambda: model_acts.revoke_token(project, token_id),
                lambda conn: tokens.revoke(conn, project.id, token_id, actor="owner"),
                project=project,
            )

    @rule(
        t=TENANTS,
        p=NUMBERS,
        label=st.sampled_from((None, *LABELS)),
        who=st.one_of(st.none(), NUMBERS),
        uses=st.sampled_from((1, 1, 2)),
    )
    def create_invite_as_owner(self, t: int, p: int, label: str | None, who: int | None, uses: int) -> None:
        tenant = self.tenants[t]
        participant_id, participant = (None, None) if who is None else self._participant_id(tenant, who)
        created: list[Any] = []

        def expect(project: Project) -> None:
            created.append(model_acts.create_invite(project, label, participant, who is not None, uses))

        invite = self._act_in_project(
            t,
            p,
            "invites.create_for_owner",
            expect,
            lambda conn, project: invites.create_for_owner(
                conn, project.id, participant_name=label, participant_id=participant_id, uses=uses, actor="owner"
            ),
        )
        project = self._project(tenant, p)
        if invite is not None and project is not None:
            created[0].id, created[0].code = invite.id, invite.code
            project.invites[invite.id] = created[0]

    @rule(t=TENANTS, p=NUMBERS, which=NUMBERS)
    def revoke_invite(self, t: int, p: int, which: int) -> None:
        tenant = self.tenants[t]
        project = self._project(tenant, p)
        if project is not None:
            invite_id = self.pick(list(project.invites), list(iterate_other_ids(self.other(tenant), "invites")), which)
            self.act(
                tenant,
                "invites.revoke",
                lambda: model_acts.revoke_invite(project, invite_id),
                lambda conn: invites.revoke(conn, project.id, invite_id, actor="owner"),
            )

    @rule(t=TENANTS, which=NUMBERS, label=_LABELS)
    def redeem_invite(self, t: int, which: int, label: str) -> None:
        tenant = self.tenants[t]
        candidates = [(project, invite) for project in tenant.projects for invite in project.invites.values()]
        if candidates:
            project, invite = candidates[-1 - which % len(candidates)]
            self.act(
                tenant,
                "invite_redemption.redeem",
                lambda: model_acts.redeem(project, invite, label) and None,
                lambda conn: invite_redemption.redeem(conn, invite.code, name=label),
                project=project,
            )
