"""Handoffs: who told whom what, and how far each recipient has come with it."""

from flask import Response, flash, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as BaseResponse
from wtforms import BooleanField, SelectField, TextAreaField
from wtforms.validators import Length

from bus import limits
from bus.coordination import conversations, posts
from bus.coordination.posts import PostPage
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError
from webapp.blueprints import NavItem, ProjectBlueprint, current_project, render_page, see_other
from webapp.context import connection, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import (
    ID_CONVERTER,
    current_caller,
    current_url,
    optional_text_field,
    query_int,
    record_activity,
    select_choices,
)

blueprint = ProjectBlueprint("handoffs", tab=NavItem("Handoffs", 10))

_PAGE_SIZE = 30
_ACK_DEADLINE_CHOICES = select_choices(
    ("", "no deadline"), ("3600", "1 hour"), ("14400", "4 hours"), ("86400", "1 day")
)


class PostForm(FlaskForm):  # type: ignore[misc]
    """What to hand over, to whom."""

    to_actor = optional_text_field("To a participant", limits.MAX_QUALIFIED_NAME_LENGTH)
    to_lane = optional_text_field(
        "To a lane", limits.MAX_LABEL_LENGTH, description="Everybody in it, and whoever joins before an ack."
    )
    subject = optional_text_field("Subject", limits.MAX_SUBJECT_LENGTH)
    body = TextAreaField("Message", validators=[Length(max=limits.MAX_BODY_LENGTH)])
    ref = optional_text_field("About", limits.MAX_REF_LENGTH, description="The artifact: a PR, a commit, an ADR.")
    tag = optional_text_field("Tag", limits.MAX_LABEL_LENGTH)
    ack_within = SelectField("Wants an ack within", choices=_ACK_DEADLINE_CHOICES, default="")


class FilterForm(FlaskForm):  # type: ignore[misc]
    """Which posts to show."""

    class Meta:
        csrf = False

    to_lane = optional_text_field("Lane", limits.MAX_LABEL_LENGTH)
    ref = optional_text_field("About", limits.MAX_REF_LENGTH)
    tag = optional_text_field("Tag", limits.MAX_LABEL_LENGTH)
    to_me = BooleanField("To me")
    unacked = BooleanField("Nobody acked")


@blueprint.get("/")
def index() -> str | Response:
    """Posts, newest first."""
    ctx, before, form = current_caller(), query_int("before"), FilterForm(request.args)
    problem = None
    found = PostPage([], None, 0)
    try:
        with connection() as conn:
            found = posts.list_posts(
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
            progress = conversations.get_delivery_progress(conn, ctx, [post.post_id for post in found.posts])
            _mark_surfaced(conn, ctx, found)
    except BusError as error:
        problem, progress = error.message, {}
    return render_page(
        "handoffs/index.html",
        part="handoffs/_list.html",
        project=current_project(),
        form=form,
        filtered=any(field.data for field in form),
        filter_error=problem,
        posts=found.posts,
        progress=progress,
        current_url=current_url(),
        older=current_url(before=str(found.next_before)) if found.next_before else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.get("/new")
def new() -> str:
    """The form for a new handoff."""
    form = PostForm(formdata=None, to_actor=request.args.get("to"))
    return render_template("handoffs/new.html", project=current_project(), form=form)


@blueprint.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Hand something over in the owner's name."""
    form = PostForm()
    post_id = _create_post(form, None) if form.validate() else None
    if post_id is None:
        return render_template("handoffs/new.html", project=current_project(), form=form), 400
    return see_other(".show", post_id=post_id)


@blueprint.get(f"/<{ID_CONVERTER}:post_id>")
def show(post_id: int) -> str:
    """A post with its thread."""
    return _render_thread(post_id, None)


@blueprint.post(f"/<{ID_CONVERTER}:post_id>/reply")
def reply(post_id: int) -> BaseResponse | tuple[str, int]:
    """Answer a post."""
    form = PostForm()
    made = _create_post(form, post_id) if form.validate() else None
    if made is None:
        return _render_thread(post_id, form), 400
    return see_other(".show", post_id=made, _anchor=f"post-{made}")


@blueprint.post(f"/<{ID_CONVERTER}:post_id>/ack")
def ack(post_id: int) -> BaseResponse:
    """Confirm a post in the owner's name."""
    with redirect_on_refusal(url_for(".show", post_id=post_id)), transaction() as conn:
        posts.ack(conn, current_caller(), [post_id])
    record_activity("acks")
    flash("Acked.", "success")
    return see_other(".show", post_id=post_id)


def _create_post(form: PostForm, reply_to: int | None) -> int | None:
    """Post what the form says; None where it was refused, which the form then shows."""
    with show_refusal_on_form(form), transaction() as conn:
        made = posts.create(
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
    flash(f"Handed over to {made.recipients} recipient{'' if made.recipients == 1 else 's'}.", "success")
    return made.post_id


def _render_thread(post_id: int, form: PostForm | None) -> str:
    ctx = current_caller()
    with connection() as conn:
        thread = conversations.list_conversation(conn, ctx, post_id)
        progress = conversations.get_delivery_progress(conn, ctx, [post.post_id for post in thread])
        chosen = next((post for post in thread if post.post_id == post_id), None)
        if chosen is None:
            # A post whose thread is too long to reach it is shown alone.
            alone = posts.list_by_id(conn, ctx, [post_id]).posts
            if not alone:
                raise NotFound
            chosen, thread = alone[0], alone
            progress = conversations.get_delivery_progress(conn, ctx, [post_id])
        _mark_surfaced(conn, ctx, posts.list_by_id(conn, ctx, [post_id]))
    if form is None:
        to = chosen.sender if chosen.sender != current_project().owner else chosen.to_actor
        form = PostForm(formdata=None, to_actor=to, to_lane=None if to else chosen.to_lane, ref=chosen.ref)
    return render_template(
        "handoffs/show.html", project=current_project(), post=chosen, thread=thread, progress=progress, form=form
    )


def _mark_surfaced(conn: Connection, ctx: Ctx, page: PostPage) -> None:
    """Note that the owner was shown what is for them, as the gateway does for agents."""
    if page.surfacing:
        posts.mark_surfaced(conn, {(ctx.project_id, ctx.participation_id, post_id): 0.0 for post_id in page.surfacing})
