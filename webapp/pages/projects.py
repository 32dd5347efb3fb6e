"""The owner's projects, and creating one."""

from flask import Response, render_template, request
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse

from bus import limits
from bus.coordination import dashboard
from bus.db.pagination import paginate
from bus.tenancy import owner_participation
from bus.tenancy import projects as projects_engine
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OwnerBlueprint, render_page, see_other
from webapp.context import connection, show_refusal_on_form, transaction
from webapp.forms import required_text_field
from webapp.pagination import PAGE_SIZE, current_url

blueprint = OwnerBlueprint("projects", url_prefix="/admin/projects", nav_item=NavItem("Projects", 20, "folder"))


class ProjectForm(FlaskForm):  # type: ignore[misc]
    """A new project."""

    name = required_text_field(
        "Name", limits.MAX_LABEL_LENGTH, description="A short name, e.g. apollo. You can change it later."
    )


@blueprint.get("/")
def index() -> str | Response:
    """List the projects by name, including archived ones."""
    after = request.args.get("after", "")
    with connection() as conn:
        rows = dashboard.list_projects(conn, current_owner().id, after=after, limit=PAGE_SIZE + 1)
    page, has_more = paginate(rows, PAGE_SIZE)
    return render_page(
        "projects/index.html",
        projects=page,
        older=current_url(after=page[-1].name_key) if has_more else None,
        newest=current_url(after=None) if after else None,
    )


@blueprint.get("/new")
def new() -> str:
    """Show the form for a new project."""
    return render_template("projects/new.html", form=ProjectForm())


@blueprint.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Create a project with the owner as a participant."""
    form, owner = ProjectForm(), current_owner()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            project = projects_engine.add(conn, owner.id, form.name.data, actor=owner.handle)
            owner_participation.get_or_create_owner_context(conn, owner.id, project.id)
    if form.errors:
        return render_template("projects/new.html", form=form), 400
    return see_other("overview.index", project_id=project.id)
