"""The owner's projects: all of them, and a new one."""

from flask import Response, render_template, request
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse

from bus import limits
from bus.coordination import dashboard
from bus.tenancy import participations, projects
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OwnerBlueprint, render_page, see_other
from webapp.context import connection, show_refusal_on_form, transaction
from webapp.forms import PAGE_SIZE, current_url, required_text_field, split_page

blueprint = OwnerBlueprint("projects", url_prefix="/admin/projects", nav_item=NavItem("Projects", 20))


class ProjectForm(FlaskForm):  # type: ignore[misc]
    """What a project begins with: its name."""

    name = required_text_field(
        "Name", limits.MAX_LABEL_LENGTH, description="As short as you say it, such as apollo. You can change it later."
    )


@blueprint.get("/")
def index() -> str | Response:
    """The projects by name, archived ones too."""
    after = request.args.get("after", "")
    with connection() as conn:
        rows, more = split_page(dashboard.list_projects(conn, current_owner().id, after=after, limit=PAGE_SIZE + 1))
    return render_page(
        "projects/index.html",
        projects=[card for _, card in rows],
        older=current_url(after=rows[-1][0]) if more else None,
        newest=current_url(after=None) if after else None,
    )


@blueprint.get("/new")
def new() -> str:
    """The form for a new project."""
    return render_template("projects/new.html", form=ProjectForm())


@blueprint.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Make a project, with the owner in it."""
    form = ProjectForm()
    owner = current_owner()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            made = projects.add(conn, owner.id, form.name.data, actor=owner.handle)
            participations.get_or_create_owner_context(conn, owner.id, made.id)
    if form.errors:
        return render_template("projects/new.html", form=form), 400
    return see_other("overview.index", project_id=made.id)
