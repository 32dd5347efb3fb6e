"""Device authorizations (RFC 8628): a client on a machine without a browser asks, and an owner decides elsewhere.

The client polls with its device code, and the owner types the user code. A decision that allows becomes a connection
whose authorization code is the device code, so that it is exchanged once, and a replay revokes what it gave.
Source: docs/decisions/0054-device-authorization.md
"""

from dataclasses import dataclass, field
from datetime import timedelta

from bus.db import Connection
from bus.rules import token_format
from bus.tenancy.client_consent import DEVICE_CODE_TTL
from bus.tenancy.oauth_clients import OAuthClient

TTL = timedelta(minutes=10)
POLL_INTERVAL_SECONDS = 5
_MAX_POLL_INTERVAL_SECONDS = 60
_SLOW_DOWN_SECONDS = 5


@dataclass(frozen=True, slots=True)
class DeviceCodes:
    """The codes of a new authorization, which are stored as hashes."""

    device_code: str = field(repr=False)
    user_code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DeviceAuthorization:
    """An authorization that this transaction has locked.

    Attributes:
        scope: what the client asks for, as it was sent.
        state: `pending`, `allowed`, `denied` or `expired`.
    """

    id: int
    client_id: str
    client_name: str
    resource: str
    scope: str
    state: str
    device_sha256: bytes = field(repr=False)


def begin(conn: Connection, client: OAuthClient, resource: str, scope: str) -> DeviceCodes:
    """Begin an authorization; it expires after TTL."""
    codes = DeviceCodes(token_format.generate_authorization_code(), token_format.generate_user_code())
    conn.execute(
        "INSERT INTO device_authorization"
        " (client_id, client_name, resource, scope, device_sha256, user_code_sha256, interval_seconds, expires_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, clock_timestamp() + %s)",
        (
            client.client_id,
            client.name,
            resource,
            scope,
            token_format.fingerprint(codes.device_code),
            token_format.user_code_fingerprint(codes.user_code),
            POLL_INTERVAL_SECONDS,
            TTL,
        ),
    )
    return codes


def lock_by_user_code(conn: Connection, user_code: str) -> DeviceAuthorization | None:
    """Return the authorization that waits for the decision of the owner who types a code; None if there is none.

    Locks: the authorization.
    """
    normalized = token_format.normalize_user_code(user_code)
    if normalized is None:
        return None
    authorization = _lock(conn, "user_code_sha256 = %s", token_format.user_code_fingerprint(normalized))
    return authorization if authorization is not None and authorization.state == "pending" else None


def lock_by_device_code(conn: Connection, device_code: str) -> DeviceAuthorization | None:
    """Return the authorization of a device code, in any state; None if there is none.

    Locks: the authorization.
    """
    return _lock(conn, "device_sha256 = %s", token_format.fingerprint(device_code))


def _lock(conn: Connection, condition: str, value: bytes) -> DeviceAuthorization | None:
    # The state is read once the lock is held.
    conn.execute(f"SELECT FROM device_authorization WHERE {condition} FOR UPDATE", (value,))
    return conn.fetch_one_or_none_as(
        DeviceAuthorization,
        "SELECT id, client_id, client_name, resource, scope, device_sha256,"
        " CASE WHEN expires_at <= clock_timestamp() THEN 'expired' WHEN is_allowed THEN 'allowed'"
        " WHEN NOT is_allowed THEN 'denied' ELSE 'pending' END AS state"
        f" FROM device_authorization WHERE {condition}",
        (value,),
    )


def decide(conn: Connection, authorization: DeviceAuthorization, *, allow: bool) -> None:
    """Record the decision of an owner on an authorization that is pending."""
    conn.execute(
        "UPDATE device_authorization SET is_allowed = %s, expires_at = clock_timestamp() + %s WHERE id = %s",
        (allow, DEVICE_CODE_TTL, authorization.id),
    )


def record_poll(conn: Connection, authorization: DeviceAuthorization) -> bool:
    """Record that the client asked; return whether it asks too often, which lengthens its interval."""
    (is_too_early,) = conn.fetch_one(
        "UPDATE device_authorization a SET polled_at = clock_timestamp(), interval_seconds = CASE WHEN p.is_too_early"
        " THEN least(a.interval_seconds + %s, %s) ELSE a.interval_seconds END"
        " FROM (SELECT b.id, coalesce(b.polled_at > clock_timestamp() - make_interval(secs => b.interval_seconds),"
        "  false) AS is_too_early FROM device_authorization b WHERE b.id = %s) AS p"
        " WHERE a.id = p.id RETURNING p.is_too_early",
        (_SLOW_DOWN_SECONDS, _MAX_POLL_INTERVAL_SECONDS, authorization.id),
    )
    return bool(is_too_early)
