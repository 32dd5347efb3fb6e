"""Rules for acts on an owner's account, and for what an owner does in a project as one of its participants."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from bus.auth import sessions
from bus.billing import credits, metering
from bus.coordination import leases, posts, task_edits, tasks
from bus.coordination.task_edits import TaskTexts
from bus.ctx import Ctx
from bus.db import Connection
from bus.notifications import mail_addresses, outbox
from bus.tenancy import owner_participation, owners, share_links
from tests.proof.isolation import model_acts, model_posts, model_tasks, model_tools
from tests.proof.isolation.act_rules import ActRules
from tests.proof.isolation.machine import iterate_other_ids
from tests.proof.isolation.model import Caller, Project, Refused
from tests.proof.isolation.tool_rules import NAMES, NUMBERS, TENANTS


class AccountRules(ActRules):
    """Rules of the account, and of the owner as caller: it has no token and acts under its handle."""

    @rule(t=TENANTS, p=st.one_of(st.none(), NUMBERS))
    def add_webhook(self, t: int, p: int | None) -> None:
        tenant = self.tenants[t]
        project = None if p is None else self._project(tenant, p)
        webhook = self.act(
            tenant,
            "outbox.add_webhook",
            lambda: model_acts.require_active(tenant),
            lambda conn: outbox.add_webhook(
                conn,
                tenant.owner_id,
                "https://example.org/",
                project_id=None if project is None else project.id,
                actor="owner",
            ),
        )
        if webhook is not None:
            tenant.webhooks.add(webhook.id)
            if project is not None:
                project.webhooks.add(webhook.id)

    @rule(t=TENANTS, which=NUMBERS)
    def remove_webhook(self, t: int, which: int) -> None:
        tenant = self.tenants[t]
        webhook_id = self.pick(sorted(tenant.webhooks), sorted(self.other(tenant).webhooks), which)

        def expect() -> None:
            if webhook_id not in tenant.webhooks:
                raise Refused("not_found")
            tenant.webhooks.remove(webhook_id)

        self.act(
            tenant,
            "outbox.remove_webhook",
            expect,
            lambda conn: outbox.remove_webhook(conn, tenant.owner_id, webhook_id, actor="owner"),
        )

    @rule(t=TENANTS, amount=st.integers(1, 2), reference=st.sampled_from(("r-1", "r-2")))
    def add_credits(self, t: int, amount: int, reference: str) -> None:
        tenant = self.tenants[t]
        is_new = reference not in tenant.payments
        entry = self.act(
            tenant,
            "credits.add_credits",
            lambda: model_acts.add_credits(tenant, amount, reference),
            lambda conn: credits.add_credits(conn, tenant.owner_id, amount, reference=reference, actor="operator"),
        )
        if entry is not None and is_new:
            tenant.balance += amount
            assert entry.balance == tenant.balance

    @rule(t=TENANTS, plan=st.sampled_from(("free", "team", "comped")), threshold=st.integers(0, 3))
    def set_plan(self, t: int, plan: str, threshold: int) -> None:
        tenant = self.tenants[t]
        for what, call in (
            ("credits.set_plan", lambda conn: credits.set_plan(conn, tenant.owner_id, plan, actor="operator")),
            (
                "credits.set_low_balance",
                lambda conn: credits.set_low_balance(conn, tenant.owner_id, threshold, actor="owner"),
            ),
        ):
            account = self.act(tenant, what, lambda: None, call)
            assert account.balance == tenant.balance

    @rule(t=TENANTS, p=NUMBERS)
    def bill(self, t: int, p: int) -> None:
        self._act_in_project(
            t,
            p,
            "metering.bill_batch",
            lambda project: project.bill(),
            lambda conn, project: metering.bill_batch(conn, project.id),
        )
        account = credits.find_account(self.conn, self.tenants[t].owner_id)
        assert (account.balance if account else 0) == self.tenants[t].balance

    @rule(t=TENANTS, is_suspended=st.sampled_from((True, False, False)))
    def suspend(self, t: int, is_suspended: bool) -> None:
        tenant = self.tenants[t]

        def expect() -> bool:
            changed = tenant.is_suspended != is_suspended
            tenant.is_suspended = is_suspended
            return changed

        def call(conn: Connection) -> bool:
            if is_suspended:
                return owners.suspend(conn, tenant.owner_id, reason="abuse", actor="operator")
            return owners.lift_suspension(conn, tenant.owner_id, actor="operator")

        self.act(tenant, "owners.suspend" if is_suspended else "owners.lift_suspension", expect, call)

    def _call_as_owner(
        self,
        t: int,
        p: int,
        what: str,
        expect: Callable[[Project, Caller], Any],
        call: Callable[[Connection, Ctx], Any],
        sent: str = "",
    ) -> None:
        tenant = self.tenants[t]
        project = self._project_of_person(tenant, p)
        if project is not None:
            own = project.own_participation(tenant)
            ctx = owner_participation.find_owner_context(self.conn, tenant.owner_id, project.id)
            assert ctx is not None
            assert ctx.participation_id == own.id

            def expect_refusal_only() -> None:
                expect(project, Caller(own, None))

            self.act(tenant, what, expect_refusal_only, lambda conn: call(conn, ctx), sent=sent, project=project)

    def _secret(self, t: int, p: int) -> str:
        project = self._project_of_person(self.tenants[t], p)
        return "" if project is None else project.secret

    def _ids(self, t: int, p: int, attribute: str, number: int, *, is_own: bool = False) -> int:
        """Choose an id in the project in which a person acts; `is_own`: in a project of the tenant."""
        tenant = self.tenants[t]
        project = self._project(tenant, p) if is_own else self._project_of_person(tenant, p)
        own = [] if project is None else sorted(getattr(project, attribute))
        return self.pick(own, sorted(iterate_other_ids(self.other(tenant), attribute)), number)

    @rule(t=TENANTS, p=NUMBERS, to=NAMES, reply=st.one_of(st.none(), NUMBERS))
    def post_as_owner(self, t: int, p: int, to: str, reply: int | None) -> None:
        tenant = self.tenants[t]
        name, body = self.name(tenant, to), f"{self._secret(t, p)} from the owner"
        reply_to = None if reply is None else self._ids(t, p, "posts", reply)
        self._call_as_owner(
            t,
            p,
            "posts.create",
            lambda project, caller: model_posts.post(project, caller, body, to_actor=name, reply_to=reply_to),
            lambda conn, ctx: posts.create(conn, ctx, body, to_actor=name, reply_to=reply_to),
            name,
        )

    @rule(t=TENANTS, p=NUMBERS, post=NUMBERS)
    def ack_as_owner(self, t: int, p: int, post: int) -> None:
        post_id = self._ids(t, p, "posts", post)
        self._call_as_owner(
            t,
            p,
            "posts.ack",
            lambda project, caller: model_posts.ack(project, caller, [post_id]),
            lambda conn, ctx: posts.ack(conn, ctx, [post_id]),
        )

    @rule(t=TENANTS, p=NUMBERS, to=st.one_of(st.none(), NAMES))
    def create_task_as_owner(self, t: int, p: int, to: str | None) -> None:
        tenant = self.tenants[t]
        name, title = None if to is None else self.name(tenant, to), f"{self._secret(t, p)} of the owner"
        self._call_as_owner(
            t,
            p,
            "tasks.create",
            lambda project, caller: model_tasks.task_create(project, caller, title, owner=name),
            lambda conn, ctx: tasks.create(conn, ctx, title, owner=name),
            name or "",
        )

    @rule(t=TENANTS, p=NUMBERS, task=NUMBERS, to=NAMES)
    def assign_task_as_owner(self, t: int, p: int, task: int, to: str) -> None:
        name, task_id = self.name(self.tenants[t], to), self._ids(t, p, "tasks", task)
        self._call_as_owner(
            t,
            p,
            "tasks.assign",
            lambda project, caller: model_tasks.task_assign(project, caller, task_id, name),
            lambda conn, ctx: tasks.assign(conn, ctx, task_id, name),
            name,
        )

    @rule(t=TENANTS, p=NUMBERS, task=NUMBERS)
    def resolve_task_as_owner(self, t: int, p: int, task: int) -> None:
        task_id = self._ids(t, p, "tasks", task)
        self._call_as_owner(
            t,
            p,
            "tasks.resolve",
            lambda project, caller: model_tasks.task_resolve(project, caller, task_id),
            lambda conn, ctx: tasks.resolve(conn, ctx, task_id),
        )

    @rule(t=TENANTS, p=NUMBERS, task=NUMBERS)
    def start_task_as_owner(self, t: int, p: int, task: int) -> None:
        task_id = self._ids(t, p, "tasks", task)
        self._call_as_owner(
            t,
            p,
            "tasks.start",
            lambda project, caller: model_tasks.task_start(project, caller, task_id),
            lambda conn, ctx: tasks.start(conn, ctx, task_id),
        )

    @rule(t=TENANTS, p=NUMBERS, task=NUMBERS)
    def ship_task_as_owner(self, t: int, p: int, task: int) -> None:
        task_id = self._ids(t, p, "tasks", task)
        self._call_as_owner(
            t,
            p,
            "tasks.ship",
            lambda project, caller: model_tasks.task_ship(project, caller, task_id),
            lambda conn, ctx: tasks.ship(conn, ctx, task_id),
        )

    @rule(t=TENANTS, p=NUMBERS, task=NUMBERS, lane=st.sampled_from((None, "core")), priority=st.integers(0, 4))
    def edit_task_as_owner(self, t: int, p: int, task: int, lane: str | None, priority: int) -> None:
        task_id, title = self._ids(t, p, "tasks", task), f"{self._secret(t, p)} edited"
        self._call_as_owner(
            t,
            p,
            "task_edits.edit",
            lambda project, caller: model_tasks.edit(project, caller, task_id, title, lane, priority),
            lambda conn, ctx: task_edits.edit(conn, ctx, task_id, TaskTexts(title, None, lane, priority)),
        )

    @rule(t=TENANTS, p=NUMBERS, lease=NUMBERS)
    def release_by_force(self, t: int, p: int, lease: int) -> None:
        fence = self._ids(t, p, "fences", lease)

        def expect(project: Project, caller: Caller) -> None:
            model_tools.authorize_admin(project, caller)
            model_acts.force_release(project, caller.participation, fence)

        self._call_as_owner(
            t, p, "leases.force_release", expect, lambda conn, ctx: leases.force_release(conn, ctx, fence)
        )

    @rule(t=TENANTS, p=NUMBERS)
    def create_share_link(self, t: int, p: int) -> None:
        def expect(project: Project) -> None:
            if project.is_archived:
                raise Refused("forbidden")
            model_acts.require_active(project.tenant)

        link = self._act_in_project(
            t,
            p,
            "share_links.create",
            expect,
            lambda conn, project: share_links.create(conn, project.id, ttl_hours=1, actor="owner"),
        )
        project = self._project(self.tenants[t], p)
        if link is not None and project is not None:
            project.share_links[link.id] = True
            board = share_links.find_shared_board(self.conn, link.token)
            assert board is not None
            assert (board.project_id, board.owner) == (project.id, self.tenants[t].handle)

    @rule(t=TENANTS, p=NUMBERS, link=NUMBERS)
    def revoke_share_link(self, t: int, p: int, link: int) -> None:
        link_id = self._ids(t, p, "share_links", link, is_own=True)

        def expect(project: Project) -> bool:
            if link_id not in project.share_links:
                raise Refused("not_found")
            was_valid = project.share_links[link_id]
            project.share_links[link_id] = False
            return was_valid

        self._act_in_project(
            t,
            p,
            "share_links.revoke",
            expect,
            lambda conn, project: share_links.revoke(conn, project.id, link_id, actor="owner"),
        )

    @rule(t=TENANTS)
    def request_mail_confirmation(self, t: int) -> None:
        tenant = self.tenants[t]
        address = f"alarm@{tenant.handle}.example.org"

        def expect() -> None:
            if tenant.has_requested_mail:
                raise Refused("conflict")
            tenant.has_requested_mail = True

        self.act(
            tenant,
            "mail_addresses.request_confirmation",
            expect,
            lambda conn: mail_addresses.request_confirmation(conn, tenant.owner_id, address, actor="owner"),
        )
        assert mail_addresses.find(self.conn, self.other(tenant).owner_id, address) is None

    @rule(t=TENANTS, which=st.integers(0, 9), is_new=st.booleans())
    def end_session(self, t: int, which: int, is_new: bool) -> None:
        tenant = self.tenants[t]
        if is_new:
            self.act(
                tenant,
                "sessions.open_session",
                lambda: None,
                lambda conn: sessions.open_session(conn, tenant.owner_id, method="link", ttl=timedelta(hours=1)),
            )
            listed = sessions.list_sessions(self.conn, tenant.owner_id, idle_timeout=timedelta(hours=1))
            tenant.sessions = {session.id for session in listed}
            return
        session_id = self.pick(sorted(tenant.sessions), sorted(self.other(tenant).sessions), which)
        was_open = session_id in tenant.sessions
        tenant.sessions.discard(session_id)
        self.act(
            tenant,
            "sessions.end_session",
            lambda: was_open,
            lambda conn: sessions.end_session(conn, tenant.owner_id, session_id),
        )

    @rule(t=TENANTS)
    def end_all_sessions(self, t: int) -> None:
        tenant = self.tenants[t]
        tenant.sessions.clear()
        self.act(
            tenant,
            "sessions.end_all_sessions",
            lambda: None,
            lambda conn: sessions.end_all_sessions(conn, tenant.owner_id, actor="owner"),
        )
        listed = sessions.list_sessions(self.conn, self.other(tenant).owner_id, idle_timeout=timedelta(hours=1))
        assert {session.id for session in listed} == self.other(tenant).sessions
