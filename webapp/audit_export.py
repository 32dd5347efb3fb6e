"""Filters and export of the audit log."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Response, request
from flask_wtf import FlaskForm
from wtforms import Field

from bus import limits
from bus.db import Connection
from bus.errors import BusError, InvalidArgument
from bus.rules import validation
from bus.tenancy import projects
from bus.tenancy.audit import AuditEntry, AuditFilter
from webapp.csv_export import export_rows
from webapp.forms import optional_text_field
from webapp.pagination import current_url

# The chips of the filter: the subject of acts, and its label.
_NOUNS = (
    ("token", "Tokens"),
    ("participant", "Participants"),
    ("participation", "Access"),
    ("invite", "Invites"),
    ("project", "Projects"),
    ("session", "Sessions"),
)
_COLUMNS = ("id", "at", "owner", "actor", "action", "subject", "project_id", "project", "detail")


class AuditFilterForm(FlaskForm):  # type: ignore[misc]
    """Filters of the audit log, combined with AND."""

    class Meta:
        """Filters are sent with GET and need no CSRF token."""

        csrf = False

    actor = optional_text_field(
        "By", limits.MAX_QUALIFIED_NAME_LENGTH, description="A handle, handle/label, cli or clock."
    )
    action = optional_text_field("Action", 64, description="token.rotate, or token for all of them.")
    project = optional_text_field("Project", limits.MAX_QUALIFIED_NAME_LENGTH, description="Its name or id.")
    since = optional_text_field("From (UTC)", 64)
    until = optional_text_field("To (UTC)", 64)

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
            since=_to_time(self.since),
            until=_to_time(self.until, is_end=True),
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


@dataclass(frozen=True, slots=True)
class ShownFilters:
    """The filters of the list as its page shows them.

    Attributes:
        chips: the quick filters: label, address, and whether it is current.
        active: the others that are set: label, value, and the address without it.
        query: all that are set, for links that keep them.
    """

    form: AuditFilterForm
    chips: list[tuple[str, str, bool]]
    active: list[tuple[str, str, str]]
    query: dict[str, str]


def show_filters(form: AuditFilterForm) -> ShownFilters:
    """The filters in the query string, for the page of the list."""
    query = {name: value for name, value in request.args.items() if name != "before" and value}
    action = query.get("action")
    chips = [("All", current_url(action=None, before=None), action is None)]
    chips += [(label, current_url(action=noun, before=None), action == noun) for noun, label in _NOUNS]
    return ShownFilters(
        form=form,
        chips=chips,
        active=[
            (form[name].label.text.removesuffix(" (UTC)"), value, current_url(**{name: None}, before=None))
            for name, value in query.items()
            if name in form and not (name == "action" and value in dict(_NOUNS))
        ],
        query=query,
    )


def _to_time(field: Field, *, is_end: bool = False) -> datetime | None:
    text = field.data
    if text and is_end and len(text) == len("2026-01-31"):
        # A date field means the whole day.
        text += "T23:59:59.999999"
    try:
        return validation.timestamp(text, field.name)
    except InvalidArgument:
        raise InvalidArgument(f"{field.label.text}: enter a date such as 2026-01-31.") from None


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
