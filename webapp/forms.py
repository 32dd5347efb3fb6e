"""What the pages of the admin share: the owner as a caller of the engine, cards shown once, fields, paging."""

import csv
import io
import json
import secrets
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from flask import current_app, g, request, url_for
from werkzeug.exceptions import NotFound
from wtforms import Field, SelectChoice, SelectField, StringField
from wtforms.validators import Length, Optional, StopValidation

from bus.coordination import presence
from bus.ctx import Ctx
from bus.db import Connection, one_time_store
from bus.rules.enums import PARTICIPANT_KINDS
from bus.tenancy import humans
from webapp.auth import current_owner, current_session
from webapp.blueprints import ID_CONVERTER as ID_CONVERTER
from webapp.blueprints import current_project
from webapp.context import connection, transaction

PAGE_SIZE = 50
ADMIN_DESCRIPTION = "May let others in, rotate tokens, and work on the tasks of others."
_PURPOSE = "card"
_LIFETIME = timedelta(minutes=10)
Row = TypeVar("Row")


def current_caller() -> Ctx:
    """The owner as a caller of the engine in the project at hand; from the first look on, agents can write to them."""
    if "bus_caller" not in g:
        owner_id, project_id = current_owner().id, current_project().id
        with connection() as conn:
            found = humans.find_owner_context(conn, owner_id, project_id)
        if found is None:
            with transaction() as conn:
                found = humans.get_or_create_owner_context(conn, owner_id, project_id)
        g.bus_caller = found
    ctx: Ctx = g.bus_caller
    return ctx


def record_activity(*topics: str) -> None:
    """Note that the owner was here, as any call of an agent does, and tell those who wait for such things.

    Args:
        kinds: of what was committed; see bus/coordination/change_notifications.py.
    """
    with connection() as conn:
        presence.record_seen(conn, {current_caller().participation_id: 0.0})
        conn.notify_on_commit(current_caller().project_id, "ledger", *topics)


def store_credentials(conn: Connection, kind: str, **content: Any) -> str:
    """Keep what is to be shown once to this browser; returns the key of the page that shows it.

    It lies encrypted under a key made from the cookie of this session and the key of the page, of which the database
    holds neither. Call it in the transaction that mints, so that there is a page for what was minted.
    """
    key = secrets.token_urlsafe(16)
    answer = json.dumps({"kind": kind, **content}).encode()
    one_time_store.store(conn, _PURPOSE, _encryption_secret(key), answer, ttl=_LIFETIME)
    return key


def take_credentials(key: str) -> dict[str, Any]:
    """What was kept for the page with this key, once; a page that is looked at again is 404 and says what to do."""
    content = None
    # A look at the headers alone shows nothing to anybody, and must not use it up.
    if request.method == "GET" and len(key) < 64:
        with transaction() as conn:
            content = one_time_store.pop(conn, _PURPOSE, _encryption_secret(key))
    if content is None:
        raise NotFound("What stood here was shown once. A token that was not copied is replaced by rotating it.")
    found: dict[str, Any] = json.loads(content)
    return found


def _encryption_secret(key: str) -> bytes:
    token = request.cookies.get(current_app.config["BUS_COOKIE_NAME"], "")
    return f"{current_session().id}\n{token}\n{key}".encode("utf-8", "surrogatepass")


def optional_text_field(label: str, max_length: int, *, description: str = "", **options: Any) -> StringField:
    """A field that may stay empty: then it is None."""
    return StringField(
        label,
        filters=[_strip_or_none],
        validators=[Optional(), Length(max=max_length)],
        description=description,
        **options,
    )


def required_text_field(label: str, max_length: int, *, description: str = "") -> StringField:
    """A field that must hold something; the engine judges what."""
    checks = [_Required(label), Length(max=max_length)]
    return StringField(label, filters=[_strip_or_none], validators=checks, description=description)


def kind_field() -> SelectField:
    """Whether a participant is an agent or a human."""
    return SelectField("Kind", choices=select_choices(*((kind, kind) for kind in PARTICIPANT_KINDS)), default="agent")


def token_lifetime_field(label: str) -> SelectField:
    """How long a token lives, in days; empty is until it is revoked."""
    days = select_choices(
        ("", "until it is revoked"), ("1", "1 day"), ("7", "7 days"), ("30", "30 days"), ("90", "90 days")
    )
    return SelectField(label, choices=days, default="")


def select_choices(*pairs: tuple[str, str]) -> list[SelectChoice]:
    """What a select offers: pairs of value and label."""
    return [SelectChoice(value, label) for value, label in pairs]


class _Required:
    """Refuses an empty field in words of ours."""

    field_flags = {"required": True}  # noqa: RUF012 (WTForms reads it off the class)

    def __init__(self, label: str) -> None:
        self._label = label

    def __call__(self, _form: Any, field: Field) -> None:
        if not field.data:
            raise StopValidation(f"{self._label} is needed.")


def _strip_or_none(value: str | None) -> str | None:
    return (value or "").strip() or None


def query_int(name: str) -> int | None:
    """A number of the address's query, such as where a page begins; None where it is missing or is none."""
    said = request.args.get(name, "")
    return int(said) if said.isascii() and said.isdecimal() and 0 < len(said) < 17 else None


def split_page(rows: Sequence[Row], limit: int = PAGE_SIZE) -> tuple[Sequence[Row], bool]:
    """A page of rows that were asked for with one more than `limit`, and whether there are others behind it."""
    return rows[:limit], len(rows) > limit


def current_url(**changes: Any) -> str:
    """The address of this page with some of its query changed; None takes one out."""
    asked = {**request.args.to_dict(), **changes}
    return url_for(str(request.endpoint), **(request.view_args or {}), **{k: v for k, v in asked.items() if v})


def to_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as lines of CSV, in which no spreadsheet takes what people wrote for a formula."""
    text = io.StringIO()
    csv.writer(text).writerows([escape_formula(value) for value in row] for row in rows)
    return text.getvalue()


def escape_formula(value: Any) -> Any:
    """A value for a CSV file that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
