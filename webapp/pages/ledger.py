"""The ledger: everything that happened, in order and for good; filtered, linked to and exported."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from flask import Response, abort, render_template, request
from flask_wtf import FlaskForm
from werkzeug.exceptions import NotFound
from wtforms import SelectField

from bus import limits
from bus.coordination import ledger
from bus.coordination.ledger import Event, EventPage
from bus.ctx import Ctx
from bus.db import Database
from bus.errors import BusError, InvalidArgument
from bus.rules.enums import EVENT_TYPES
from webapp.blueprints import NavItem, ProjectBlueprint, current_project, render_page
from webapp.context import connection, database
from webapp.forms import (
    ID_CONVERTER,
    PAGE_SIZE,
    current_caller,
    current_url,
    optional_text_field,
    query_int,
    select_choices,
    to_csv,
)

blueprint = ProjectBlueprint("ledger", tab=NavItem("Ledger", 50))

_BATCH_SIZE = 1000


class FilterForm(FlaskForm):  # type: ignore[misc]
    """Which events to show: the filters of query_events, all of which must match."""

    class Meta:
        csrf = False

    actor = optional_text_field("By", limits.MAX_QUALIFIED_NAME_LENGTH)
    type = SelectField("Type", choices=select_choices(("", "every"), *((one, one) for one in EVENT_TYPES)))
    sequence = optional_text_field("Sequence", limits.MAX_SEQUENCE_NAME_LENGTH)
    number = optional_text_field("Number", 16)
    ref = optional_text_field("About", limits.MAX_REF_LENGTH)
    tag = optional_text_field("Tag", limits.MAX_LABEL_LENGTH)
    since = optional_text_field("Since (UTC)", 64, description="2026-01-31 or 2026-01-31T12:00")
    until = optional_text_field("Until (UTC)", 64)

    def to_query(self) -> dict[str, Any]:
        """The filters as the engine takes them."""
        found = {field.name: field.data for field in self if field.data}
        if "number" in found:
            text = found["number"]
            if not (text.isascii() and text.isdecimal()):
                raise InvalidArgument("number must be a whole number.")
            found["number"] = int(text)
        return found


@blueprint.get("/")
def index() -> str | Response:
    """Events, newest first."""
    ctx, before, form = current_caller(), query_int("before"), FilterForm(request.args)
    problem, found = None, EventPage([], None, 0)
    try:
        with connection() as conn:
            found = ledger.query_events(conn, ctx, before=before, limit=PAGE_SIZE, **form.to_query())
    except BusError as error:
        problem = error.message
    asked = {name: value for name, value in request.args.items() if name != "before" and value}
    return render_page(
        "ledger/index.html",
        part="ledger/_list.html",
        project=current_project(),
        form=form,
        filters=asked,
        filter_error=problem,
        events=found.events,
        current_url=current_url(),
        older=current_url(before=str(found.next_before)) if found.next_before else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.get(f"/<{ID_CONVERTER}:seq>")
def show(seq: int) -> str:
    """One event, with its neighbours: the address to pass on."""
    if seq > limits.MAX_INTEGER - 2:
        raise NotFound
    with connection() as conn:
        around = ledger.query_events(conn, current_caller(), before=seq + 2, limit=3).events
    event = next((one for one in around if one.id == seq), None)
    if event is None:
        raise NotFound
    return render_template(
        "ledger/show.html",
        project=current_project(),
        event=event,
        payload=json.dumps(event.payload, indent=2, ensure_ascii=False),
        later=any(one.id == seq + 1 for one in around),
        earlier=seq > 1,
    )


@blueprint.get("/export.jsonl")
def export_jsonl() -> Response:
    """The events that the filters find as JSON, one on a line, newest first."""
    return _export_response("application/x-ndjson", "jsonl", _to_jsonl)


@blueprint.get("/export.csv")
def export_csv() -> Response:
    """The events that the filters find as a table, newest first; the payload is JSON in its last column."""
    return _export_response("text/csv", "csv", _to_csv)


def _export_response(
    mimetype: str, extension: str, serialize: Callable[[Iterator[list[Event]]], Iterator[str]]
) -> Response:
    """Stream the ledger: a batch at a time, each in a look of its own, so that nothing is held up meanwhile."""
    ctx, db = current_caller(), database()
    try:
        filters = FilterForm(request.args).to_query()
        # What is refused is refused before anything is sent.
        with connection() as conn:
            first = ledger.query_events(conn, ctx, limit=_BATCH_SIZE, **filters)
    except BusError as error:
        abort(400, error.message)
    name = f"ledger-{current_project().id}.{extension}"
    answer = Response(serialize(_iter_batches(db, ctx, first, filters)), mimetype=mimetype)
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def _iter_batches(db: Database, ctx: Ctx, page: EventPage, filters: dict[str, Any]) -> Iterator[list[Event]]:
    while True:
        yield page.events
        if page.next_before is None:
            return
        with db.connection() as conn:
            page = ledger.query_events(conn, ctx, before=page.next_before, limit=_BATCH_SIZE, **filters)


def _to_jsonl(batches: Iterator[list[Event]]) -> Iterator[str]:
    for events in batches:
        yield "".join(
            json.dumps({**_to_dict(event), "payload": event.payload}, ensure_ascii=False) + "\n" for event in events
        )


def _to_csv(batches: Iterator[list[Event]]) -> Iterator[str]:
    yield "id,ts,actor,type,payload\r\n"
    for events in batches:
        yield to_csv([*_to_dict(event).values(), json.dumps(event.payload, ensure_ascii=False)] for event in events)


def _to_dict(event: Event) -> dict[str, Any]:
    return {"id": event.id, "ts": event.ts.isoformat(), "actor": event.actor, "type": event.type}
