"""Redeem an invite for a token; neither the code nor the token is printed."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kit import connection
from kit.connection import AddressError
from kit.plain_text import one_line
from kit.repo import Repo
from kit.token_format import is_well_formed

_TIMEOUT_SECONDS = 20
# A second attempt gets the same answer: the bus stores it for ten minutes.
_ATTEMPTS = 2


class JoinError(Exception):
    """The invite was not redeemed; the message says what to do."""


class _NoAnswerError(Exception):
    """The answer did not arrive, or it is not of a bus; the invite may be used up."""


@dataclass(frozen=True)
class RedeemedInvite:
    """The result of a redeemed invite."""

    token: str
    endpoint: str
    project: str
    participant: str
    web_url: str


def redeem(repo: Repo, invite: str, web_url: str | None, name: str | None, *, allow_http: bool) -> RedeemedInvite:
    """Redeem an invite.

    An answer that is lost on the way is requested again, with the same nonce, so it does not use the invite twice. The
    nonce is kept inside .git until there is an answer, for the next run of the installer.

    Args:
        repo: the work tree for which the token is.
        invite: its code, or the address of its page.
        web_url: the web address of the bus; may be None if `invite` is an address.
        name: the participant's name, if the invite leaves it open.
        allow_http: whether the bus may be reached without encryption, in a private network.

    Raises:
        JoinError: the invite is unknown, used up or needs a name, or the bus cannot be reached.
    """
    if "/join/" in invite:
        web_url, _, invite = invite.partition("/join/")
    if not web_url:
        raise JoinError("say which bus the invite is for: --home https://BUS, or give the whole address of the invite")
    web_url, code = web_url.rstrip("/"), invite.strip("/ \n")
    try:
        connection.check_encryption(web_url, allow_http=allow_http)
    except AddressError as error:
        raise JoinError(str(error)) from None
    nonce_path = repo.git_dir / "llm-bus" / "redemption.json"
    request = {"code": code, "nonce": _get_nonce(nonce_path, code), **({"name": name} if name else {})}
    reason = ""
    for _ in range(_ATTEMPTS):
        try:
            answer = _post(web_url, request)
        except _NoAnswerError as error:
            reason = str(error)
            continue
        return _parse_answer(web_url, answer, nonce_path, has_name=bool(name))
    raise JoinError(f"{one_line(web_url)} {reason}. Run the same command again: a lost answer is sent once more.")


def _get_nonce(path: Path, code: str) -> str:
    """Return the nonce of an attempt whose answer did not arrive, else a new one, which is saved."""
    fingerprint = hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()
    try:
        document = json.loads(path.read_text("ascii"))
        if document["invite"] == fingerprint:
            return str(document["nonce"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    nonce = secrets.token_urlsafe(24)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as nonce_file:
        json.dump({"invite": fingerprint, "nonce": nonce}, nonce_file)
    return nonce


def _post(web_url: str, request: dict[str, str]) -> Any:
    """Send a redemption. Returns the JSON document of the answer.

    Raises:
        _NoAnswerError: the answer did not arrive, or it is not of a bus.
    """
    url = urlsplit(web_url)
    connection_class = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    http_connection = connection_class(url.hostname or "", url.port, timeout=_TIMEOUT_SECONDS)
    try:
        http_connection.request(
            "POST", url.path.rstrip("/") + "/join", json.dumps(request), {"Content-Type": "application/json"}
        )
        response = http_connection.getresponse()
        body = response.read(1024 * 1024)
        if response.status >= 500:
            raise _NoAnswerError(f"answered with HTTP status {response.status}")
        return json.loads(body)
    except (OSError, http.client.HTTPException) as error:
        raise _NoAnswerError(f"cannot be reached ({one_line(error, 200)})") from None
    except (ValueError, RecursionError):
        raise _NoAnswerError("did not answer as a bus does") from None
    finally:
        http_connection.close()


def _parse_answer(web_url: str, answer: Any, nonce_path: Path, *, has_name: bool) -> RedeemedInvite:
    if not isinstance(answer, dict):
        raise JoinError(f"{one_line(web_url)} did not answer as a bus does")
    if not answer.get("ok"):
        hint = "" if has_name else " (--name sets a name)"
        raise JoinError(one_line(answer.get("message") or answer.get("error"), 500) + hint)
    try:
        redeemed = RedeemedInvite(
            str(answer["token"]),
            str(answer["setup"]["mcp_url"]),
            one_line(answer["project"], 100),
            one_line(answer["participant"], 100),
            web_url,
        )
    except (KeyError, TypeError):
        raise JoinError(f"{one_line(web_url)} did not answer as a bus does") from None
    if not is_well_formed(redeemed.token):
        raise JoinError(f"{one_line(web_url)} did not answer with a token of a bus")
    nonce_path.unlink(missing_ok=True)
    return redeemed
