"""The ledger of a project: filtered, linked to and exported."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from flask import Response, abort, render_template, request
from flask_wtf import FlaskForm
from werkzeug.exceptions import NotFound
from wtforms import SelectField

from bus import limits
from bus.coordination import conversations, ledger
from bus.coordination.ledger import Event, EventPage
from bus.errors import BusError, InvalidArgument
from bus.rules.enums import EVENT_TYPES
from webapp.blueprints import ID_CONVERTER, NavItem, ProjectBlueprint, current_project, render_page
from webapp.caller import current_caller
from webapp.context import connection, database
from webapp.csv_export import BATCH_SIZE, export_rows
from webapp.event_runs import find_titled_posts
from webapp.forms import optional_text_field, select_choices
from webapp.pagination import current_url, query_int

blueprint = ProjectBlueprint("ledger", tab=NavItem("Ledger", 30, "scroll-text"))

_PAGE_SIZE = 40
_EXPORT_COLUMNS = ("id", "ts", "actor", "type", "payload")


class FilterForm(FlaskForm):  # type: ignore[misc]
    """Filters of the list, combined with AND; their names are the arguments of `query_events`."""

    class Meta:
        """Filters are sent with GET and need no CSRF token."""

        csrf = False

    actor = optional_text_field("Actor", limits.MAX_QUALIFIED_NAME_LENGTH)
    type = SelectField("Type", choices=select_choices(("", "Any"), *((name, name) for name in EVENT_TYPES)))
    sequence = optional_text_field("Sequence", limits.MAX_SEQUENCE_NAME_LENGTH)
    number = optional_text_field("Number", 16)
    ref = optional_text_field("Reference", limits.MAX_REF_LENGTH)
    tag = optional_text_field("Tag", limits.MAX_LABEL_LENGTH)
    since = optional_text_field("From (UTC)", 64)
    until = optional_text_field("To (UTC)", 64)

    def to_query(self) -> dict[str, Any]:
        """The filters as arguments of `query_events`."""
        query = {field.name: field.data for field in self if field.data}
        if "number" in query:
            text = query["number"]
            if not (text.isascii() and text.isdecimal()):
                raise InvalidArgument("Number: enter a whole number such as 42.")
            query["number"] = int(text)
        for name in ("since", "until"):
            if name in query and not _is_time(query[name]):
                raise InvalidArgument(f"{self[name].label.text}: enter a date such as 2026-01-31.")
        if len(query.get("until", "")) == len("2026-01-31"):
            # A date field means the whole day.
            query["until"] += "T23:59:59.999999"
        return query


@blueprint.get("/")
def index() -> str | Response:
    """List events, newest first."""
    ctx, before, form = current_caller(), query_int("before"), FilterForm(request.args)
    filter_error, page, titles = None, EventPage([], None, 0), {}
    try:
        with connection() as conn:
            page = ledger.query_events(conn, ctx, before=before, limit=_PAGE_SIZE, **form.to_query())
            titles = conversations.get_titles(conn, ctx, find_titled_posts(page.events))
    except BusError as error:
        filter_error = error.message
    filters = {name: value for name, value in request.args.items() if name != "before" and value}
    return render_page(
        "ledger/index.html",
        part="ledger/_list.html",
        project=current_project(),
        form=form,
        filters=filters,
        titles=titles,
        active_filters=[
            (form[name].label.text, value, current_url(**{name: None}, before=None))
            for name, value in filters.items()
            if name in form
        ],
        filter_error=filter_error,
        events=page.events,
        current_url=current_url(),
        older=current_url(before=str(page.next_before)) if page.next_before else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.get(f"/<{ID_CONVERTER}:seq>")
def show(seq: int) -> str:
    """Show one event, with links to the previous and the next one."""
    if seq > limits.MAX_INTEGER - 2:
        raise NotFound
    with connection() as conn:
        nearby = ledger.query_events(conn, current_caller(), before=seq + 2, limit=3).events
        titles = conversations.get_titles(conn, current_caller(), find_titled_posts(nearby))
    event = next((event for event in nearby if event.id == seq), None)
    if event is None:
        raise NotFound
    return render_template(
        "ledger/show.html",
        project=current_project(),
        event=event,
        titles=titles,
        payload=json.dumps(event.payload, indent=2, ensure_ascii=False),
        later=any(event.id == seq + 1 for event in nearby),
        earlier=seq > 1,
    )


@blueprint.get("/export.jsonl")
def export_jsonl() -> Response:
    """Export the filtered events as JSON lines, newest first."""
    return _export("jsonl")


@blueprint.get("/export.csv")
def export_csv() -> Response:
    """Export the filtered events as CSV, newest first, with the payload as JSON."""
    return _export("csv")


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _export(file_format: str) -> Response:
    ctx, db = current_caller(), database()
    try:
        query = FilterForm(request.args).to_query()

        def fetch_batch(before: int | None) -> Sequence[Event]:
            with db.connection() as conn:
                return ledger.query_events(conn, ctx, before=before, limit=BATCH_SIZE, **query).events

        return export_rows(
            fetch_batch,
            lambda event: (event.id, event.ts.isoformat(), event.actor, event.type, event.payload),
            columns=_EXPORT_COLUMNS,
            name=f"ledger-{current_project().id}",
            file_format=file_format,
        )
    except BusError as error:
        abort(400, error.message)
