"""Maps the errors of PostgreSQL to the errors of the engine, so that none reaches a client as it is."""

import json
from typing import Any, NoReturn

import psycopg

from bus.errors import BusError, NotAuthenticated, OwnerSuspended, Unavailable

# Raised by the SQL functions: class LB is outside what the SQL standard and PostgreSQL use.
_SQLSTATE_BUS_ERROR = "LBUS0"
_SQLSTATE_NOT_AUTHENTICATED = "LBUS1"
_SQLSTATE_OWNER_SUSPENDED = "LBUS2"

DATABASE_AWAY = "The bus cannot reach its database. Try again in a few seconds."
DATABASE_BUSY = "The bus is busy and gave up waiting; nothing was changed. Try again in a moment."
_STATEMENT_TIMEOUT_MESSAGE = (
    "That query reads too much; nothing was changed. Narrow it: use one filter, "
    "alone or together with type, or a smaller since/until range."
)

_UNIQUE_CONSTRAINT_MESSAGES = {
    "owner_handle_key": "That handle is taken; choose another.",
    "owner_email_key": "An owner with that e-mail exists already.",
    "identity_issuer_subject_key": "That sign-in belongs to an account already.",
    "project_owner_id_name_key_key": "You have a project of that name already; choose another name.",
    "participant_name_pkey": "That participant name is taken; choose another.",
    "participation_project_id_participant_id_key": "That participant is in the project already.",
}


def raise_as_bus_error(error: psycopg.Error) -> NoReturn:
    """Raise the bus's error for a database error; one that is a defect of ours is raised as it is."""
    state = error.sqlstate
    diagnosis = error.diag
    if state == _SQLSTATE_BUS_ERROR:
        facts: dict[str, Any] = json.loads(diagnosis.message_detail or "{}")
        code = facts.pop("code", "invalid_argument")
        hint = facts.pop("hint", None)
        raise BusError(code, diagnosis.message_primary or "", hint=hint, **facts) from None
    if state == _SQLSTATE_NOT_AUTHENTICATED:
        raise NotAuthenticated from None
    if state == _SQLSTATE_OWNER_SUSPENDED:
        raise OwnerSuspended from None
    if state == "57014":
        raise BusError("unavailable", _STATEMENT_TIMEOUT_MESSAGE) from error
    if state in ("55P03", "40P01"):
        raise Unavailable(DATABASE_BUSY) from error
    if diagnosis.constraint_name in _UNIQUE_CONSTRAINT_MESSAGES and state == "23505":
        raise BusError("conflict", _UNIQUE_CONSTRAINT_MESSAGES[diagnosis.constraint_name]) from None
    if isinstance(error, psycopg.OperationalError) or (state or "").startswith(("08", "57", "53", "25006", "25P03")):
        raise Unavailable(DATABASE_AWAY) from error
    raise error
