"""The beginning of each example: two owners with the same names, and more of everything in the second project."""

from collections.abc import Callable
from typing import Any

from bus.billing import metering
from bus.db import Connection, Database, shared_secret_keys
from bus.notifications import mail_addresses
from bus.rules.token_format import fingerprint
from bus.tenancy import invite_queries, owner_participation, owners, participations, projects, tokens
from tests.proof.isolation import model_posts, model_tasks, model_tools
from tests.proof.isolation.bus_calls import TOOLS, call_tool
from tests.proof.isolation.fingerprints import Fingerprints, take_fingerprints
from tests.proof.isolation.model import Caller, Participant, Participation, Project, Tenant

_HANDLES_AND_SECRETS = (("acme", "orchid"), ("zeta", "walnut"))
Beginning = tuple[list[Tenant], Fingerprints]
TOOL_MODELS: dict[str, Callable[..., dict[str, Any]]] = {
    name: function
    for module in (model_tools, model_posts, model_tasks)
    for name, function in vars(module).items()
    if name in TOOLS
}
# Calls by caller. "{secret}" marks whose text it is.
_CALLS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("bob", "register", {"lane": "core", "status": "{secret}"}),
    ("ada", "claim", {"sequence": "adr", "note": "{secret}", "idempotency_key": "k1"}),
    ("ada", "post", {"body": "{secret} 0", "to_lane": "core", "ref": "PR-1", "tag": "t1", "idempotency_key": "k2"}),
    ("bob", "post", {"body": "{secret} 1", "to_actor": "ada"}),
    ("bob", "lease", {"surface": "src/a.py", "note": "{secret}"}),
    ("ada", "task_create", {"title": "{secret} 0"}),
    ("ada", "task_start", {"task_id": 1}),
    ("bob", "task_create", {"title": "{secret} 1", "blocked_on": [1], "owner": "bob"}),
    ("ada", "create_invite", {"uses": 2}),
)
# Only of the second tenant, so that it has ids that the first one has not.
_MORE_CALLS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("ada", "claim", {"sequence": "adr", "note": "{secret}"}),
    ("bob", "task_create", {"title": "{secret} 2", "priority": 0}),
    ("bob", "task_create", {"title": "{secret} 3", "owner": "ada"}),
    ("bob", "post", {"body": "{secret} 2", "to_lane": "docs", "to_actor": "ada", "ref": "PR-2", "tag": "t2"}),
    ("ada", "ack", {"post_ids": [4]}),
    ("ada", "lease", {"surface": "docs", "mode": "shared"}),
)


def create_beginning(database: Database) -> Beginning:
    """Create both tenants in an empty database; return the model and the fingerprints."""
    with database.transaction() as conn:
        metering.set_metering_enabled(conn, True)
        # Made at its first use, by any tenant.
        shared_secret_keys.get_or_create_key(conn, mail_addresses._KEY_NAME)
        tenants = [_create_tenant(conn, handle, secret) for handle, secret in _HANDLES_AND_SECRETS]
        for tenant, calls in zip(tenants, (_CALLS, (*_CALLS, *_MORE_CALLS)), strict=True):
            for label, name, arguments in calls:
                _call(conn, tenant, label, name, arguments)
    with database.connection() as conn:
        return tenants, take_fingerprints(conn)


def _create_tenant(conn: Connection, handle: str, secret: str) -> Tenant:
    owner = owners.add(conn, f"{handle}@example.org", handle=handle, actor="cli")
    tenant = Tenant(owner.id, handle, secret)
    project = add_project(conn, tenant, projects.add(conn, owner.id, "apollo", actor=handle).id, "apollo")
    for label, is_admin in (("ada", True), ("bob", False)):
        participation = model_tools.join(project, label, is_admin=is_admin)
        issued = participations.join(conn, project.id, label, is_admin=is_admin, actor=handle)
        learn(conn, project, {"token": issued.token})
        assert participation.id == issued.participation_id
    return tenant


def _call(conn: Connection, tenant: Tenant, label: str, name: str, arguments: dict[str, Any]) -> None:
    token = next(token for token in tenant.tokens if token.participation.participant.label == label)
    sent = {
        argument: value.format(secret=tenant.projects[0].secret) if isinstance(value, str) else value
        for argument, value in arguments.items()
    }
    TOOL_MODELS[name](tenant.projects[0], Caller(token.participation, token), **sent)
    answer = call_tool(conn, token.text, name, sent)
    assert answer.code is None, answer
    learn(conn, tenant.projects[0], answer.content)


def add_project(conn: Connection, tenant: Tenant, project_id: int, name: str) -> Project:
    """Add a new project with the owner's own participation, as the page does."""
    project = Project(project_id, tenant, name, tenant.next_secret())
    tenant.projects.append(project)
    ctx = owner_participation.get_or_create_owner_context(conn, tenant.owner_id, project_id)
    own = next((each for each in tenant.participants if each.label == ""), None)
    if own is None:
        own = Participant(tenant, ctx.participant_id, "", "human", names={""})
        tenant.participants.append(own)
    project.participations.append(Participation(ctx.participation_id, project, own, is_admin=True))
    return project


def learn(conn: Connection, project: Project, content: dict[str, Any]) -> None:
    """Take over what only the bus knows: a new token with its ids, or a new invite."""
    if "token" in content:
        (token,) = (token for each in project.participations for token in each.tokens if not token.text)
        ctx = tokens.find_caller(conn, fingerprint(content["token"]))
        assert ctx is not None
        assert ctx.project_id == project.id
        token.text, token.id = content["token"], ctx.token_id or 0
        participation = token.participation
        assert participation.id in (0, ctx.participation_id)
        participation.id, participation.participant.id = ctx.participation_id, ctx.participant_id
    if 0 in project.invites:
        invite = project.invites.pop(0)
        invite.id = invite_queries.list_invites(conn, project.id, limit=1)[0].id
        invite.code = content["code"]
        project.invites[invite.id] = invite
