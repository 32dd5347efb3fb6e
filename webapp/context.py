"""What a request gets from the application: connections, settings, addresses, providers; and refusals as messages."""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import abort, current_app, flash, redirect
from flask_wtf import FlaskForm

from bus.client_setup import Endpoints
from bus.config.settings import Settings
from bus.db import Connection, Database
from bus.errors import BusError
from webapp.oauth_client import Provider
from webapp.settings import WebOptions


def database() -> Database:
    """The connection pool of this process."""
    database: Database = current_app.extensions["bus.db"]
    return database


def settings() -> Settings:
    """The settings that all processes share."""
    settings: Settings = current_app.extensions["bus.settings"]
    return settings


def options() -> WebOptions:
    """The settings of the web process."""
    options: WebOptions = current_app.extensions["bus.options"]
    return options


def addresses() -> Endpoints:
    """The public addresses of the service."""
    endpoints: Endpoints = current_app.extensions["bus.addresses"]
    return endpoints


def providers() -> dict[str, Provider]:
    """The configured sign-in providers by slug."""
    providers: dict[str, Provider] = current_app.extensions["bus.providers"]
    return providers


@contextmanager
def connection() -> Iterator[Connection]:
    """A connection in autocommit mode, for reads."""
    with database().connection() as conn:
        yield conn


@contextmanager
def transaction() -> Iterator[Connection]:
    """A connection in a transaction that commits at the end of the block and rolls back on an exception."""
    with database().transaction() as conn:
        yield conn


@contextmanager
def redirect_on_refusal(url: str, *, extra_codes: tuple[str, ...] = ()) -> Iterator[None]:
    """Turn an error of the engine into a message on the page at `url`; `not_found` remains a 404.

    For actions without form fields. Open the transaction inside this block, so that it is rolled back.

    Args:
        url: the page that shows the message.
        extra_codes: error codes to show there that otherwise get an error page.
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
    """Turn an error of the engine into an error of the form; check `form.errors` afterwards.

    The message is attached to the field whose name begins it, else to `default_field`, else to the form.
    """
    try:
        yield
    except BusError as error:
        if error.code in ("not_found", "unavailable"):
            raise
        field = next((field for field in form if error.message.startswith(f"{field.name} ")), None)
        if field is not None:
            field.errors = [*field.errors, _use_field_label(error.message, field.name, field.label.text)]
        elif default_field is not None:
            form[default_field].errors = [*form[default_field].errors, error.message]
        else:
            form.form_errors.append(error.message)


def _use_field_label(message: str, argument: str, label: str) -> str:
    """Replace the name of the argument, with which the engine's message begins, by the label of its field."""
    return label + message.removeprefix(argument)
