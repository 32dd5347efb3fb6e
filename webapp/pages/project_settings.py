"""A project's settings, and its ends: archived, or deleted for good."""

import time

from flask import flash, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as BaseResponse
from wtforms import IntegerField
from wtforms.validators import NumberRange, Optional

from bus import limits
from bus.notifications import outbox
from bus.tenancy import projects
from bus.tenancy.projects import ProjectSettings
from webapp.auth import current_owner
from webapp.blueprints import Entry, ProjectPages, current_project, see_other
from webapp.context import reading, refused_on, refused_to, writing
from webapp.forms import ID, keep_card, needed, words

pages = ProjectPages("project_settings", path="settings", tab=Entry("Settings", 80))

# What a person waits for; what is left of a large project is deleted by the workers.
_PURGE_SECONDS = 1.5
# Longer, because nothing goes on by itself when it is over: what is billed stays billed, and the next try has less.
_BILL_SECONDS = 8.0


class NameForm(FlaskForm):  # type: ignore[misc]
    """What the project is called."""

    name = needed("Name", limits.LABEL, description="Tokens stay good, whatever it is called.")


class SettingsForm(FlaskForm):  # type: ignore[misc]
    """How the project behaves."""

    presence_minutes = IntegerField(
        "Here means seen within",
        description="In minutes, 1 to 1440. Any call of an agent counts.",
        validators=[NumberRange(1, 1440, "1 to 1440 minutes.")],
    )
    stall_minutes = IntegerField(
        "Tasks are put back after",
        description="In minutes, 1 to 43200. A task in progress whose assignee was gone for so long is open again."
        " Empty: never.",
        validators=[Optional(), NumberRange(1, 43_200, "1 to 43200 minutes, or nothing.")],
    )

    gone_minutes = IntegerField(
        "Gone means not seen for",
        description="In minutes, 1 to 43200. It is written to the ledger, once.",
        validators=[NumberRange(1, 43_200, "1 to 43200 minutes.")],
    )
    pause_minutes = IntegerField(
        "Between two steps for an overdue handoff",
        description="In minutes, 1 to 1440. First the ledger says so, then project-admins get it, then webhooks and the"
        " address below are told.",
        validators=[NumberRange(1, 1440, "1 to 1440 minutes.")],
    )
    escalation_email = words("E-mail for overdue handoffs", 254)


class WebhookForm(FlaskForm):  # type: ignore[misc]
    """Where overdue handoffs are told."""

    url = needed("Address", 2000, description="https://… of your own. Each message is signed (Standard Webhooks).")


@pages.get("/")
def index() -> str:
    """All of them."""
    return _index()


@pages.post("/name")
def rename() -> BaseResponse | tuple[str, int]:
    """Call it something else."""
    form = NameForm()
    if form.validate():
        with refused_on(form), writing() as conn:
            projects.rename(conn, current_project().id, form.name.data, actor=current_owner().handle)
    if form.errors:
        return _index(name=form), 400
    flash("Renamed.", "success")
    return see_other(".index")


@pages.post("/")
def save() -> BaseResponse | tuple[str, int]:
    """Change how it behaves."""
    form = SettingsForm()
    if form.validate():
        stall = form.stall_minutes.data
        wanted = ProjectSettings(
            presence_window_seconds=60 * form.presence_minutes.data,
            stall_window_seconds=60 * stall if stall else None,
            gone_window_seconds=60 * form.gone_minutes.data,
            escalation_pause_seconds=60 * form.pause_minutes.data,
            escalation_email=form.escalation_email.data,
        )
        with refused_on(form), writing() as conn:
            projects.set_settings(conn, current_project().id, wanted, actor=current_owner().handle)
    if form.errors:
        return _index(settings=form), 400
    flash("Saved.", "success")
    return see_other(".index")


@pages.post("/webhooks")
def add_webhook() -> BaseResponse | tuple[str, int]:
    """Tell overdue handoffs there, and show the secret that signs them, this once."""
    form, project = WebhookForm(), current_project()
    if form.validate():
        with refused_on(form), writing() as conn:
            made = outbox.add_webhook(
                conn, project.owner_id, form.url.data, project_id=project.id, actor=current_owner().handle
            )
            facts = {"url": made.url, "secret": made.secret, "project": project.name, "project_id": project.id}
            key = keep_card(conn, "webhook", **facts)
    if form.errors:
        return _index(webhook=form), 400
    return see_other("cards.show", key=key)


@pages.post(f"/webhooks/<{ID}:webhook_id>/remove")
def remove_webhook(webhook_id: int) -> BaseResponse:
    """Tell nothing there any more."""
    project = current_project()
    with refused_to(url_for(".index")), writing() as conn:
        if webhook_id not in {one.id for one in outbox.list_webhooks(conn, project.owner_id, project_id=project.id)}:
            raise NotFound
        outbox.remove_webhook(conn, project.owner_id, webhook_id, actor=current_owner().handle)
    flash("Nothing is told there any more.", "success")
    return see_other(".index", _anchor="webhooks")


@pages.post("/archive")
def archive() -> BaseResponse:
    """From now on it is read and not written."""
    with refused_to(url_for(".index")), writing() as conn:
        projects.archive(conn, current_project().id, actor=current_owner().handle)
    flash("The project is archived. You can open it again at any time.", "success")
    return see_other(".index")


@pages.post("/reopen")
def reopen() -> BaseResponse:
    """Open an archived project again."""
    with refused_to(url_for(".index")), writing() as conn:
        projects.reopen(conn, current_project().id, actor=current_owner().handle)
    flash("The project is open again.", "success")
    return see_other(".index")


@pages.post("/delete")
def delete() -> BaseResponse:
    """Delete it for good, if its name was typed."""
    project = current_project()
    if request.form.get("confirm", "").strip() != project.name:
        flash(f"Nothing was deleted: type {project.name} to confirm.", "error")
        return see_other(".index", _anchor="ends")
    deadline = time.monotonic() + _BILL_SECONDS
    begun = False
    while not begun and time.monotonic() < deadline:
        with refused_to(url_for(".index")), writing() as conn:
            begun = projects.begin_purge(conn, project.id, actor=current_owner().handle, reason="web")
    if not begun:
        flash("Nothing was deleted yet: much of it is still being billed. Try again in a minute.", "error")
        return see_other(".index", _anchor="ends")
    deadline = time.monotonic() + _PURGE_SECONDS
    done = False
    while not done and time.monotonic() < deadline:
        with writing() as conn:
            done = projects.purge_step(conn, project.id)
    flash(f"{project.name} is deleted.", "success")
    return see_other("projects.index")


def _index(
    name: NameForm | None = None, settings: SettingsForm | None = None, webhook: WebhookForm | None = None
) -> str:
    project = current_project()
    with reading() as conn:
        now = projects.get_settings(conn, project.id)
        contents = projects.get_contents(conn, project.id)
        webhooks = outbox.list_webhooks(conn, project.owner_id, project_id=project.id)
    stall = now.stall_window_seconds
    return render_template(
        "project_settings/index.html",
        project=project,
        contents=contents,
        webhooks=webhooks,
        webhook=webhook or WebhookForm(formdata=None),
        name=name or NameForm(formdata=None, name=project.name),
        settings=settings
        or SettingsForm(
            formdata=None,
            presence_minutes=max(1, now.presence_window_seconds // 60),
            stall_minutes=stall and max(1, stall // 60),
            gone_minutes=max(1, now.gone_window_seconds // 60),
            pause_minutes=max(1, now.escalation_pause_seconds // 60),
            escalation_email=now.escalation_email,
        ),
    )
