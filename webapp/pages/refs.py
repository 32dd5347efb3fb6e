"""References: everything in a project about one reference, such as PR-142 or ADR-49."""

from dataclasses import dataclass

from flask import render_template, request
from flask_wtf import FlaskForm

from bus import limits
from bus.coordination import conversations, leases, ledger, posts, references, task_queries
from bus.coordination.conversations import DeliveryProgress
from bus.coordination.leases import LiveLease
from bus.coordination.ledger import Event
from bus.coordination.posts import Post
from bus.coordination.task_queries import Task
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError
from webapp.blueprints import NavItem, ProjectBlueprint, current_project
from webapp.caller import current_caller
from webapp.context import connection
from webapp.forms import optional_text_field
from webapp.rich_text import link_targets

blueprint = ProjectBlueprint("refs", tab=NavItem("References", 66, "link", is_secondary=True))

_MAX_ITEMS = 30


class RefForm(FlaskForm):  # type: ignore[misc]
    """The reference to look up."""

    class Meta:
        """Sent with GET, so it needs no CSRF token."""

        csrf = False

    ref = optional_text_field("Reference", limits.MAX_REF_LENGTH, description="A PR, a commit, a number, a path.")


@dataclass(frozen=True, slots=True)
class RefContents:
    """What a project has about one reference.

    Attributes:
        claims: claims of the number that it names.
        handoffs: posts with this reference or with its address, newest first.
        tasks: tasks that were shipped with it.
        leases: live leases that overlap it, if it is a path.
    """

    claims: list[Event]
    handoffs: list[Post]
    progress: dict[int, DeliveryProgress]
    tasks: list[Task]
    leases: list[LiveLease]


@blueprint.get("/")
def index() -> str:
    """Show what there is about one reference, or list the references of recent posts."""
    form, ctx, error, contents = RefForm(request.args), current_caller(), None, None
    ref = form.ref.data
    with connection() as conn:
        recent = [] if ref else references.list_recent_refs(conn, ctx.project_id)
        try:
            contents = _collect(conn, ctx, ref) if ref else None
        except BusError as refusal:
            error = refusal.message
    return render_template(
        "refs/index.html",
        project=current_project(),
        form=form,
        ref=ref,
        address=link_targets().find_address(ref) if ref else None,
        contents=contents,
        recent=recent,
        error=error,
    )


def _collect(conn: Connection, ctx: Ctx, ref: str) -> RefContents:
    targets = link_targets()
    number = targets.find_number(ref)
    claims = []
    if number is not None:
        claims = ledger.query_events(conn, ctx, sequence=number[0], number=number[1], limit=_MAX_ITEMS).events
    # Some callers write the short form, some the address.
    names = dict.fromkeys([ref, targets.find_address(ref) or ref])
    names = {name: None for name in names if len(name) <= limits.MAX_REF_LENGTH}
    handoffs: list[Post] = []
    task_ids: list[int] = []
    for name in names:
        handoffs += posts.list_posts(conn, ctx, ref=name, limit=_MAX_ITEMS).posts
        shipped = ledger.query_events(conn, ctx, ref=name, type="task_ship", limit=_MAX_ITEMS).events
        task_ids += [event.payload["task_id"] for event in shipped]
    handoffs = sorted(handoffs, key=lambda post: -post.post_id)[:_MAX_ITEMS]
    overlapping: list[LiveLease] = []
    if references.is_path(ref):
        overlapping = leases.list_leases(conn, ctx, surface=ref, limit=_MAX_ITEMS).leases
    return RefContents(
        claims=claims,
        handoffs=handoffs,
        progress=conversations.get_delivery_progress(conn, ctx, [post.post_id for post in handoffs]),
        tasks=task_queries.list_tasks(conn, ctx, task_ids=task_ids, limit=_MAX_ITEMS).tasks if task_ids else [],
        leases=overlapping,
    )
