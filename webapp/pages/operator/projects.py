"""Projects of all owners: size and activity, without their content."""

from flask import render_template, request
from flask_wtf import FlaskForm
from wtforms import SelectField

from bus.operations import console_queries
from webapp.blueprints import NavItem, OperatorBlueprint
from webapp.forms import optional_text_field, select_choices
from webapp.pagination import current_url, fetch_page

blueprint = OperatorBlueprint("operator_projects", path="projects", tab=NavItem("Projects", 30))

_STATE_CHOICES = select_choices(("", "All"), ("open", "Open"), ("archived", "Archived"), ("purging", "Being deleted"))


class SearchForm(FlaskForm):  # type: ignore[misc]
    """Filters of the list."""

    class Meta:
        """Filters are sent with GET and need no CSRF token."""

        csrf = False

    search = optional_text_field("Project or owner", 129, description="Partial matches of handle/name work.")
    state = SelectField("State", choices=_STATE_CHOICES, default="")


@blueprint.get("/")
def index() -> str:
    """List projects, newest first."""
    form = SearchForm(request.args)
    page = fetch_page(
        lambda conn, before, limit: console_queries.list_projects(
            conn, form.search.data, state=form.state.data or None, before=before, limit=limit
        )
    )
    return render_template(
        "operator/projects.html",
        form=form,
        filter_error=page.filter_error,
        projects=page.rows,
        has_filters=bool(form.search.data),
        chips=[
            (
                choice.label,
                current_url(state=choice.value or None, before=None),
                (form.state.data or "") == choice.value,
            )
            for choice in _STATE_CHOICES
        ],
        older=page.older,
        newest=page.newest,
    )
