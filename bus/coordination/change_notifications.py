"""Change notifications: messages over Redis that wake waiting calls and open streams after a commit.

A notification carries project id and topic, never content. It is sent after the commit, at most once, and may be lost:
a receiver reads PostgreSQL, and also polls it at intervals.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping

from redis import Redis
from redis.exceptions import RedisError

TOPICS = ("inbox", "acks", "ledger", "leases", "tasks", "presence", "members")
CHANNEL = "llm-bus:hints"
_MAX_PROJECT_ID_LENGTH = 20
# A process that only publishes need not recognise its own messages.
_NO_SENDER_ID = "0"
_log = logging.getLogger(__name__)


class NotificationPublisher:
    """Publishes notifications from a process that receives none: the web, a worker, a command.

    Args:
        url: of Redis; with None nothing is sent.
    """

    def __init__(self, url: str | None) -> None:
        self._client = None if url is None else Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1)

    def publish(self, topics_by_project: Mapping[int, Iterable[str]]) -> None:
        """Notify every gateway that these topics of these projects changed. Never raises."""
        if self._client is None or not topics_by_project:
            return
        try:
            self._client.publish(CHANNEL, encode(_NO_SENDER_ID, topics_by_project))
        except (RedisError, OSError):
            # Receivers see the change at their next poll.
            _log.debug("change notifications were not sent", exc_info=True)

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()


def encode(sender_id: str, topics_by_project: Mapping[int, Iterable[str]]) -> str:
    """Encode notifications as one message; by `sender_id` a sender recognises its own messages."""
    return " ".join(
        (sender_id, *(f"{project}:{','.join(sorted(topics))}" for project, topics in topics_by_project.items()))
    )


def decode(message: str) -> tuple[str, Iterator[tuple[int, frozenset[str]]]]:
    """Decode a message into its sender id and its (project id, topics); malformed parts are skipped."""
    sender_id, *parts = message.split(" ")
    return sender_id, _decode_topics(parts)


def _decode_topics(parts: Iterable[str]) -> Iterator[tuple[int, frozenset[str]]]:
    for part in parts:
        project, _, topics = part.partition(":")
        if project.isascii() and project.isdigit() and len(project) < _MAX_PROJECT_ID_LENGTH:
            yield int(project), frozenset(topics.split(","))
