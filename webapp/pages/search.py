"""Search: a page, and the palette that the script opens on every page."""

from dataclasses import dataclass

from flask import Response, request, url_for

from bus.coordination import dashboard, search
from bus.coordination.search import SearchHit, SearchResults
from bus.rules.member_rights import has_right
from bus.tenancy import memberships, projects
from webapp.auth import current_owner, viewer
from webapp.blueprints import OwnerBlueprint, render_page
from webapp.context import connection
from webapp.excerpts import build_excerpt
from webapp.pagination import current_url, query_int

blueprint = OwnerBlueprint("search", url_prefix="/search")

_ICONS = {
    "project": "folder",
    "participant": "user",
    "sequence": "hash",
    "number": "hash",
    "ref": "link",
    "event": "scroll-text",
    "task": "list-checks",
    "post": "send",
}


@dataclass(frozen=True, slots=True)
class Action:
    """Something to do or a page to open, as a result of a search."""

    label: str
    url: str
    icon: str


@blueprint.get("")
def index() -> str | Response:
    """Show what matches; without a text, recent projects and actions."""
    owner, text, project_id = current_owner(), request.args.get("q", "").strip(), query_int("project")
    results = SearchResults([], [], [])
    with connection() as conn:
        recent = dashboard.list_recent_names(conn, owner.id, limit=20)
        project_name, role = None, None
        if project_id and (role := memberships.find_role(conn, owner.id, project_id)) is not None:
            project_name = projects.get(conn, project_id).name
        if text:
            results = search.search(conn, owner.id, text, project_id=query_int("in"))
    actions = [
        action
        for action in _list_actions(project_id if project_name else None, project_name, role)
        if _matches(text, action.label)
    ]
    jumps = [Action(hit.title, _hit_url(hit), _ICONS[hit.kind]) for hit in results.named]
    return render_page(
        "search/index.html",
        part="search/_results.html",
        text=text,
        results=results,
        is_cut=max(len(results.posts), len(results.tasks)) >= search.MAX_HITS,
        jumps=list(zip(jumps, results.named, strict=True)),
        actions=actions[:8],
        recent=[] if text else recent[:8],
        scope=query_int("in"),
        everywhere=current_url(**{"in": None}) if query_int("in") else None,
        scopes=[("All projects", current_url(**{"in": None}), not query_int("in"))]
        + [(name, current_url(**{"in": str(id_)}), query_int("in") == id_) for id_, name in recent[:8]],
        hit_url=_hit_url,
        excerpt_parts=build_excerpt,
    )


def _matches(text: str, label: str) -> bool:
    return all(word in label.lower() for word in text.lower().split())


def _hit_url(hit: SearchHit) -> str:
    if hit.kind == "project":
        return url_for("board.index", project_id=hit.id)
    if hit.kind == "participant":
        return url_for("participants.show", participant_id=hit.id)
    if hit.kind == "sequence":
        return url_for("ledger.index", project_id=hit.project_id, sequence=hit.title)
    if hit.kind in ("number", "ref"):
        return url_for("refs.index", project_id=hit.project_id, ref=hit.title)
    if hit.kind == "event":
        return url_for("ledger.show", project_id=hit.project_id, seq=hit.id)
    if hit.kind == "task":
        return url_for("tasks.show", project_id=hit.project_id, task_id=hit.id)
    return url_for("handoffs.show", project_id=hit.project_id, post_id=hit.id)


def _list_actions(project_id: int | None, project_name: str | None, role: str | None) -> list[Action]:
    """What can be done: in the project of the page on which the search began, and everywhere."""
    actions = []
    if project_id is not None and has_right(role, "act"):
        actions += [
            Action(f"New handoff in {project_name}", url_for("handoffs.new", project_id=project_id), "send"),
            Action(f"New task in {project_name}", url_for("tasks.new", project_id=project_id), "list-checks"),
            Action(
                f"Add participant to {project_name}",
                url_for("project_participants.new", project_id=project_id),
                "user-plus",
            ),
        ]
    if project_id is not None and has_right(role, "manage_participants"):
        actions.append(
            Action(f"Invite people to {project_name}", url_for("memberships.index", project_id=project_id), "users")
        )
    if project_id is not None and has_right(role, "manage_project"):
        actions += [
            Action(f"Create invite to {project_name}", url_for("invites.new", project_id=project_id), "ticket"),
            Action(f"Settings of {project_name}", url_for("project_settings.index", project_id=project_id), "settings"),
        ]
    actions += [
        Action("Inbox", url_for("inbox.index"), "inbox"),
        Action("New project", url_for("projects.new"), "plus"),
        Action("All projects", url_for("projects.index"), "folder"),
        Action("Participants", url_for("participants.index"), "users"),
        Action("Audit log", url_for("audit.index"), "scroll-text"),
        Action("Account", url_for("account.index"), "user"),
        Action("Documentation", url_for("documentation.index"), "scroll-text"),
    ]
    owner = viewer()
    if owner is not None and owner.may_operate:
        actions.append(Action("Operator console", url_for("operator.index"), "shield"))
    return actions
