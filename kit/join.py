"""Redeeming an invite: the code goes out, the token comes back, and neither is printed."""

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
    """What came back."""

    token: str
    endpoint: str
    project: str
    participant: str
    web_url: str


def redeem(invite: str, web_url: str | None, name: str | None) -> RedeemedInvite:
    """Use an invite, given as its code or as the address of its page.

    Raises:
        JoinError: it is over, unknown, needs a name, or the bus cannot be reached.
    """
    if "/join/" in invite:
        web_url, _, invite = invite.partition("/join/")
    if not web_url:
        raise JoinError("say which bus the invite is for: --home https://BUS, or give the whole address of the invite")
    where = urlsplit(web_url)
    kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
    connection = kind(where.hostname or "", where.port, timeout=_TIMEOUT_SECONDS)
    sent = {"code": invite.strip("/ \n"), **({"name": name} if name else {})}
    try:
        connection.request(
            "POST", where.path.rstrip("/") + "/join", json.dumps(sent), {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        found = json.loads(answer.read(1024 * 1024))
        if not found.get("ok"):
            raise JoinError(
                str(found.get("message") or found.get("error")) + ("" if name else " (--name gives a name)")
            )
        return RedeemedInvite(
            str(found["token"]),
            str(found["setup"]["mcp_url"]),
            str(found["project"]),
            str(found["participant"]),
            web_url.rstrip("/"),
        )
    except (OSError, http.client.HTTPException) as error:
        raise JoinError(f"{web_url} cannot be reached ({error})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise JoinError(f"{web_url} did not answer as a bus does") from None
    finally:
        connection.close()
