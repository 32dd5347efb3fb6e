"""Every project: whose it is, how large, whether it is used. What is in it is its owner's."""

from typing import Any

from flask import render_template, request
from flask_wtf import FlaskForm
from wtforms import SelectField

from bus.errors import BusError
from bus.operations import queries
from webapp.blueprints import Entry, OperatorPages
from webapp.context import reading
from webapp.forms import PER_PAGE, asked_number, choices, split, this_page, words

pages = OperatorPages("operator_projects", path="projects", tab=Entry("Projects", 30))

_STATES = choices(("", "any"), ("open", "open"), ("archived", "archived"), ("purging", "being deleted"))


class SearchForm(FlaskForm):  # type: ignore[misc]
    """Which to show."""

    class Meta:
        csrf = False

    search = words("Project or owner", 129, description="Any part of handle/name.")
    state = SelectField("State", choices=_STATES, default="")


@pages.get("/")
def index() -> str:
    """Projects, the newest first."""
    form, before, problem = SearchForm(request.args), asked_number("before"), None
    rows: Any = ()
    more = False
    try:
        with reading() as conn:
            found = queries.list_projects(
                conn, form.search.data, state=form.state.data or None, before=before, limit=PER_PAGE + 1
            )
            rows, more = split(found)
    except BusError as error:
        problem = error.message
    return render_template(
        "operator/projects.html",
        form=form,
        problem=problem,
        projects=rows,
        asked=bool(form.search.data or form.state.data),
        older=this_page(before=str(rows[-1].id)) if more else None,
        newest=this_page(before=None) if before else None,
    )
