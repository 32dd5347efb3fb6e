"""Mapping of PostgreSQL's errors to the engine's, so that no raw database error reaches a client."""

import json
from typing import Any, NoReturn, cast

import psycopg

from bus.errors import BusError, InsufficientScope, LockNotGranted, NotAuthenticated, OwnerSuspended, Unavailable
from bus.scopes import Scope

# Raised by the SQL functions. Neither the SQL standard nor PostgreSQL uses class LB.
_SQLSTATE_BUS_ERROR = "LBUS0"
_SQLSTATE_NOT_AUTHENTICATED = "LBUS1"
_SQLSTATE_OWNER_SUSPENDED = "LBUS2"
_SQLSTATE_INSUFFICIENT_SCOPE = "LBUS3"
_SQLSTATE_QUERY_CANCELED = "57014"
_SQLSTATES_LOCK_WAIT_FAILED = ("55P03", "40P01")  # lock_not_available, deadlock_detected
_SQLSTATE_UNIQUE_VIOLATION = "23505"
# Connection exceptions, operator intervention, insufficient resources, read-only or ended transactions.
_SQLSTATE_PREFIXES_DATABASE_AWAY = ("08", "57", "53", "25006", "25P03")

DATABASE_AWAY = "The bus cannot reach its database. Try again in a few seconds."
DATABASE_BUSY = "The bus is busy and gave up waiting; nothing was changed. Try again in a moment."
_STATEMENT_TIMEOUT_MESSAGE = (
    "That query reads too much; nothing was changed. Narrow it: use one filter, "
    "alone or together with type, or a smaller since/until range."
)

_UNIQUE_CONSTRAINT_MESSAGES = {
    "owner_handle_key": "That handle is taken; choose another.",
    "owner_handle_pkey": "That handle is taken; choose another.",
    "owner_email_key": "An owner with that e-mail address exists already.",
    "identity_issuer_subject_key": "That sign-in already belongs to an account.",
    "project_owner_id_name_key_key": "You already have a project of that name; choose another name.",
    "participant_name_pkey": "That participant name is taken; choose another.",
    "participation_project_id_participant_id_key": "That participant is already in the project.",
}


def raise_as_bus_error(error: psycopg.Error) -> NoReturn:
    """Raise the engine's error for a database error; a programming error is raised unchanged.

    Raises:
        BusError: an SQL function refused the call, or a statement was cancelled.
        NotAuthenticated, OwnerSuspended, InsufficientScope: raised by an SQL function.
        LockNotGranted: a lock was not granted in time.
        Unavailable: the database is away.
        psycopg.Error: any other error, unchanged.
    """
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
    if state == _SQLSTATE_INSUFFICIENT_SCOPE:
        raise InsufficientScope(cast(Scope, diagnosis.message_detail)) from None
    if state == _SQLSTATE_QUERY_CANCELED:
        raise BusError("unavailable", _STATEMENT_TIMEOUT_MESSAGE) from error
    if state in _SQLSTATES_LOCK_WAIT_FAILED:
        raise LockNotGranted(DATABASE_BUSY) from error
    if diagnosis.constraint_name in _UNIQUE_CONSTRAINT_MESSAGES and state == _SQLSTATE_UNIQUE_VIOLATION:
        raise BusError("conflict", _UNIQUE_CONSTRAINT_MESSAGES[diagnosis.constraint_name]) from None
    if isinstance(error, psycopg.OperationalError) or (state or "").startswith(_SQLSTATE_PREFIXES_DATABASE_AWAY):
        raise Unavailable(DATABASE_AWAY) from error
    raise error
