"""Projects of all owners: size and activity, without their content."""

from typing import Any

from flask import render_template, request
from flask_wtf import FlaskForm
from wtforms import SelectField

from bus.db.pagination import paginate
from bus.errors import BusError
from bus.operations import console_queries
from webapp.blueprints import NavItem, OperatorBlueprint
from webapp.context import connection
from webapp.forms import optional_text_field, select_choices
from webapp.pagination import PAGE_SIZE, current_url, query_int

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
    form, before, filter_error = SearchForm(request.args), query_int("before"), None
    page: Any = ()
    has_more = False
    try:
        with connection() as conn:
            rows = console_queries.list_projects(
                conn, form.search.data, state=form.state.data or None, before=before, limit=PAGE_SIZE + 1
            )
        page, has_more = paginate(rows, PAGE_SIZE)
    except BusError as error:
        filter_error = error.message
    return render_template(
        "operator/projects.html",
        form=form,
        filter_error=filter_error,
        projects=page,
        has_filters=bool(form.search.data),
        chips=[
            (
                choice.label,
                current_url(state=choice.value or None, before=None),
                (form.state.data or "") == choice.value,
            )
            for choice in _STATE_CHOICES
        ],
        older=current_url(before=str(page[-1].id)) if has_more else None,
        newest=current_url(before=None) if before else None,
    )
