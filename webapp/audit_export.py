"""The audit log in the web: its filters, and its export."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flask import Response, request
from flask_wtf import FlaskForm

from bus import limits
from bus.db import Connection
from bus.errors import BusError
from bus.rules import validation
from bus.tenancy import projects
from bus.tenancy.audit import Act, Filter
from webapp.forms import cell, words

BATCH = 1000
# Asks for a batch of acts with ids below a number.
Fetch = Callable[[int | None], Sequence[Act]]


class ActsForm(FlaskForm):  # type: ignore[misc]
    """Which acts to show; all of it must match."""

    class Meta:
        csrf = False

    actor = words("Who", limits.QUALIFIED, description="A handle, handle/label, cli or clock.")
    action = words("What", 64, description="token, or token.rotate")
    project = words("Project", limits.QUALIFIED, description="Its name, or its number.")
    since = words("Since (UTC)", 64, description="2026-01-31 or 2026-01-31T12:00")
    until = words("Until (UTC)", 64)

    def wanted(self, conn: Connection, *, within: str | None = None) -> Filter:
        """The filter that was asked for.

        Args:
            within: the handle of the owner whose projects may be named; None: everybody's.
        Raises:
            BusError: a field makes no sense, or there is no such project.
        """
        for field in (self.actor, self.action, self.project):
            if field.data:
                validation.name(field.data, field.name, limits.QUALIFIED)
        return Filter(
            actor=self.actor.data,
            action=self.action.data,
            project_id=self._project(conn, within) if self.project.data else None,
            since=validation.moment(self.since.data, "since"),
            until=validation.moment(self.until.data, "until"),
        )

    def _project(self, conn: Connection, within: str | None) -> int:
        name = self.project.data
        if name.isascii() and name.isdecimal() and len(name) < 17:
            # What is deleted has no name any more, and what was done there stays.
            return int(name)
        if within is not None:
            name = f"{within}/{name.rpartition('/')[2]}"
        try:
            return projects.get_named(conn, name).id
        except BusError as error:
            if error.code != "not_found":
                raise
            raise BusError("not_found", f"There is no project {self.project.data}.") from None


def asked() -> dict[str, str]:
    """The filters in the address at hand, for links that keep them."""
    return {name: value for name, value in request.args.items() if name != "before" and value}


def export(fetch: Fetch, ending: str) -> Response:
    """Stream acts, newest first: a batch at a time, each in a look of its own, so that nothing is held up meanwhile.

    Args:
        fetch: gives at most BATCH acts. Called once before anything is sent, so that a refusal is told.
        ending: csv or jsonl.
    """
    first = fetch(None)
    written, mimetype = (_csv, "text/csv") if ending == "csv" else (_jsonl, "application/x-ndjson")
    answer = Response(written(_batches(first, fetch)), mimetype=mimetype)
    answer.headers["Content-Disposition"] = f'attachment; filename="audit.{ending}"'
    return answer


def _batches(found: Sequence[Act], fetch: Fetch) -> Iterator[Sequence[Act]]:
    while found:
        yield found
        found = fetch(found[-1].id) if len(found) == BATCH else ()


def _jsonl(batches: Iterator[Sequence[Act]]) -> Iterator[str]:
    for acts in batches:
        yield "".join(
            json.dumps({**_facts(act), "detail": act.detail}, ensure_ascii=False, default=str) + "\n" for act in acts
        )


def _csv(batches: Iterator[Sequence[Act]]) -> Iterator[str]:
    yield "id,at,owner,actor,action,subject,project_id,project,detail\r\n"
    for acts in batches:
        written = io.StringIO()
        table = csv.writer(written)
        for act in acts:
            # A detail begins with a brace and is safe.
            table.writerow([*map(cell, _facts(act).values()), json.dumps(act.detail, ensure_ascii=False, default=str)])
        yield written.getvalue()


def _facts(act: Act) -> dict[str, Any]:
    return {
        "id": act.id,
        "at": act.at.isoformat(),
        "owner": act.owner,
        "actor": act.actor,
        "action": act.action,
        "subject": act.subject,
        "project_id": act.project_id,
        "project": act.project,
    }
