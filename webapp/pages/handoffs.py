"""Handoffs: who told whom what, and how far each recipient has come with it."""

from flask import Response, flash, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as BaseResponse
from wtforms import BooleanField, SelectField, TextAreaField
from wtforms.validators import Length

from bus import limits
from bus.coordination import conversations, posts
from bus.coordination.posts import Posts
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError
from webapp.blueprints import Entry, ProjectPages, current_project, render, see_other
from webapp.context import reading, refused_on, refused_to, writing
from webapp.forms import ID, acted, asked_number, caller, choices, this_page, words

pages = ProjectPages("handoffs", tab=Entry("Handoffs", 10))

_PER_PAGE = 30
_WITHIN = choices(("", "no deadline"), ("3600", "1 hour"), ("14400", "4 hours"), ("86400", "1 day"))


class PostForm(FlaskForm):  # type: ignore[misc]
    """What to hand over, to whom."""

    to_actor = words("To a participant", limits.QUALIFIED)
    to_lane = words("To a lane", limits.LABEL, description="Everybody in it, and whoever joins before an ack.")
    subject = words("Subject", limits.SUBJECT)
    body = TextAreaField("Message", validators=[Length(max=limits.BODY)])
    ref = words("About", limits.REF, description="The artifact: a PR, a commit, an ADR.")
    tag = words("Tag", limits.LABEL)
    ack_within = SelectField("Wants an ack within", choices=_WITHIN, default="")


class FilterForm(FlaskForm):  # type: ignore[misc]
    """Which posts to show."""

    class Meta:
        csrf = False

    to_lane = words("Lane", limits.LABEL)
    ref = words("About", limits.REF)
    tag = words("Tag", limits.LABEL)
    to_me = BooleanField("To me")
    unacked = BooleanField("Nobody acked")


@pages.get("/")
def index() -> str | Response:
    """Posts, newest first."""
    ctx, before, form = caller(), asked_number("before"), FilterForm(request.args)
    problem = None
    found = Posts([], None, 0)
    try:
        with reading() as conn:
            found = posts.list_(
                conn,
                ctx,
                to_lane=form.to_lane.data,
                to_me=form.to_me.data,
                tag=form.tag.data,
                ref=form.ref.data,
                unacked_only=form.unacked.data,
                before=before,
                limit=_PER_PAGE,
            )
            progress = conversations.progress(conn, ctx, [post.post_id for post in found.posts])
            _surface(conn, ctx, found)
    except BusError as error:
        problem, progress = error.message, {}
    return render(
        "handoffs/index.html",
        part="handoffs/_list.html",
        project=current_project(),
        form=form,
        filtered=any(field.data for field in form),
        problem=problem,
        posts=found.posts,
        progress=progress,
        here=this_page(),
        older=this_page(before=str(found.next_before)) if found.next_before else None,
        newest=this_page(before=None) if before else None,
    )


@pages.get("/new")
def new() -> str:
    """The form for a new handoff."""
    form = PostForm(formdata=None, to_actor=request.args.get("to"))
    return render_template("handoffs/new.html", project=current_project(), form=form)


@pages.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Hand something over in the owner's name."""
    form = PostForm()
    post_id = _post(form, None) if form.validate() else None
    if post_id is None:
        return render_template("handoffs/new.html", project=current_project(), form=form), 400
    return see_other(".show", post_id=post_id)


@pages.get(f"/<{ID}:post_id>")
def show(post_id: int) -> str:
    """A post with its thread."""
    return _show(post_id, None)


@pages.post(f"/<{ID}:post_id>/reply")
def reply(post_id: int) -> BaseResponse | tuple[str, int]:
    """Answer a post."""
    form = PostForm()
    made = _post(form, post_id) if form.validate() else None
    if made is None:
        return _show(post_id, form), 400
    return see_other(".show", post_id=made, _anchor=f"post-{made}")


@pages.post(f"/<{ID}:post_id>/ack")
def ack(post_id: int) -> BaseResponse:
    """Confirm a post in the owner's name."""
    with refused_to(url_for(".show", post_id=post_id)), writing() as conn:
        posts.ack(conn, caller(), [post_id])
    acted("acks")
    flash("Acked.", "success")
    return see_other(".show", post_id=post_id)


def _post(form: PostForm, reply_to: int | None) -> int | None:
    """Post what the form says; None where it was refused, which the form then shows."""
    with refused_on(form), writing() as conn:
        made = posts.create(
            conn,
            caller(),
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
    acted("inbox")
    flash(f"Handed over to {made.recipients} recipient{'' if made.recipients == 1 else 's'}.", "success")
    return made.post_id


def _show(post_id: int, form: PostForm | None) -> str:
    ctx = caller()
    with reading() as conn:
        thread = conversations.get(conn, ctx, post_id)
        progress = conversations.progress(conn, ctx, [post.post_id for post in thread])
        chosen = next((post for post in thread if post.post_id == post_id), None)
        if chosen is None:
            # A post whose thread is too long to reach it is shown alone.
            alone = posts.list_by_id(conn, ctx, [post_id]).posts
            if not alone:
                raise NotFound
            chosen, thread = alone[0], alone
            progress = conversations.progress(conn, ctx, [post_id])
        _surface(conn, ctx, posts.list_by_id(conn, ctx, [post_id]))
    if form is None:
        to = chosen.sender if chosen.sender != current_project().owner else chosen.to_actor
        form = PostForm(formdata=None, to_actor=to, to_lane=None if to else chosen.to_lane, ref=chosen.ref)
    return render_template(
        "handoffs/show.html", project=current_project(), post=chosen, thread=thread, progress=progress, form=form
    )


def _surface(conn: Connection, ctx: Ctx, found: Posts) -> None:
    """Note that the owner was shown what is for them, as the gateway does for agents."""
    if found.surfacing:
        posts.surface(conn, {(ctx.project_id, ctx.participation_id, post_id): 0.0 for post_id in found.surfacing})
