"""Who is in a project: letting in, lanes and rights, tokens, and the end of a grant."""

from datetime import timedelta

from flask import Response, flash, render_template, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import BooleanField

from bus import limits
from bus.db import Connection
from bus.tenancy import grants, participations, people, tokens
from bus.tenancy.grants import Member
from bus.tenancy.participations import Grant
from webapp.auth import current_owner
from webapp.blueprints import Entry, ProjectPages, current_project, render, see_other
from webapp.context import reading, refused_on, refused_to, writing
from webapp.forms import (
    ADMIN_MAY,
    ID,
    PER_PAGE,
    asked_number,
    caller,
    keep_card,
    kind_field,
    lives_field,
    needed,
    split,
    this_page,
    words,
)

pages = ProjectPages("members", tab=Entry("Participants", 15))


class MemberForm(FlaskForm):  # type: ignore[misc]
    """Whom to let in, and on which terms."""

    name = needed("Name", limits.LABEL, description="What others call it here, such as api-agent.")
    kind = kind_field()
    lane = words("Lane", limits.LABEL, description="What it works on, such as review. Posts to it reach its members.")
    is_admin = BooleanField("Project-admin", description=ADMIN_MAY)
    lives = lives_field("Its token lives")


class TermsForm(FlaskForm):  # type: ignore[misc]
    """The lane and the right of a participation."""

    lane = words("Granted lane", limits.LABEL, description="It stays in the lane that it registered itself, if it did.")
    is_admin = BooleanField("Project-admin", description=ADMIN_MAY)


class TokenForm(FlaskForm):  # type: ignore[misc]
    """One more token."""

    label = words("Label", limits.LABEL, description="For you to tell it apart, such as laptop.")
    lives = lives_field("It lives")


@pages.get("/")
def index() -> str | Response:
    """Everyone in the project, newest first."""
    caller()
    project, before = current_project(), asked_number("before")
    with reading() as conn:
        rows, more = split(grants.list_(conn, project.owner_id, project.id, before=before, limit=PER_PAGE + 1))
    return render(
        "members/index.html",
        part="members/_list.html",
        project=project,
        members=rows,
        here=this_page(),
        older=this_page(before=str(rows[-1].id)) if more else None,
        newest=this_page(before=None) if before else None,
    )


@pages.get("/new")
def new() -> str:
    """The form that lets somebody in."""
    return _new(MemberForm())


@pages.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Let a participant in, new or known, and show its card."""
    form, project = MemberForm(), current_project()
    if form.validate():
        with refused_on(form), writing() as conn:
            granted = participations.grant(
                conn,
                project.id,
                form.name.data,
                kind=form.kind.data,
                lane=form.lane.data,
                is_admin=form.is_admin.data,
                ttl=_lives(form.lives.data),
                actor=current_owner().handle,
            )
            key = keep_token(conn, granted, project.id)
    if form.errors:
        return _new(form), 400
    return see_other("cards.show", key=key)


def _new(form: MemberForm) -> str:
    project = current_project()
    with reading() as conn:
        known = people.list_free(conn, project.owner_id, project.id)
    return render_template("members/new.html", project=project, form=form, known=[label for _, label in known])


@pages.get(f"/<{ID}:participation_id>")
def show(participation_id: int) -> str:
    """One participation: its terms and its tokens."""
    return _show(participation_id)


def _show(participation_id: int, terms: TermsForm | None = None, token: TokenForm | None = None) -> str:
    project = current_project()
    with reading() as conn:
        member = _member(conn, participation_id)
        found, more = split(tokens.list_(conn, member.id, before=asked_number("before"), limit=PER_PAGE + 1))
    return render_template(
        "members/show.html",
        project=project,
        member=member,
        tokens=found,
        older=this_page(before=str(found[-1].id)) if more else None,
        terms=terms or TermsForm(formdata=None, lane=member.granted_lane, is_admin=member.is_admin),
        token=token or TokenForm(formdata=None),
    )


@pages.post(f"/<{ID}:participation_id>/terms")
def set_terms(participation_id: int) -> BaseResponse | tuple[str, int]:
    """Change lane and right."""
    form, project = TermsForm(), current_project()
    if form.validate():
        with refused_on(form), writing() as conn:
            member = _member(conn, participation_id)
            actor = current_owner().handle
            # Only what was changed is done, so that the audit tells it.
            if member.granted_lane != form.lane.data:
                participations.set_lane(conn, project.id, member.id, form.lane.data, actor=actor)
            if member.is_admin != form.is_admin.data:
                participations.set_admin(conn, project.id, member.id, form.is_admin.data, actor=actor)
    if form.errors:
        return _show(participation_id, terms=form), 400
    flash("Saved. It counts from its next call on.", "success")
    return see_other(".show", participation_id=participation_id)


@pages.post(f"/<{ID}:participation_id>/tokens")
def add_token(participation_id: int) -> BaseResponse | tuple[str, int]:
    """Mint one more token and show its card; the others go on working."""
    form, project = TokenForm(), current_project()
    if form.validate():
        with refused_on(form), writing() as conn:
            member = _member(conn, participation_id)
            granted = participations.add_token(
                conn,
                project.id,
                member.id,
                label=form.label.data or "",
                ttl=_lives(form.lives.data),
                actor=current_owner().handle,
            )
            key = keep_token(conn, granted, project.id)
    if form.errors:
        return _show(participation_id, token=form), 400
    return see_other("cards.show", key=key)


@pages.post(f"/<{ID}:participation_id>/rotate")
def rotate(participation_id: int) -> BaseResponse:
    """Mint a token, end all older ones, and show the card."""
    project = current_project()
    with refused_to(_page(participation_id)), writing() as conn:
        member = _member(conn, participation_id)
        granted = participations.rotate(conn, project.id, member.id, actor=current_owner().handle)
        key = keep_token(conn, granted, project.id)
    return see_other("cards.show", key=key)


@pages.post(f"/<{ID}:participation_id>/revoke")
def revoke(participation_id: int) -> BaseResponse:
    """End every token; the participant stays in the project."""
    with refused_to(_page(participation_id)), writing() as conn:
        member = _member(conn, participation_id)
        participations.revoke(conn, current_project().id, member.id, actor=current_owner().handle)
    flash(f"No token of {member.label} works any more.", "success")
    return see_other(".show", participation_id=participation_id)


@pages.post(f"/<{ID}:participation_id>/tokens/<{ID}:token_id>/revoke")
def revoke_token(participation_id: int, token_id: int) -> BaseResponse:
    """End one token."""
    with refused_to(_page(participation_id)), writing() as conn:
        _member(conn, participation_id)
        participations.revoke_token(conn, current_project().id, token_id, actor=current_owner().handle)
    flash("That token does not work any more.", "success")
    return see_other(".show", participation_id=participation_id, _anchor="tokens")


@pages.post(f"/<{ID}:participation_id>/remove")
def remove(participation_id: int) -> BaseResponse:
    """Take the grant away."""
    with refused_to(_page(participation_id)), writing() as conn:
        member = _member(conn, participation_id)
        participations.remove(conn, current_project().id, member.id, actor=current_owner().handle)
    flash(f"{member.label} is no longer in this project. What it did stays in the ledger.", "success")
    return see_other(".index")


def keep_token(conn: Connection, granted: Grant, project_id: int | None) -> str:
    """Keep a token that was just minted for the page that shows it once; returns that page's key."""
    return keep_card(
        conn,
        "token",
        token=granted.token,
        participant=granted.participant,
        actor=granted.actor,
        lane=granted.lane,
        project=granted.project,
        project_id=project_id,
    )


def _member(conn: Connection, participation_id: int) -> Member:
    """The participation in the project at hand; 404 where it is in another."""
    project = current_project()
    return grants.get(conn, project.owner_id, project.id, participation_id)


def _page(participation_id: int) -> str:
    return url_for(".show", participation_id=participation_id)


def _lives(days: str) -> timedelta | None:
    return timedelta(days=int(days)) if days else None
