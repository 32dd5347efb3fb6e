"""The inbox: what waits for an answer in all projects of the owner. The first page after signing in."""

from dataclasses import dataclass

from flask import Response, request
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import HiddenField, TextAreaField
from wtforms.validators import Length

from bus import agent_guide, limits
from bus.coordination import dashboard, inbox, onboarding, surfacing
from bus.coordination.inbox import InboxPost
from bus.tenancy import memberships
from webapp import identity
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OwnerBlueprint, render_page
from webapp.context import connection
from webapp.pagination import current_url, query_int

blueprint = OwnerBlueprint("inbox", url_prefix="/admin", nav_item=NavItem("Inbox", 10, "inbox"))


@dataclass(frozen=True, slots=True)
class InboxList:
    """A list of the inbox: its name in addresses and its label."""

    state: str
    label: str


_DEFAULT_STATE = "unanswered"
_LISTS = (
    InboxList("for-you", "For you"),
    InboxList("unanswered", "Unanswered"),
    InboxList("overdue", "Overdue"),
    InboxList("blocked", "Blocked"),
    InboxList("conflicts", "Conflicts"),
)
_POST_LISTS = {"for-you": "for_me", "unanswered": "unanswered", "overdue": "overdue"}


class ReplyForm(FlaskForm):  # type: ignore[misc]
    """A reply in place; the view of the handoff receives it."""

    body = TextAreaField("Reply", validators=[Length(max=limits.MAX_BODY_LENGTH)])
    to_actor = HiddenField()
    ref = HiddenField()
    next = HiddenField()


@blueprint.get("/")
def index() -> str | Response | BaseResponse:
    """Show one list: what is overdue first, then from the oldest on."""
    owner, project_id = current_owner(), query_int("project")
    state = request.args.get("state", "")
    state = state if state in {item.state for item in _LISTS} else _DEFAULT_STATE
    identity.set_page_context(owner.handle, frozenset())
    with connection() as conn:
        projects = dashboard.list_recent_names(conn, owner.id, limit=50)
        steps = onboarding.get_first_steps(conn, owner.id)
        if not steps.is_complete and not request.args and not memberships.has_memberships(conn, owner.id):
            return render_page(
                "inbox/welcome.html", part="inbox/_steps.html", steps=steps, prompts=agent_guide.FIRST_PROMPTS
            )
        counts = inbox.get_counts(conn, owner.id, project_id=project_id)
        items: list[InboxPost] = []
        if state in _POST_LISTS:
            items = inbox.list_posts(conn, owner.id, _POST_LISTS[state], project_id=project_id)
            new = {
                (item.project_id, item.my_participation_id, item.post_id): 0.0
                for item in items
                if item.is_new_to_me and item.my_participation_id is not None
            }
            if new:
                surfacing.mark_surfaced(conn, new)
        blocked = inbox.list_blocked_tasks(conn, owner.id, project_id=project_id) if state == "blocked" else []
        conflicts = inbox.list_conflicts(conn, owner.id, project_id=project_id) if state == "conflicts" else []
        tokens = dashboard.list_expiring_tokens(conn, owner.id, project_id=project_id)
        is_empty = not (items or blocked or conflicts)
        last_ack = inbox.find_last_ack(conn, owner.id) if is_empty and state == _DEFAULT_STATE else None
    numbers = {
        "For you": counts.for_me,
        "Unanswered": counts.unanswered,
        "Overdue": counts.overdue,
        "Blocked": counts.blocked,
        "Conflicts": counts.conflicts,
    }
    return render_page(
        "inbox/index.html",
        part="inbox/_list.html",
        state=state,
        lists=[(item.label, _list_url(item.state), item.state == state) for item in _LISTS],
        counts={label: number for label, number in numbers.items() if number},
        projects=projects,
        project_name=dict(projects).get(project_id) if project_id else None,
        items=items,
        is_cut=len(items) == inbox.MAX_ITEMS,
        blocked=blocked,
        conflicts=conflicts,
        tokens=tokens,
        last_ack=last_ack,
        current_url=current_url(reply=None),
        reply_key=request.args.get("reply"),
        reply_url=_reply_url,
        reply_form=_build_reply_form,
    )


def _list_url(state: str) -> str:
    return current_url(state=None if state == _DEFAULT_STATE else state, reply=None)


def _reply_url(item: InboxPost) -> str:
    """The address at which the item's form for a reply is open. A fragment would keep the form from its autofocus."""
    return current_url(reply=f"{item.project_id}-{item.post_id}")


def _build_reply_form(item: InboxPost) -> ReplyForm:
    return ReplyForm(formdata=None, to_actor=item.sender, ref=item.ref, next=current_url(reply=None))
