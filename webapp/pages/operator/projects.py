"""Every project: whose it is, how large, whether it is used. What is in it is its owner's."""

from typing import Any

from flask import render_template, request
from flask_wtf import FlaskForm
from wtforms import SelectField

from bus.errors import BusError
from bus.operations import queries
from webapp.blueprints import NavItem, OperatorBlueprint
from webapp.context import connection
from webapp.forms import PAGE_SIZE, current_url, optional_text_field, query_int, select_choices, split_page

blueprint = OperatorBlueprint("operator_projects", path="projects", tab=NavItem("Projects", 30))

_STATE_CHOICES = select_choices(("", "any"), ("open", "open"), ("archived", "archived"), ("purging", "being deleted"))


class SearchForm(FlaskForm):  # type: ignore[misc]
    """Which to show."""

    class Meta:
        csrf = False

    search = optional_text_field("Project or owner", 129, description="Any part of handle/name.")
    state = SelectField("State", choices=_STATE_CHOICES, default="")


@blueprint.get("/")
def index() -> str:
    """Projects, the newest first."""
    form, before, problem = SearchForm(request.args), query_int("before"), None
    rows: Any = ()
    more = False
    try:
        with connection() as conn:
            found = queries.list_projects(
                conn, form.search.data, state=form.state.data or None, before=before, limit=PAGE_SIZE + 1
            )
            rows, more = split_page(found)
    except BusError as error:
        problem = error.message
    return render_template(
        "operator/projects.html",
        form=form,
        filter_error=problem,
        projects=rows,
        has_filters=bool(form.search.data or form.state.data),
        older=current_url(before=str(rows[-1].id)) if more else None,
        newest=current_url(before=None) if before else None,
    )
