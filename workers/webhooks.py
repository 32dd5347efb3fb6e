"""Delivery and signing of webhooks (Standard Webhooks), never into a private network unless that is allowed."""

import json
from datetime import UTC, datetime

import httpx2
from standardwebhooks import Webhook

from bus.notifications import guarded_http
from bus.notifications.outbox import OutboxMessage
from workers.delivery import DeliveryResult

_TIMEOUT_SECONDS = 5.0
# _TIMEOUT_SECONDS bounds each read; this bounds the whole request.
_TOTAL_TIMEOUT_SECONDS = 10.0
_MAX_RESPONSE_BYTES = 2_000
# The receiver wants no further messages.
_HTTP_GONE = 410


def send(notice: OutboxMessage, *, allow_private: bool) -> DeliveryResult:
    """Post a notice to its webhook; any 2xx response is a delivery."""
    if not notice.secret:
        # The webhook or its project was removed. A signature with an empty key proves nothing.
        return DeliveryResult(False, "the webhook was removed", permanent=True)
    body = json.dumps(
        {
            "type": notice.kind,
            "timestamp": notice.created_at.isoformat(),
            "data": notice.content,
        },
        ensure_ascii=False,
    ).encode()
    headers = {
        "Content-Type": "application/json",
        **build_signature_headers(notice.id, datetime.now(UTC), body, notice.secret),
    }
    try:
        with guarded_http.stream(
            "POST",
            notice.target,
            content=body,
            headers=headers,
            allow_private=allow_private,
            timeout_seconds=_TIMEOUT_SECONDS,
            total_timeout_seconds=_TOTAL_TIMEOUT_SECONDS,
        ) as response:
            excerpt = _read_excerpt(response)
            status = response.status_code
    except guarded_http.PrivateAddressError as error:
        return DeliveryResult(False, str(error), permanent=True)
    except guarded_http.UnknownHostError as error:
        return DeliveryResult(False, str(error), unreachable=True)
    except (httpx2.HTTPError, OSError) as error:
        return DeliveryResult(False, f"{type(error).__name__}: {error}", unreachable=True)
    return DeliveryResult(200 <= status < 300, f"{status} {excerpt}".strip(), permanent=status == _HTTP_GONE)


def build_signature_headers(notice_id: int, sent_at: datetime, body: bytes, secret: str) -> dict[str, str]:
    """Sign a message as Standard Webhooks describes: its id, time and signature as headers.

    Args:
        notice_id: the same in each attempt, so that a receiver can discard duplicates.
        sent_at: in UTC, since the library ignores other offsets.
        secret: as shown to the owner: `whsec_` and base64.
    """
    message_id = f"notice_{notice_id}"
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, sent_at, body.decode()),
    }


def _read_excerpt(response: httpx2.Response) -> str:
    """Read the first bytes of a response as one line of text."""
    content = b""
    for chunk in response.iter_raw():
        content += chunk
        if len(content) >= _MAX_RESPONSE_BYTES:
            break
    text = " ".join(content[:_MAX_RESPONSE_BYTES].decode("utf-8", "replace").split())
    return "".join(character for character in text if character.isprintable())[:200]
