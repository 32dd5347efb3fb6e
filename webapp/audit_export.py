"""Filters and export of the audit log."""

from collections.abc import Callable, Sequence
from typing import Any

from flask import Response, request
from flask_wtf import FlaskForm

from bus import limits
from bus.db import Connection
from bus.errors import BusError
from bus.rules import validation
from bus.tenancy import projects
from bus.tenancy.audit import AuditEntry, AuditFilter
from webapp.csv_export import export_rows
from webapp.forms import optional_text_field

_COLUMNS = ("id", "at", "owner", "actor", "action", "subject", "project_id", "project", "detail")


class AuditFilterForm(FlaskForm):  # type: ignore[misc]
    """Filters of the audit log, combined with AND."""

    class Meta:
        """Filters are sent with GET and need no CSRF token."""

        csrf = False

    actor = optional_text_field(
        "By", limits.MAX_QUALIFIED_NAME_LENGTH, description="A handle, handle/label, cli or clock."
    )
    action = optional_text_field("Action", 64, description="token, or token.rotate")
    project = optional_text_field("Project", limits.MAX_QUALIFIED_NAME_LENGTH, description="Its name or id.")
    since = optional_text_field("Since (UTC)", 64, description="2026-01-31 or 2026-01-31T12:00")
    until = optional_text_field("Until (UTC)", 64)

    def to_filter(self, conn: Connection, *, owner_handle: str | None = None) -> AuditFilter:
        """Convert the form.

        Args:
            conn: the connection, to look up the project.
            owner_handle: restricts the project to those of this owner.
        Raises:
            BusError: a field is invalid, or the project does not exist.
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
            # A deleted project has no name, but its audit entries remain.
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
    """The filters in the query string, for links that keep them."""
    return {name: value for name, value in request.args.items() if name != "before" and value}


def export_entries(fetch_batch: Callable[[int | None], Sequence[AuditEntry]], file_format: str) -> Response:
    """Stream audit entries, newest first; see `export_rows`."""
    return export_rows(fetch_batch, _to_values, columns=_COLUMNS, name="audit", file_format=file_format)


def _to_values(entry: AuditEntry) -> tuple[Any, ...]:
    return (
        entry.id,
        entry.at.isoformat(),
        entry.owner,
        entry.actor,
        entry.action,
        entry.subject,
        entry.project_id,
        entry.project,
        dict(entry.detail),
    )
