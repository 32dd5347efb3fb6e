"""Hints that something was committed: what tells waiting calls and open streams to look, over Redis.

A hint says which project and what kind of thing; never what. It is sent after the commit, at most once, and may get
lost: whoever hears of it reads PostgreSQL, and whoever hears of nothing reads it now and then anyway.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping

from redis import Redis
from redis.exceptions import RedisError

TOPICS = ("inbox", "acks", "ledger", "leases", "tasks", "presence", "members")
CHANNEL = "llm-bus:hints"
_MAX_PROJECT_ID_LENGTH = 20
_NO_SENDER_ID = "0"
_log = logging.getLogger(__name__)


class NotificationPublisher:
    """Sends hints from a process that hears none: the web, a worker, a command.

    Args:
        url: Redis, or None: then nothing is sent.
    """

    def __init__(self, url: str | None) -> None:
        self._client = None if url is None else Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1)

    def publish(self, topics_by_project: Mapping[int, Iterable[str]]) -> None:
        """Tell every gateway that things of these kinds were committed in these projects. Never fails."""
        if self._client is None or not topics_by_project:
            return
        try:
            self._client.publish(CHANNEL, encode(_NO_SENDER_ID, topics_by_project))
        except (RedisError, OSError):
            # Whoever waits finds it at its next look.
            _log.debug("hints were not sent", exc_info=True)

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()


def encode(sender_id: str, topics_by_project: Mapping[int, Iterable[str]]) -> str:
    """A message that carries hints; `origin` lets a sender know its own."""
    return " ".join(
        (sender_id, *(f"{project}:{','.join(sorted(kinds))}" for project, kinds in topics_by_project.items()))
    )


def decode(message: str) -> tuple[str, Iterator[tuple[int, frozenset[str]]]]:
    """The origin of a message and its hints; what makes no sense is passed over."""
    origin, *hints = message.split(" ")
    return origin, _decode_topics(hints)


def _decode_topics(parts: Iterable[str]) -> Iterator[tuple[int, frozenset[str]]]:
    for hint in parts:
        project, _, kinds = hint.partition(":")
        if project.isascii() and project.isdigit() and len(project) < _MAX_PROJECT_ID_LENGTH:
            yield int(project), frozenset(kinds.split(","))
