"""The owner's projects: all of them, and a new one."""

from flask import Response, render_template, request
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse

from bus import limits
from bus.coordination import dashboard
from bus.tenancy import humans, projects
from webapp.auth import current_owner
from webapp.blueprints import Entry, Pages, render, see_other
from webapp.context import reading, refused_on, writing
from webapp.forms import PER_PAGE, needed, split, this_page

pages = Pages("projects", prefix="/admin/projects", entry=Entry("Projects", 20))


class ProjectForm(FlaskForm):  # type: ignore[misc]
    """What a project begins with: its name."""

    name = needed("Name", limits.LABEL, description="As short as you say it, such as apollo. You can change it later.")


@pages.get("/")
def index() -> str | Response:
    """The projects by name, archived ones too."""
    after = request.args.get("after", "")
    with reading() as conn:
        rows, more = split(dashboard.list_projects(conn, current_owner().id, after=after, limit=PER_PAGE + 1))
    return render(
        "projects/index.html",
        projects=[card for _, card in rows],
        older=this_page(after=rows[-1][0]) if more else None,
        newest=this_page(after=None) if after else None,
    )


@pages.get("/new")
def new() -> str:
    """The form for a new project."""
    return render_template("projects/new.html", form=ProjectForm())


@pages.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Make a project, with the owner in it."""
    form = ProjectForm()
    owner = current_owner()
    if form.validate():
        with refused_on(form), writing() as conn:
            made = projects.add(conn, owner.id, form.name.data, actor=owner.handle)
            humans.enter(conn, owner.id, made.id)
    if form.errors:
        return render_template("projects/new.html", form=form), 400
    return see_other("overview.index", project_id=made.id)
