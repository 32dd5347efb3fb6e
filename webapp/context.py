"""The engine as a page reaches it: connections for the request, addresses, options."""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import abort, current_app, flash, redirect
from flask_wtf import FlaskForm

from bus.client_setup import Endpoints
from bus.config.settings import Settings
from bus.db import Connection, Database
from bus.errors import BusError
from webapp.options import WebOptions
from webapp.providers import Provider


def database() -> Database:
    """The pool of this process."""
    found: Database = current_app.extensions["bus.db"]
    return found


def settings() -> Settings:
    """What every process of the bus is told."""
    found: Settings = current_app.extensions["bus.settings"]
    return found


def options() -> WebOptions:
    """What only the web is told."""
    found: WebOptions = current_app.extensions["bus.options"]
    return found


def addresses() -> Endpoints:
    """Where the bus is, as links and cards name it."""
    found: Endpoints = current_app.extensions["bus.addresses"]
    return found


def providers() -> dict[str, Provider]:
    """Those who vouch for people here, by slug."""
    found: dict[str, Provider] = current_app.extensions["bus.providers"]
    return found


@contextmanager
def connection() -> Iterator[Connection]:
    """A connection for looks: no transaction, each statement for itself."""
    with database().connection() as conn:
        yield conn


@contextmanager
def transaction() -> Iterator[Connection]:
    """A connection inside one transaction: it commits when the block ends, and rolls back when it raises."""
    with database().transaction() as conn:
        yield conn


@contextmanager
def redirect_on_refusal(url: str, *, extra_codes: tuple[str, ...] = ()) -> Iterator[None]:
    """Show a refusal of the bus as a message on the page at `url`. What is not there is a 404 as everywhere.

    For acts that have a button and no fields. The block's transaction is inside of this block, so it is rolled back.

    Args:
        also: codes that are shown there too, though they have pages of their own elsewhere.
    """
    try:
        yield
    except BusError as error:
        if error.code in ("not_found", "unavailable") and error.code not in extra_codes:
            raise
        flash(error.message, "error")
        abort(redirect(url, 303))


@contextmanager
def show_refusal_on_form(form: FlaskForm, *, default_field: str | None = None) -> Iterator[None]:
    """Show a refusal of the bus on the form that it speaks of; afterwards `form.errors` says whether there was one.

    The message goes to the field that the refusal names first, else to `field`, else above the form.
    """
    try:
        yield
    except BusError as error:
        if error.code in ("not_found", "unavailable"):
            raise
        named = next((one for one in form if error.message.startswith(f"{one.name} ")), None)
        if named is not None:
            named.errors = [*named.errors, _use_field_label(error.message, named.name, named.label.text)]
        elif default_field is not None:
            form[default_field].errors = [*form[default_field].errors, error.message]
        else:
            form.form_errors.append(error.message)


def _use_field_label(message: str, argument: str, label: str) -> str:
    """The engine speaks of arguments; people know the labels of their fields."""
    return label + message.removeprefix(argument)
