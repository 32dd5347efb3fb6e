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
from bus.tenancy.audit import AuditEntry, AuditFilter
from webapp.forms import escape_formula, optional_text_field

BATCH_SIZE = 1000
# Asks for a batch of acts with ids below a number.
FetchBatch = Callable[[int | None], Sequence[AuditEntry]]


class AuditFilterForm(FlaskForm):  # type: ignore[misc]
    """Which acts to show; all of it must match."""

    class Meta:
        csrf = False

    actor = optional_text_field(
        "Who", limits.MAX_QUALIFIED_NAME_LENGTH, description="A handle, handle/label, cli or clock."
    )
    action = optional_text_field("What", 64, description="token, or token.rotate")
    project = optional_text_field("Project", limits.MAX_QUALIFIED_NAME_LENGTH, description="Its name, or its number.")
    since = optional_text_field("Since (UTC)", 64, description="2026-01-31 or 2026-01-31T12:00")
    until = optional_text_field("Until (UTC)", 64)

    def to_filter(self, conn: Connection, *, owner_handle: str | None = None) -> AuditFilter:
        """The filter that was asked for.

        Args:
            within: the handle of the owner whose projects may be named; None: everybody's.
        Raises:
            BusError: a field makes no sense, or there is no such project.
        """
        for field in (self.actor, self.action, self.project):
            if field.data:
                validation.name(field.data, field.name, limits.MAX_QUALIFIED_NAME_LENGTH)
        return AuditFilter(
            actor=self.actor.data,
            action=self.action.data,
            project_id=self._get_project_id(conn, owner_handle) if self.project.data else None,
            since=validation.timestamp(self.since.data, "since"),
            until=validation.timestamp(self.until.data, "until"),
        )

    def _get_project_id(self, conn: Connection, owner_handle: str | None) -> int:
        name = self.project.data
        if name.isascii() and name.isdecimal() and len(name) < 17:
            # What is deleted has no name any more, and what was done there stays.
            return int(name)
        if owner_handle is not None:
            name = f"{owner_handle}/{name.rpartition('/')[2]}"
        try:
            return projects.get_by_name(conn, name).id
        except BusError as error:
            if error.code != "not_found":
                raise
            raise BusError("not_found", f"There is no project {self.project.data}.") from None


def query_filters() -> dict[str, str]:
    """The filters in the address at hand, for links that keep them."""
    return {name: value for name, value in request.args.items() if name != "before" and value}


def export_acts(fetch_batch: FetchBatch, file_format: str) -> Response:
    """Stream acts, newest first: a batch at a time, each in a look of its own, so that nothing is held up meanwhile.

    Args:
        fetch: gives at most BATCH acts. Called once before anything is sent, so that a refusal is told.
        ending: csv or jsonl.
    """
    first = fetch_batch(None)
    written, mimetype = (_to_csv, "text/csv") if file_format == "csv" else (_to_jsonl, "application/x-ndjson")
    answer = Response(written(_iter_batches(first, fetch_batch)), mimetype=mimetype)
    answer.headers["Content-Disposition"] = f'attachment; filename="audit.{file_format}"'
    return answer


def _iter_batches(batch: Sequence[AuditEntry], fetch_batch: FetchBatch) -> Iterator[Sequence[AuditEntry]]:
    while batch:
        yield batch
        batch = fetch_batch(batch[-1].id) if len(batch) == BATCH_SIZE else ()


def _to_jsonl(batches: Iterator[Sequence[AuditEntry]]) -> Iterator[str]:
    for acts in batches:
        yield "".join(
            json.dumps({**_to_dict(act), "detail": act.detail}, ensure_ascii=False, default=str) + "\n" for act in acts
        )


def _to_csv(batches: Iterator[Sequence[AuditEntry]]) -> Iterator[str]:
    yield "id,at,owner,actor,action,subject,project_id,project,detail\r\n"
    for acts in batches:
        written = io.StringIO()
        table = csv.writer(written)
        for act in acts:
            # A detail begins with a brace and is safe.
            table.writerow(
                [*map(escape_formula, _to_dict(act).values()), json.dumps(act.detail, ensure_ascii=False, default=str)]
            )
        yield written.getvalue()


def _to_dict(act: AuditEntry) -> dict[str, Any]:
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
