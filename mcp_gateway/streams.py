"""Open streams of `subscriptions/listen`: each is told when a resource that it watches has changed.

What has changed is read from the ledger, from where the stream was told last; a hint only says when to look. So a hint
that was lost or came twice changes nothing, and each look asks whether the caller may still watch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import ListenHandler, ResourceUpdated, ServerEvent, ToolsListChanged
from mcp_types import SubscriptionsListenRequestParams, SubscriptionsListenResult

from bus.coordination import long_poll
from bus.ctx import Ctx
from bus.errors import NotAuthenticated
from mcp_gateway.subscriptions import Sweeper

# A client that has not read so many is cut off; it listens again and reads what it missed.
_MOST_BUFFERED = 64
_OF_TYPE = {
    "lease": "bus://leases",
    "release": "bus://leases",
    "lease_expire": "bus://leases",
    "register": "bus://presence",
    "presence_lapse": "bus://presence",
}
_TASKS, _LEDGER, _INBOX = "bus://tasks", "bus://ledger", "bus://inbox"


@dataclass(eq=False)
class Stream:
    """One open stream: what it was told last, and how it is told more. The SDK's handler takes it for its bus."""

    watch: long_poll.Watch
    listener: Callable[[ServerEvent], None] | None = None
    handler: ListenHandler = field(init=False)

    def __post_init__(self) -> None:
        self.handler = ListenHandler(self, max_subscriptions=1, max_buffered_events=_MOST_BUFFERED)

    @property
    def ctx(self) -> Ctx:
        return self.watch.ctx

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Called by the SDK's handler before it acknowledges."""
        self.listener = listener

        def unsubscribe() -> None:
            self.listener = None

        return unsubscribe

    async def publish(self, event: ServerEvent) -> None:
        """The SDK's interface; everything comes through `tell`."""
        self.tell(event)

    def tell(self, event: ServerEvent) -> None:
        """Put an event on the stream, if the client asked for its kind."""
        if self.listener is not None:
            self.listener(event)


class Streams(Sweeper[Stream]):
    """Every open stream of this process."""

    kind = "streams"

    async def listen(
        self, ctx: Ctx, request: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serve one stream until the client goes away, the caller may no longer watch, or the process drains.

        Raises:
            TooManyError: the token holds too many streams.
            NotAuthenticated: the caller may not watch.
        """
        # What is committed from here on is told; what was before, the client reads.
        watch = await self._run(lambda conn: long_poll.watch(conn, ctx), ctx, one=True)
        if watch is None:
            raise NotAuthenticated
        stream = Stream(watch)
        self._take_in(stream)
        try:
            return await stream.handler(request, params)
        finally:
            self._let_go(stream)

    def _concerns(self, one: Stream, kinds: frozenset[str]) -> bool:
        return True

    async def _sweep(self, some: Sequence[Stream]) -> None:
        found = await self._run(lambda conn: long_poll.changes(conn, [stream.watch for stream in some]), one=True)
        for stream, change in zip(some, found, strict=True):
            if change is None:
                self._end(stream)
                continue
            before, stream.watch = stream.watch, change.now
            for event in _events(before, change):
                stream.tell(event)

    def _end(self, one: Stream) -> None:
        one.handler.close()


def _events(before: long_poll.Watch, change: long_poll.Change) -> list[ServerEvent]:
    resources = {_OF_TYPE[kind] for kind in change.types if kind in _OF_TYPE}
    if any(kind.startswith("task_") for kind in change.types):
        resources.add(_TASKS)
    if change.types:
        resources.add(_LEDGER)
    if change.now.inbox != before.inbox:
        resources.add(_INBOX)
    events: list[ServerEvent] = [ResourceUpdated(uri=uri) for uri in sorted(resources)]
    if change.now.is_admin != before.is_admin:
        events.append(ToolsListChanged())
    return events
