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
from bus.coordination.ledger import Event, Events
from bus.ctx import Ctx
from bus.db import Database
from bus.errors import BusError, InvalidArgument
from bus.rules.enums import EVENT_TYPES
from webapp.blueprints import Entry, ProjectPages, current_project, render
from webapp.context import database, reading
from webapp.forms import ID, PER_PAGE, asked_number, caller, choices, csv_text, this_page, words

pages = ProjectPages("ledger", tab=Entry("Ledger", 50))

_BATCH = 1000


class FilterForm(FlaskForm):  # type: ignore[misc]
    """Which events to show: the filters of query_events, all of which must match."""

    class Meta:
        csrf = False

    actor = words("By", limits.QUALIFIED)
    type = SelectField("Type", choices=choices(("", "every"), *((one, one) for one in EVENT_TYPES)))
    sequence = words("Sequence", limits.SEQUENCE)
    number = words("Number", 16)
    ref = words("About", limits.REF)
    tag = words("Tag", limits.LABEL)
    since = words("Since (UTC)", 64, description="2026-01-31 or 2026-01-31T12:00")
    until = words("Until (UTC)", 64)

    def asked(self) -> dict[str, Any]:
        """The filters as the engine takes them."""
        found = {field.name: field.data for field in self if field.data}
        if "number" in found:
            text = found["number"]
            if not (text.isascii() and text.isdecimal()):
                raise InvalidArgument("number must be a whole number.")
            found["number"] = int(text)
        return found


@pages.get("/")
def index() -> str | Response:
    """Events, newest first."""
    ctx, before, form = caller(), asked_number("before"), FilterForm(request.args)
    problem, found = None, Events([], None, 0)
    try:
        with reading() as conn:
            found = ledger.query(conn, ctx, before=before, limit=PER_PAGE, **form.asked())
    except BusError as error:
        problem = error.message
    asked = {name: value for name, value in request.args.items() if name != "before" and value}
    return render(
        "ledger/index.html",
        part="ledger/_list.html",
        project=current_project(),
        form=form,
        asked=asked,
        problem=problem,
        events=found.events,
        here=this_page(),
        older=this_page(before=str(found.next_before)) if found.next_before else None,
        newest=this_page(before=None) if before else None,
    )


@pages.get(f"/<{ID}:seq>")
def show(seq: int) -> str:
    """One event, with its neighbours: the address to pass on."""
    if seq > limits.MAX_INTEGER - 2:
        raise NotFound
    with reading() as conn:
        around = ledger.query(conn, caller(), before=seq + 2, limit=3).events
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


@pages.get("/export.jsonl")
def export_jsonl() -> Response:
    """The events that the filters find as JSON, one on a line, newest first."""
    return _export("application/x-ndjson", "jsonl", _jsonl)


@pages.get("/export.csv")
def export_csv() -> Response:
    """The events that the filters find as a table, newest first; the payload is JSON in its last column."""
    return _export("text/csv", "csv", _csv)


def _export(mimetype: str, ending: str, written: Callable[[Iterator[list[Event]]], Iterator[str]]) -> Response:
    """Stream the ledger: a batch at a time, each in a look of its own, so that nothing is held up meanwhile."""
    ctx, db = caller(), database()
    try:
        filters = FilterForm(request.args).asked()
        # What is refused is refused before anything is sent.
        with reading() as conn:
            first = ledger.query(conn, ctx, limit=_BATCH, **filters)
    except BusError as error:
        abort(400, error.message)
    name = f"ledger-{current_project().id}.{ending}"
    answer = Response(written(_batches(db, ctx, first, filters)), mimetype=mimetype)
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def _batches(db: Database, ctx: Ctx, found: Events, filters: dict[str, Any]) -> Iterator[list[Event]]:
    while True:
        yield found.events
        if found.next_before is None:
            return
        with db.call() as conn:
            found = ledger.query(conn, ctx, before=found.next_before, limit=_BATCH, **filters)


def _jsonl(batches: Iterator[list[Event]]) -> Iterator[str]:
    for events in batches:
        yield "".join(
            json.dumps({**_facts(event), "payload": event.payload}, ensure_ascii=False) + "\n" for event in events
        )


def _csv(batches: Iterator[list[Event]]) -> Iterator[str]:
    yield "id,ts,actor,type,payload\r\n"
    for events in batches:
        yield csv_text([*_facts(event).values(), json.dumps(event.payload, ensure_ascii=False)] for event in events)


def _facts(event: Event) -> dict[str, Any]:
    return {"id": event.id, "ts": event.ts.isoformat(), "actor": event.actor, "type": event.type}
