"""Idempotency keys: a write with a key takes effect once and returns its first result again."""

import hashlib
import json
from typing import Any

from bus import limits
from bus.errors import InvalidArgument
from bus.rules import validation


def validate_and_fingerprint(tool: str, key: str | None, **arguments: Any) -> tuple[str | None, bytes | None]:
    """Check an idempotency key and compute the fingerprint of its call.

    Args:
        tool: part of the fingerprint, so that one key cannot serve two tools.
        arguments: normalised as they go to the database, so that two spellings of one call have one fingerprint.
    Returns:
        The key and 32 bytes; (None, None) without a key.
    Source: docs/reference/tools.md
    """
    if key is None:
        return None, None
    if not key:
        raise InvalidArgument("idempotency_key is empty; leave it out or send a value of your own.")
    canonical = json.dumps([tool, arguments], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    checked_key = validation.name(key, "idempotency_key", limits.MAX_IDEMPOTENCY_KEY_LENGTH)
    return checked_key, hashlib.sha256(canonical.encode()).digest()
