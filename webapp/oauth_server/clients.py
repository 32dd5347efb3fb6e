"""Clients as Authlib sees them, and how they are found by their id."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc8628 import DEVICE_CODE_GRANT_TYPE
from werkzeug.exceptions import TooManyRequests

from bus.limits import MAX_LABEL_LENGTH
from bus.tenancy import oauth_clients
from bus.tenancy.oauth_clients import OAuthClient
from webapp.context import connection, transaction
from webapp.oauth_server import client_documents, redirect_uris
from webapp.oauth_server.client_metadata import InvalidClientMetadata
from webapp.ratelimit import client_address, enforce_rate_limit

# Requests to other servers that an address can cause.
_DOCUMENTS_PER_MINUTE = 20
# Documents that a process fetches at the same time: a slow server, or a slow name server, holds a thread.
_fetch_slots = threading.BoundedSemaphore(4)
_RETRY_SECONDS = 5
_GRANT_TYPES = ("authorization_code", "refresh_token", DEVICE_CODE_GRANT_TYPE)


class UnknownClient(Exception):
    """A client cannot be found by its id; the message says why."""


@dataclass(frozen=True)
class PublicClient(ClientMixin):  # type: ignore[misc]
    """A client without a secret, which PKCE protects."""

    client_id: str
    redirect_uris: Sequence[str] = ()

    def get_client_id(self) -> str:
        """Its id."""
        return self.client_id

    def get_default_redirect_uri(self) -> None:
        """None: a request names it."""

    def get_allowed_scope(self, scope: str | None) -> str:
        """What it may ask for; an owner decides."""
        return scope or ""

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Whether it may be sent back there."""
        return any(redirect_uris.matches(registered, redirect_uri) for registered in self.redirect_uris)

    def check_endpoint_auth_method(self, method: str, _endpoint: str) -> bool:
        """Whether it authenticates in this way; it does not."""
        return method == "none"

    def check_response_type(self, response_type: str) -> bool:
        """Whether it may ask for this."""
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        """Whether it may use a grant of this type."""
        return grant_type in _GRANT_TYPES


def find(client_id: str) -> OAuthClient:
    """Return a client by its id. The document of one whose id is an address is fetched, unless a copy is still valid.

    Raises:
        UnknownClient: there is none.
        TooManyRequests: too many documents were fetched for this address, or are being fetched.
    """
    if 0 < len(client_id) <= client_documents.MAX_URL_LENGTH and "\0" not in client_id:
        with connection() as conn:
            stored = oauth_clients.find(conn, client_id)
        if stored is not None:
            return stored
    if not client_documents.is_document_url(client_id):
        raise UnknownClient("It is not registered here, and its id is not the https:// address of a document.")
    enforce_rate_limit("client-document", client_address(), _DOCUMENTS_PER_MINUTE)
    if not _fetch_slots.acquire(blocking=False):
        raise TooManyRequests(retry_after=_RETRY_SECONDS)
    # Outside a transaction: the server of the client may be slow.
    try:
        metadata, lifetime = client_documents.fetch(client_id)
    except InvalidClientMetadata as error:
        raise UnknownClient(error.message) from None
    finally:
        _fetch_slots.release()
    name = metadata.name or (urlsplit(client_id).hostname or "")[:MAX_LABEL_LENGTH]
    with transaction() as conn:
        return oauth_clients.store_document(
            conn,
            client_id,
            name,
            metadata.redirect_uris,
            ttl=lifetime,
            uses_device_codes=metadata.uses_device_codes,
        )
