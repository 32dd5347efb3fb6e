"""Idempotency keys: a write that carries one has one effect and gives its first answer again."""

import hashlib
import json
from typing import Any

from bus import limits
from bus.errors import InvalidArgument
from bus.rules import validation


def validate_and_fingerprint(tool: str, key: str | None, **arguments: Any) -> tuple[str | None, bytes | None]:
    """The checked key, and what the arguments it came with look like.

    Args:
        tool: part of the fingerprint, so that one key cannot serve two tools.
        arguments: as they go to the database: normalised, so that two spellings of one call are one call.
    Returns:
        (None, None) without a key; otherwise the key and 32 bytes.
    Source: tools.md, Common to all; kept at least 24 hours.
    """
    if key is None:
        return None, None
    if not key:
        raise InvalidArgument("idempotency_key is empty; leave it out or send a value of your own.")
    canonical = json.dumps([tool, arguments], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    checked = validation.name(key, "idempotency_key", limits.MAX_IDEMPOTENCY_KEY_LENGTH)
    return checked, hashlib.sha256(canonical.encode()).digest()
