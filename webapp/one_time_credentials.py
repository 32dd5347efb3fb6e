"""Credentials that are shown once: stored encrypted for this browser, deleted when they are read."""

import json
import secrets
from datetime import timedelta
from typing import Any

from flask import current_app, request
from werkzeug.exceptions import NotFound

from bus.db import Connection, one_time_store
from bus.tenancy import tokens
from bus.tenancy.participations import IssuedParticipation
from webapp.auth import current_session
from webapp.context import transaction

_PURPOSE = "card"
_LIFETIME = timedelta(minutes=10)
_MAX_KEY_LENGTH = 64


def store_credentials(conn: Connection, kind: str, **content: Any) -> str:
    """Store what is to be shown once to this browser.

    The content is encrypted under a key derived from the session cookie and the returned key; the database holds
    neither. Call it in the transaction that issues the credentials, so that both are committed together.

    Returns:
        The key of the page that shows it, for `credentials.show`.
    """
    key = secrets.token_urlsafe(16)
    plaintext = json.dumps({"kind": kind, **content}).encode()
    one_time_store.store(conn, _PURPOSE, _encryption_secret(key), plaintext, ttl=_LIFETIME)
    return key


def store_token(conn: Connection, issued: IssuedParticipation, project_id: int | None) -> str:
    """Store a token that was just issued; returns the key of the page that shows it.

    Args:
        project_id: the project to link back to; None if the viewer does not own it.
    """
    return store_credentials(
        conn,
        "token",
        token=issued.token,
        participant=issued.participant,
        actor=issued.actor,
        lane=issued.lane,
        scope=issued.scope,
        project=issued.project,
        project_id=project_id,
        participation_id=issued.participation_id,
        token_id=tokens.list_tokens(conn, issued.participation_id, limit=1)[0].id,
    )


def take_credentials(key: str) -> dict[str, Any]:
    """Return the content stored under `key` and delete it.

    Raises:
        NotFound: it was shown before, expired, or belongs to another browser.
    """
    plaintext = None
    # A HEAD request shows nothing, so it must not use the content up.
    if request.method == "GET" and len(key) < _MAX_KEY_LENGTH:
        with transaction() as conn:
            plaintext = one_time_store.pop(conn, _PURPOSE, _encryption_secret(key))
    if plaintext is None:
        raise NotFound("This page could be viewed once. Lost the token? Rotate it to get a new one.")
    content: dict[str, Any] = json.loads(plaintext)
    return content


def _encryption_secret(key: str) -> bytes:
    token = request.cookies.get(current_app.config["BUS_COOKIE_NAME"], "")
    return f"{current_session().id}\n{token}\n{key}".encode("utf-8", "surrogatepass")
