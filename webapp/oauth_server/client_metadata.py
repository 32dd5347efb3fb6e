"""What clients say about themselves (RFC 7591), in a registration or in the document at their address."""

import unicodedata
from dataclasses import dataclass
from typing import Any

from authlib.oauth2.rfc8628 import DEVICE_CODE_GRANT_TYPE

from bus.limits import MAX_LABEL_LENGTH
from bus.rules import validation
from webapp.oauth_server import redirect_uris

MAX_REDIRECT_URIS = 20
# Anyone can register a client, which is stored for a day.
MAX_TOTAL_LENGTH = 5_000


class InvalidClientMetadata(Exception):
    """A client describes itself in a way that cannot be used; the message is for its developer.

    Attributes:
        error: the error code of RFC 7591.
        message: one sentence in ASCII without quotation marks.
    """

    def __init__(self, message: str, error: str = "invalid_client_metadata") -> None:
        super().__init__(message)
        self.error = error
        self.message = message


@dataclass(frozen=True, slots=True)
class ClientMetadata:
    """The part of the metadata that is used.

    Attributes:
        name: as the client calls itself, on one line; empty if it has no name.
        redirect_uris: at least one, unless the client uses device codes alone.
        uses_device_codes: whether it may ask for access of a machine without a browser.
    """

    name: str
    redirect_uris: list[str]
    uses_device_codes: bool


def read(data: Any) -> ClientMetadata:
    """Read the metadata of a public client from decoded JSON.

    Raises:
        InvalidClientMetadata: it cannot be used.
    """
    if not isinstance(data, dict):
        raise InvalidClientMetadata("The metadata of a client is a JSON object.")
    grant_types = data.get("grant_types")
    listed = grant_types if isinstance(grant_types, list) else []
    uses_device_codes = DEVICE_CODE_GRANT_TYPE in listed
    is_redirected = not uses_device_codes or "authorization_code" in listed or bool(data.get("redirect_uris"))
    uris = data.get("redirect_uris") if is_redirected else []
    if not isinstance(uris, list) or len(uris) > MAX_REDIRECT_URIS or (is_redirected and not uris):
        raise InvalidClientMetadata(
            f"redirect_uris must be a list of 1 to {MAX_REDIRECT_URIS} addresses.", "invalid_redirect_uri"
        )
    for uri in uris:
        if not isinstance(uri, str) or not redirect_uris.is_acceptable(uri):
            raise InvalidClientMetadata(
                "A redirect URI must begin with https://, with http:// of a loopback address, or with the scheme of an"
                " app, and have no fragment.",
                "invalid_redirect_uri",
            )
    if sum(map(len, uris)) > MAX_TOTAL_LENGTH:
        raise InvalidClientMetadata(
            f"redirect_uris have more than {MAX_TOTAL_LENGTH} characters together.", "invalid_redirect_uri"
        )
    if is_redirected:
        _require_member(data, "grant_types", "authorization_code")
        _require_member(data, "response_types", "code")
    name = data.get("client_name")
    return ClientMetadata(_clean_name(name) if isinstance(name, str) else "", uris, uses_device_codes)


def _require_member(data: dict[str, Any], name: str, member: str) -> None:
    values = data.get(name)
    if values is not None and (not isinstance(values, list) or member not in values):
        raise InvalidClientMetadata(f"{name} must be a list that contains {member}.")


def _clean_name(name: str) -> str:
    """Return a name on one line without invisible characters, at most as long as the label of a token."""
    name = unicodedata.normalize("NFC", name[: 4 * MAX_LABEL_LENGTH])
    visible = "".join(" " if char.isspace() else char for char in name)
    visible = "".join(char for char in visible if validation.find_invisible_character(char) is None)
    return " ".join(visible.split())[:MAX_LABEL_LENGTH].strip()
