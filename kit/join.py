"""Redeem an invite for a token; neither the code nor the token is printed."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

_TIMEOUT_SECONDS = 20


class JoinError(Exception):
    """The invite was not redeemed; the message says what to do."""


@dataclass(frozen=True)
class RedeemedInvite:
    """The result of a redeemed invite."""

    token: str
    endpoint: str
    project: str
    participant: str
    web_url: str


def redeem(invite: str, web_url: str | None, name: str | None) -> RedeemedInvite:
    """Redeem an invite.

    Args:
        invite: its code, or the address of its page.
        web_url: the web address of the bus; may be None if `invite` is an address.
        name: the participant's name, if the invite leaves it open.

    Raises:
        JoinError: the invite is unknown, used up or needs a name, or the bus cannot be reached.
    """
    if "/join/" in invite:
        web_url, _, invite = invite.partition("/join/")
    if not web_url:
        raise JoinError("say which bus the invite is for: --home https://BUS, or give the whole address of the invite")
    url = urlsplit(web_url)
    connection_class = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = connection_class(url.hostname or "", url.port, timeout=_TIMEOUT_SECONDS)
    request = {"code": invite.strip("/ \n"), **({"name": name} if name else {})}
    try:
        connection.request(
            "POST", url.path.rstrip("/") + "/join", json.dumps(request), {"Content-Type": "application/json"}
        )
        answer = json.loads(connection.getresponse().read(1024 * 1024))
        if not answer.get("ok"):
            hint = "" if name else " (--name sets a name)"
            raise JoinError(str(answer.get("message") or answer.get("error")) + hint)
        return RedeemedInvite(
            str(answer["token"]),
            str(answer["setup"]["mcp_url"]),
            str(answer["project"]),
            str(answer["participant"]),
            web_url.rstrip("/"),
        )
    except (OSError, http.client.HTTPException) as error:
        raise JoinError(f"{web_url} cannot be reached ({error})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise JoinError(f"{web_url} did not answer as a bus does") from None
    finally:
        connection.close()
