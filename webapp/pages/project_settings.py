"""A project's settings, and its ends: archived, or deleted for good."""

import time

from flask import flash, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import IntegerField
from wtforms.validators import NumberRange, Optional

from bus import limits, projects
from bus.projects import ProjectSettings
from webapp.desk import needed
from webapp.engine import reading, refused_on, refused_to, writing
from webapp.page import Entry, ProjectPages, current_project, see_other
from webapp.visitors import current_owner

pages = ProjectPages("project_settings", path="settings", tab=Entry("Settings", 80))

# What a person waits for; what is left of a large project is deleted by the workers.
_PURGE_SECONDS = 1.5


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
        wanted = ProjectSettings(60 * form.presence_minutes.data, 60 * stall if stall else None)
        with refused_on(form), writing() as conn:
            projects.set_settings(conn, current_project().id, wanted, actor=current_owner().handle)
    if form.errors:
        return _index(settings=form), 400
    flash("Saved.", "success")
    return see_other(".index")


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
    with refused_to(url_for(".index")), writing() as conn:
        projects.begin_purge(conn, project.id, actor=current_owner().handle, reason="web")
    deadline = time.monotonic() + _PURGE_SECONDS
    done = False
    while not done and time.monotonic() < deadline:
        with writing() as conn:
            done = projects.purge_step(conn, project.id)
    flash(f"{project.name} is deleted.", "success")
    return see_other("projects.index")


def _index(name: NameForm | None = None, settings: SettingsForm | None = None) -> str:
    project = current_project()
    with reading() as conn:
        now = projects.get_settings(conn, project.id)
        contents = projects.get_contents(conn, project.id)
    stall = now.stall_window_seconds
    return render_template(
        "project_settings/index.html",
        project=project,
        contents=contents,
        name=name or NameForm(formdata=None, name=project.name),
        settings=settings
        or SettingsForm(
            formdata=None,
            presence_minutes=max(1, now.presence_window_seconds // 60),
            stall_minutes=stall and max(1, stall // 60),
        ),
    )
