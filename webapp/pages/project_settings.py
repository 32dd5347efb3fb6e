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
from bus.operations import project_purge
from bus.tenancy import projects
from bus.tenancy.projects import ProjectSettings
from webapp.auth import current_owner
from webapp.blueprints import NavItem, ProjectBlueprint, current_project, see_other
from webapp.context import connection, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import ID_CONVERTER, optional_text_field, required_text_field, store_credentials

blueprint = ProjectBlueprint("project_settings", path="settings", tab=NavItem("Settings", 80))

# What a person waits for; what is left of a large project is deleted by the workers.
_PURGE_TIME_BUDGET_SECONDS = 1.5
# Longer, because nothing goes on by itself when it is over: what is billed stays billed, and the next try has less.
_BILLING_TIME_BUDGET_SECONDS = 8.0


class RenameForm(FlaskForm):  # type: ignore[misc]
    """What the project is called."""

    name = required_text_field("Name", limits.MAX_LABEL_LENGTH, description="Tokens stay good, whatever it is called.")


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
    escalation_email = optional_text_field("E-mail for overdue handoffs", 254)


class WebhookForm(FlaskForm):  # type: ignore[misc]
    """Where overdue handoffs are told."""

    url = required_text_field(
        "Address", 2000, description="https://… of your own. Each message is signed (Standard Webhooks)."
    )


@blueprint.get("/")
def index() -> str:
    """All of them."""
    return _render_index()


@blueprint.post("/name")
def rename() -> BaseResponse | tuple[str, int]:
    """Call it something else."""
    form = RenameForm()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            projects.rename(conn, current_project().id, form.name.data, actor=current_owner().handle)
    if form.errors:
        return _render_index(rename_form=form), 400
    flash("Renamed.", "success")
    return see_other(".index")


@blueprint.post("/")
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
        with show_refusal_on_form(form), transaction() as conn:
            projects.set_settings(conn, current_project().id, wanted, actor=current_owner().handle)
    if form.errors:
        return _render_index(settings_form=form), 400
    flash("Saved.", "success")
    return see_other(".index")


@blueprint.post("/webhooks")
def add_webhook() -> BaseResponse | tuple[str, int]:
    """Tell overdue handoffs there, and show the secret that signs them, this once."""
    form, project = WebhookForm(), current_project()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            made = outbox.add_webhook(
                conn, project.owner_id, form.url.data, project_id=project.id, actor=current_owner().handle
            )
            facts = {"url": made.url, "secret": made.secret, "project": project.name, "project_id": project.id}
            key = store_credentials(conn, "webhook", **facts)
    if form.errors:
        return _render_index(webhook_form=form), 400
    return see_other("credentials.show", key=key)


@blueprint.post(f"/webhooks/<{ID_CONVERTER}:webhook_id>/remove")
def remove_webhook(webhook_id: int) -> BaseResponse:
    """Tell nothing there any more."""
    project = current_project()
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        if webhook_id not in {one.id for one in outbox.list_webhooks(conn, project.owner_id, project_id=project.id)}:
            raise NotFound
        outbox.remove_webhook(conn, project.owner_id, webhook_id, actor=current_owner().handle)
    flash("Nothing is told there any more.", "success")
    return see_other(".index", _anchor="webhooks")


@blueprint.post("/archive")
def archive() -> BaseResponse:
    """From now on it is read and not written."""
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        projects.archive(conn, current_project().id, actor=current_owner().handle)
    flash("The project is archived. You can open it again at any time.", "success")
    return see_other(".index")


@blueprint.post("/reopen")
def reopen() -> BaseResponse:
    """Open an archived project again."""
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        projects.reopen(conn, current_project().id, actor=current_owner().handle)
    flash("The project is open again.", "success")
    return see_other(".index")


@blueprint.post("/delete")
def delete() -> BaseResponse:
    """Delete it for good, if its name was typed."""
    project = current_project()
    if request.form.get("confirm", "").strip() != project.name:
        flash(f"Nothing was deleted: type {project.name} to confirm.", "error")
        return see_other(".index", _anchor="ends")
    deadline = time.monotonic() + _BILLING_TIME_BUDGET_SECONDS
    begun = False
    while not begun and time.monotonic() < deadline:
        with redirect_on_refusal(url_for(".index")), transaction() as conn:
            begun = project_purge.begin_purge(conn, project.id, actor=current_owner().handle, reason="web")
    if not begun:
        flash("Nothing was deleted yet: much of it is still being billed. Try again in a minute.", "error")
        return see_other(".index", _anchor="ends")
    deadline = time.monotonic() + _PURGE_TIME_BUDGET_SECONDS
    done = False
    while not done and time.monotonic() < deadline:
        with transaction() as conn:
            done = project_purge.purge_step(conn, project.id)
    flash(f"{project.name} is deleted.", "success")
    return see_other("projects.index")


def _render_index(
    rename_form: RenameForm | None = None,
    settings_form: SettingsForm | None = None,
    webhook_form: WebhookForm | None = None,
) -> str:
    project = current_project()
    with connection() as conn:
        now = projects.get_settings(conn, project.id)
        contents = project_purge.get_contents(conn, project.id)
        webhooks = outbox.list_webhooks(conn, project.owner_id, project_id=project.id)
    stall = now.stall_window_seconds
    return render_template(
        "project_settings/index.html",
        project=project,
        contents=contents,
        webhooks=webhooks,
        webhook_form=webhook_form or WebhookForm(formdata=None),
        rename_form=rename_form or RenameForm(formdata=None, name=project.name),
        settings_form=settings_form
        or SettingsForm(
            formdata=None,
            presence_minutes=max(1, now.presence_window_seconds // 60),
            stall_minutes=stall and max(1, stall // 60),
            gone_minutes=max(1, now.gone_window_seconds // 60),
            pause_minutes=max(1, now.escalation_pause_seconds // 60),
            escalation_email=now.escalation_email,
        ),
    )
