"""Handoffs: posts with their delivery state, conversations, and posts by the owner."""

from dataclasses import dataclass
from typing import Any

from flask import Response, flash, make_response, redirect, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as BaseResponse
from wtforms import BooleanField, SelectField, TextAreaField
from wtforms.validators import Length

from bus import limits
from bus.coordination import conversations, posts, surfacing
from bus.coordination.conversations import DeliveryProgress
from bus.coordination.posts import Post, PostPage
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError
from bus.rules.text_format import pluralize
from webapp.auth import current_owner
from webapp.blueprints import ID_CONVERTER, NavItem, ProjectBlueprint, current_project, render_page, requires, see_other
from webapp.caller import current_caller, record_activity
from webapp.context import connection, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import RequiredText, optional_text_field, select_choices
from webapp.login import safe_redirect_target
from webapp.pagination import current_url, query_int

blueprint = ProjectBlueprint("handoffs", tab=NavItem("Handoffs", 10, "send"))

_PAGE_SIZE = 30
_ACK_DEADLINE_CHOICES = select_choices(
    ("", "no deadline"), ("3600", "1 hour"), ("14400", "4 hours"), ("86400", "1 day")
)


class PostForm(FlaskForm):  # type: ignore[misc]
    """A new post."""

    to_actor = optional_text_field("To", limits.MAX_QUALIFIED_NAME_LENGTH, description="A participant.")
    to_lane = optional_text_field(
        "Lane",
        limits.MAX_LABEL_LENGTH,
        description="All members of the lane, including anyone who joins before it's acknowledged.",
    )
    subject = optional_text_field("Subject", limits.MAX_SUBJECT_LENGTH)
    body = TextAreaField("Message", validators=[RequiredText("Message"), Length(max=limits.MAX_BODY_LENGTH)])
    ref = optional_text_field("Reference", limits.MAX_REF_LENGTH, description="A PR, a commit, an ADR.")
    tag = optional_text_field("Tag", limits.MAX_LABEL_LENGTH)
    ack_within = SelectField("Acknowledge within", choices=_ACK_DEADLINE_CHOICES, default="")


class FilterForm(FlaskForm):  # type: ignore[misc]
    """Filters of the list."""

    class Meta:
        """Filters are sent with GET and need no CSRF token."""

        csrf = False

    to_lane = optional_text_field("Lane", limits.MAX_LABEL_LENGTH)
    ref = optional_text_field("Reference", limits.MAX_REF_LENGTH)
    tag = optional_text_field("Tag", limits.MAX_LABEL_LENGTH)
    to_me = BooleanField("To me")
    unacked = BooleanField("Unacknowledged")


@dataclass(frozen=True, slots=True)
class HandoffList:
    """A page of the list, as the list and the thread beside it show it.

    Attributes:
        filters: the active filters: label, value, and the address without it.
        chips: the quick filters: label, address, and whether it is current.
    """

    posts: list[Post]
    progress: dict[int, DeliveryProgress]
    form: FilterForm
    error: str | None
    filters: list[tuple[str, str, str]]
    chips: list[tuple[str, str, bool]]
    query: dict[str, str]
    older: str | None
    newest: str | None


@blueprint.get("/")
def index() -> str | Response:
    """List posts, newest first."""
    with connection() as conn:
        listed, new_ids = _list_handoffs(conn)
        _mark_surfaced(conn, current_caller(), new_ids)
    return render_page(
        "handoffs/index.html",
        part="handoffs/_index.html",
        project=current_project(),
        handoffs=listed,
        current_url=current_url(),
    )


def _list_handoffs(conn: Connection) -> tuple[HandoffList, list[int]]:
    """The page of the list that the address asks for, and the ids of posts that it shows to the owner first."""
    ctx, before, form = current_caller(), query_int("before"), FilterForm(request.args)
    error, page, progress = None, PostPage(), {}
    try:
        page = posts.list_posts(
            conn,
            ctx,
            to_lane=form.to_lane.data,
            to_me=form.to_me.data,
            tag=form.tag.data,
            ref=form.ref.data,
            unacked_only=form.unacked.data,
            before=before,
            limit=_PAGE_SIZE,
        )
        progress = conversations.get_delivery_progress(conn, ctx, [post.post_id for post in page.posts])
    except BusError as refusal:
        error = refusal.message
    query = {name: value for name, value in request.args.items() if value and name in (*form.data, "before")}

    def list_url(**changes: str | None) -> str:
        changed = {**query, "before": None, **changes}
        kept: dict[str, Any] = {name: value for name, value in changed.items() if value}
        return url_for(".index", **kept)

    is_all = not (form.unacked.data or form.to_me.data)
    chips = [
        ("All", list_url(unacked=None, to_me=None), is_all),
        ("Unacknowledged", list_url(unacked="y", to_me=None), bool(form.unacked.data) and not form.to_me.data),
        ("To me", list_url(unacked=None, to_me="y"), bool(form.to_me.data)),
    ]
    filters = [
        (form[name].label.text, form[name].data, list_url(**{name: None}))
        for name in ("to_lane", "ref", "tag")
        if form[name].data
    ]
    listed = HandoffList(
        posts=page.posts,
        progress=progress,
        form=form,
        error=error,
        filters=filters,
        chips=chips,
        query=query,
        older=list_url(before=str(page.next_before)) if page.next_before else None,
        newest=list_url() if before else None,
    )
    return listed, page.surfacing


@blueprint.get("/new")
@requires("act")
def new() -> str:
    """Show the form for a new post."""
    form = PostForm(formdata=None, to_actor=request.args.get("to"))
    return render_template("handoffs/new.html", project=current_project(), form=form)


@blueprint.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Create a post by the owner."""
    form = PostForm()
    post_id = _create_post(form, None) if form.validate() else None
    if post_id is None:
        return render_template("handoffs/new.html", project=current_project(), form=form), 400
    return see_other(".show", post_id=post_id)


@blueprint.get(f"/<{ID_CONVERTER}:post_id>")
def show(post_id: int) -> str:
    """Show a post in its conversation."""
    return _render_thread(post_id, None)


@blueprint.post(f"/<{ID_CONVERTER}:post_id>/reply")
def reply(post_id: int) -> BaseResponse | tuple[str, int]:
    """Reply to a post."""
    form = PostForm()
    reply_id = _create_post(form, post_id) if form.validate() else None
    if reply_id is None:
        return _render_thread(post_id, form), 400
    return _return_to_list("") or see_other(".show", post_id=reply_id, _anchor=f"post-{reply_id}")


@blueprint.post(f"/<{ID_CONVERTER}:post_id>/ack")
def ack(post_id: int) -> BaseResponse:
    """Acknowledge a post."""
    with redirect_on_refusal(url_for(".show", post_id=post_id)), transaction() as conn:
        posts.ack(conn, current_caller(), [post_id])
    record_activity("acks")
    return _return_to_list("Acknowledged.") or see_other(".show", post_id=post_id)


def _return_to_list(message: str) -> BaseResponse | None:
    """Redirect to the list in which the button was pressed, or return None if the form names no address."""
    target = safe_redirect_target(request.form.get("next", ""))
    if request.headers.get("X-Part"):
        # The script of the list updates the row.
        return make_response("", 204)
    if message:
        flash(message, "success")
    return redirect(target, 303) if target else None


def _create_post(form: PostForm, reply_to: int | None) -> int | None:
    """Create a post from the form; returns its id, or None if the form has errors to show."""
    with show_refusal_on_form(form, default_field="to_actor"), transaction() as conn:
        post = posts.create(
            conn,
            current_caller(),
            form.body.data or "",
            to_lane=form.to_lane.data,
            to_actor=form.to_actor.data,
            subject=form.subject.data,
            ref=form.ref.data,
            tag=form.tag.data,
            reply_to=reply_to,
            ack_within_seconds=int(form.ack_within.data) if form.ack_within.data else None,
        )
    if form.errors:
        return None
    record_activity("inbox")
    flash(f"Sent to {pluralize(post.recipients, 'recipient')}.", "success")
    return post.post_id


def _render_thread(post_id: int, form: PostForm | None) -> str:
    ctx = current_caller()
    with connection() as conn:
        thread = conversations.list_conversation(conn, ctx, post_id)
        progress = conversations.get_delivery_progress(conn, ctx, [post.post_id for post in thread])
        post = next((post for post in thread if post.post_id == post_id), None)
        if post is None:
            # A conversation is read up to a limit; a post beyond it is shown by itself.
            thread = posts.list_by_id(conn, ctx, [post_id]).posts
            if not thread:
                raise NotFound
            post = thread[0]
            progress = conversations.get_delivery_progress(conn, ctx, [post_id])
        listed, _ = _list_handoffs(conn)
        _mark_surfaced(conn, ctx, posts.list_by_id(conn, ctx, [post_id]).surfacing)
    if form is None:
        to_actor = post.sender if post.sender != current_owner().handle else post.to_actor
        to_lane = None if to_actor else post.to_lane
        form = PostForm(formdata=None, to_actor=to_actor, to_lane=to_lane, ref=post.ref)
    return render_template(
        "handoffs/show.html",
        project=current_project(),
        post=post,
        thread=thread,
        progress=progress,
        form=form,
        handoffs=listed,
    )


def _mark_surfaced(conn: Connection, ctx: Ctx, post_ids: list[int]) -> None:
    """Record that the owner was shown the posts addressed to them, as the gateway does for agents."""
    if post_ids:
        surfacing.mark_surfaced(conn, {(ctx.project_id, ctx.participation_id, post_id): 0.0 for post_id in post_ids})
