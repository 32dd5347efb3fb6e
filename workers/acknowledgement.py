"""Acknowledgement of messages while Redis is away.

kombu counts a message as being processed until Redis has confirmed its acknowledgement. One that fails in an outage is
not repeated, so it would take one of the worker's places for good; with all of them taken, the worker receives nothing.
"""

import importlib
from typing import Any

# Imported as Any, since kombu's types are incomplete.
_redis: Any = importlib.import_module("kombu.transport.redis")
_virtual: Any = importlib.import_module("kombu.transport.virtual")


class _QoS(_redis.QoS):  # type: ignore[misc]
    """The messages that the worker has taken, without those whose acknowledgement failed."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message.

        Raises:
            redis.ConnectionError: Redis is away. The message returns after the visibility timeout.
        """
        try:
            super().ack(delivery_tag)
        except Exception:
            # The base class keeps the count; that of Redis asks Redis first.
            _virtual.QoS.ack(self, delivery_tag)
            raise


def release_places_of_failed_acks() -> None:
    """Make kombu's channels to Redis use the class above; there is no setting for it."""
    _redis.Channel.QoS = _QoS
