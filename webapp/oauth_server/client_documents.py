"""Client id metadata documents: a client whose id is the address of a document that describes it.

The document is fetched as webhooks are: never from a private network, without redirects, within bounds of size and
time. A copy of it is stored for as long as its server allows, within bounds.
"""

import json
import re
from datetime import timedelta
from urllib.parse import urlsplit

import httpx2

from bus.notifications import guarded_http
from webapp.oauth_server.client_metadata import ClientMetadata, InvalidClientMetadata, read

MAX_URL_LENGTH = 1000
_MAX_DOCUMENT_BYTES = 32_000
_TIMEOUT_SECONDS = 5.0
_TOTAL_TIMEOUT_SECONDS = 8.0
_MIN_TTL, _DEFAULT_TTL, _MAX_TTL = timedelta(minutes=5), timedelta(hours=1), timedelta(days=1)
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})")
_ALLOW_PRIVATE = False


def is_document_url(client_id: str) -> bool:
    """Whether a client id is the address of a document: https, with a path, without credentials or a fragment."""
    try:
        parts = urlsplit(client_id)
        _ = parts.port
    except ValueError:
        return False
    if len(client_id) > MAX_URL_LENGTH or not client_id.isascii() or not client_id.isprintable() or " " in client_id:
        return False
    segments = parts.path.split("/")
    return (
        parts.scheme == "https"
        and client_id.startswith("https://")
        and bool(parts.hostname)
        and parts.path not in ("", "/")
        and "." not in segments
        and ".." not in segments
        and "#" not in client_id
        and "\\" not in client_id
        and "@" not in parts.netloc
    )


def fetch(client_id: str) -> tuple[ClientMetadata, timedelta]:
    """Fetch the document of a client; return what it says and how long a copy may be kept.

    Raises:
        InvalidClientMetadata: it cannot be fetched, or describes no client of this id that can be used.
    """
    host = urlsplit(client_id).hostname
    try:
        with guarded_http.stream(
            "GET",
            client_id,
            headers={"Accept": "application/json"},
            allow_private=_ALLOW_PRIVATE,
            timeout_seconds=_TIMEOUT_SECONDS,
            total_timeout_seconds=_TOTAL_TIMEOUT_SECONDS,
        ) as response:
            content = _read_content(response)
            lifetime = _read_lifetime(response)
    except guarded_http.PrivateAddressError:
        raise InvalidClientMetadata(f"{host} is not on the public Internet.") from None
    except (httpx2.HTTPError, OSError) as error:
        raise InvalidClientMetadata(f"{host} does not answer ({type(error).__name__}).") from None
    return _parse(client_id, content), lifetime


def _read_content(response: httpx2.Response) -> bytes:
    if response.status_code != 200:
        raise InvalidClientMetadata(f"The document was answered with status {response.status_code}, not 200.")
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise InvalidClientMetadata("The document is not served as application/json.")
    content = b""
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > _MAX_DOCUMENT_BYTES:
            raise InvalidClientMetadata(f"The document has more than {_MAX_DOCUMENT_BYTES} bytes.")
    return content


def _read_lifetime(response: httpx2.Response) -> timedelta:
    max_age = _MAX_AGE.search(response.headers.get("Cache-Control", "").lower())
    return _DEFAULT_TTL if max_age is None else min(max(_MIN_TTL, timedelta(seconds=int(max_age[1]))), _MAX_TTL)


def _parse(client_id: str, content: bytes) -> ClientMetadata:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidClientMetadata("The document is not JSON.") from None
    metadata = read(data)
    if data.get("client_id") != client_id:
        raise InvalidClientMetadata("The client_id in the document is not the address of the document.")
    if data.get("token_endpoint_auth_method", "none") != "none" or "client_secret" in data:
        raise InvalidClientMetadata("token_endpoint_auth_method must be none: clients are public here.")
    return metadata
