"""The settings of a project, its webhooks, and archiving or deleting it."""

import time

from flask import flash, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as BaseResponse
from wtforms import BooleanField, IntegerField
from wtforms.validators import NumberRange, Optional

from bus import limits
from bus.coordination import leases
from bus.notifications import mail_addresses, outbox
from bus.operations import project_purge
from bus.rules import ref_patterns
from bus.tenancy import projects
from bus.tenancy import ref_patterns as project_ref_patterns
from bus.tenancy.projects import ProjectSettings
from webapp.auth import current_owner
from webapp.blueprints import ID_CONVERTER, NavItem, ProjectBlueprint, current_project, see_other
from webapp.context import connection, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import optional_text_field, required_text_field
from webapp.one_time_credentials import store_credentials
from webapp.suspension import allowed_while_suspended

blueprint = ProjectBlueprint(
    "project_settings",
    path="settings",
    tab=NavItem("Settings", 80, "settings", is_secondary=True),
    reads="manage_project",
    writes="manage_project",
)

# The owner waits for it; workers delete the rest of a large project.
_PURGE_TIME_BUDGET_SECONDS = 1.5
# Longer, because no worker continues it; what was billed stays billed, so that the next attempt has less to do.
_BILLING_TIME_BUDGET_SECONDS = 8.0


class RenameForm(FlaskForm):  # type: ignore[misc]
    """The name of the project."""

    name = required_text_field("Name", limits.MAX_LABEL_LENGTH, description="Renaming doesn't affect tokens.")


class SettingsForm(FlaskForm):  # type: ignore[misc]
    """Presence, escalation and paths."""

    presence_minutes = IntegerField(
        "Active if seen within (min)",
        description="1 to 1440. Any call of an agent counts.",
        validators=[NumberRange(1, 1440, "1 to 1440 minutes.")],
    )
    gone_minutes = IntegerField(
        "Mark as gone after (min)",
        description="1 to 43200. Recorded in the ledger, once.",
        validators=[NumberRange(1, 43_200, "1 to 43200 minutes.")],
    )
    stall_minutes = IntegerField(
        "Requeue stalled tasks after (min)",
        description="1 to 43200. Reopens tasks in progress whose assignee has been gone this long. Empty: never.",
        validators=[Optional(), NumberRange(1, 43_200, "1 to 43200 minutes, or empty.")],
    )
    pause_minutes = IntegerField(
        "Escalate every (min)",
        description="1 to 1440. Steps for an overdue handoff. Step 1: ledger entry. Step 2: project admins."
        " Step 3: webhooks and email.",
        validators=[NumberRange(1, 1440, "1 to 1440 minutes.")],
    )
    escalation_email = optional_text_field(
        "Email for overdue handoffs",
        254,
        description="Its holder confirms it with a mailed link. At most one message in 15 minutes.",
    )
    case_insensitive_paths = BooleanField(
        "Paths ignore case",
        description="For repositories on macOS or Windows: a lease on README.md also covers readme.md. Leases are then"
        " shown in lower case.",
    )


class RefPatternForm(FlaskForm):  # type: ignore[misc]
    """A pattern of references."""

    pattern = required_text_field(
        "Pattern",
        ref_patterns.MAX_PATTERN_LENGTH,
        description="A regular expression (RE2), such as PR-(\\d+). It matches whole words of a text.",
    )
    address = required_text_field(
        "Link",
        ref_patterns.MAX_ADDRESS_LENGTH,
        description="Such as https://github.com/acme/shop/pull/$1, where $1 is the first group in parentheses.",
    )


class WebhookForm(FlaskForm):  # type: ignore[misc]
    """A webhook for overdue handoffs."""

    url = required_text_field(
        "Address", 2000, description="An https:// URL of yours. Messages are signed (Standard Webhooks)."
    )


@blueprint.get("/")
def index() -> str:
    """Show the settings."""
    return _render_index()


@blueprint.post("/name")
def rename() -> BaseResponse | tuple[str, int]:
    """Rename the project."""
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
    """Save the settings of presence, escalation and paths."""
    form = SettingsForm()
    if form.validate():
        stall_minutes = form.stall_minutes.data
        settings = ProjectSettings(
            presence_window_seconds=60 * form.presence_minutes.data,
            stall_window_seconds=60 * stall_minutes if stall_minutes else None,
            gone_window_seconds=60 * form.gone_minutes.data,
            escalation_pause_seconds=60 * form.pause_minutes.data,
            escalation_email=form.escalation_email.data,
            case_insensitive_paths=form.case_insensitive_paths.data,
        )
        with show_refusal_on_form(form), transaction() as conn:
            changed = projects.set_settings(conn, current_project().id, settings, actor=current_owner().handle)
            if changed and settings.case_insensitive_paths:
                leases.fold_live_leases(conn, current_project().id)
    if form.errors:
        return _render_index(settings_form=form), 400
    flash("Saved.", "success")
    with connection() as conn:
        email = projects.get_settings(conn, current_project().id).escalation_email
        address = mail_addresses.find(conn, current_project().owner_id, email) if email else None
    if email and (address is None or address.state == "unconfirmed"):
        return request_confirmation()
    return see_other(".index")


@blueprint.post("/email/confirmation")
def request_confirmation() -> BaseResponse:
    """Mail a confirmation link to the address for overdue handoffs."""
    project = current_project()
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        email = projects.get_settings(conn, project.id).escalation_email
        if email is None:
            raise NotFound
        address = mail_addresses.request_confirmation(conn, project.owner_id, email, actor=current_owner().handle)
    if address.state != "confirmed":
        flash(f"Confirmation link sent to {address.email}. Nothing else is sent until it is opened.", "success")
    return see_other(".index")


@blueprint.post("/references")
def add_ref_pattern() -> BaseResponse | tuple[str, int]:
    """Add a pattern of references."""
    form = RefPatternForm()
    if form.validate():
        with show_refusal_on_form(form, default_field="pattern"), transaction() as conn:
            project_ref_patterns.add_pattern(
                conn, current_project().id, form.pattern.data, form.address.data, actor=current_owner().handle
            )
    if form.errors:
        return _render_index(ref_pattern_form=form), 400
    flash("Pattern added.", "success")
    return see_other(".index", _anchor="references")


@blueprint.post("/references/remove")
@allowed_while_suspended
def remove_ref_pattern() -> BaseResponse:
    """Remove a pattern of references."""
    pattern = request.form.get("pattern", "")
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        project_ref_patterns.remove_pattern(conn, current_project().id, pattern, actor=current_owner().handle)
    flash("Pattern removed.", "success")
    return see_other(".index", _anchor="references")


@blueprint.post("/webhooks")
def add_webhook() -> BaseResponse | tuple[str, int]:
    """Add a webhook and show its secret once."""
    form, project = WebhookForm(), current_project()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            webhook = outbox.add_webhook(
                conn, project.owner_id, form.url.data, project_id=project.id, actor=current_owner().handle
            )
            key = store_credentials(
                conn,
                "webhook",
                url=webhook.url,
                secret=webhook.secret,
                project=project.name,
                project_id=project.id,
            )
    if form.errors:
        return _render_index(webhook_form=form), 400
    return see_other("credentials.show", key=key)


@blueprint.post(f"/webhooks/<{ID_CONVERTER}:webhook_id>/remove")
@allowed_while_suspended
def remove_webhook(webhook_id: int) -> BaseResponse:
    """Remove a webhook of this project."""
    project = current_project()
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        webhooks = outbox.list_webhooks(conn, project.owner_id, project_id=project.id)
        if webhook_id not in {webhook.id for webhook in webhooks}:
            raise NotFound
        outbox.remove_webhook(conn, project.owner_id, webhook_id, actor=current_owner().handle)
    flash("Webhook removed.", "success")
    return see_other(".index", _anchor="webhooks")


@blueprint.post("/archive")
@allowed_while_suspended
def archive() -> BaseResponse:
    """Make the project read-only."""
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        projects.archive(conn, current_project().id, actor=current_owner().handle)
    flash("Project archived. You can reopen it at any time.", "success")
    return see_other(".index")


@blueprint.post("/reopen")
def reopen() -> BaseResponse:
    """Reopen an archived project."""
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        projects.reopen(conn, current_project().id, actor=current_owner().handle)
    flash("Project reopened.", "success")
    return see_other(".index")


@blueprint.post("/delete")
@allowed_while_suspended
def delete() -> BaseResponse:
    """Delete the project, if its name was typed to confirm."""
    project = current_project()
    if request.form.get("confirm", "").strip() != project.name:
        flash(f"Nothing was deleted: type {project.name} to confirm.", "error")
        return see_other(".index", _anchor="ends")
    deadline = time.monotonic() + _BILLING_TIME_BUDGET_SECONDS
    has_begun = False
    while not has_begun and time.monotonic() < deadline:
        with redirect_on_refusal(url_for(".index")), transaction() as conn:
            has_begun = project_purge.begin_purge(conn, project.id, actor=current_owner().handle, reason="web")
    if not has_begun:
        flash("Nothing was deleted yet: events are still being billed. Try again in a minute.", "error")
        return see_other(".index", _anchor="ends")
    deadline = time.monotonic() + _PURGE_TIME_BUDGET_SECONDS
    is_done = False
    while not is_done and time.monotonic() < deadline:
        with transaction() as conn:
            is_done = project_purge.purge_step(conn, project.id)
    flash(f"{project.name} deleted.", "success")
    return see_other("projects.index")


def _render_index(
    rename_form: RenameForm | None = None,
    settings_form: SettingsForm | None = None,
    webhook_form: WebhookForm | None = None,
    ref_pattern_form: RefPatternForm | None = None,
) -> str:
    project = current_project()
    with connection() as conn:
        settings = projects.get_settings(conn, project.id)
        contents = project_purge.get_contents(conn, project.id)
        webhooks = outbox.list_webhooks(conn, project.owner_id, project_id=project.id)
        patterns = project_ref_patterns.list_patterns(conn, project.id)
        email = settings.escalation_email
        address = mail_addresses.find(conn, project.owner_id, email) if email else None
    stall_seconds = settings.stall_window_seconds
    return render_template(
        "project_settings/index.html",
        project=project,
        contents=contents,
        escalation_email=email,
        email_state=address.state if address is not None else "unconfirmed",
        webhooks=webhooks,
        ref_patterns=patterns,
        ref_pattern_form=ref_pattern_form or RefPatternForm(formdata=None),
        webhook_form=webhook_form or WebhookForm(formdata=None),
        rename_form=rename_form or RenameForm(formdata=None, name=project.name),
        settings_form=settings_form
        or SettingsForm(
            formdata=None,
            presence_minutes=max(1, settings.presence_window_seconds // 60),
            stall_minutes=stall_seconds and max(1, stall_seconds // 60),
            gone_minutes=max(1, settings.gone_window_seconds // 60),
            pause_minutes=max(1, settings.escalation_pause_seconds // 60),
            escalation_email=settings.escalation_email,
            case_insensitive_paths=settings.case_insensitive_paths,
        ),
    )
