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
from mcp_gateway.subscriptions import SubscriptionRegistry

# A client that has not read so many is cut off; it listens again and reads what it missed.
_MAX_BUFFERED_EVENTS = 64
_RESOURCE_BY_EVENT_TYPE = {
    "lease": "bus://leases",
    "release": "bus://leases",
    "lease_expire": "bus://leases",
    "register": "bus://presence",
    "presence_lapse": "bus://presence",
}
_TASKS_URI, _LEDGER_URI, _INBOX_URI = "bus://tasks", "bus://ledger", "bus://inbox"


@dataclass(eq=False)
class Stream:
    """One open stream: what it was told last, and how it is told more. The SDK's handler takes it for its bus."""

    state: long_poll.SubscriptionState
    listener: Callable[[ServerEvent], None] | None = None
    handler: ListenHandler = field(init=False)

    def __post_init__(self) -> None:
        self.handler = ListenHandler(self, max_subscriptions=1, max_buffered_events=_MAX_BUFFERED_EVENTS)

    @property
    def ctx(self) -> Ctx:
        return self.state.ctx

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Called by the SDK's handler before it acknowledges."""
        self.listener = listener

        def unsubscribe() -> None:
            self.listener = None

        return unsubscribe

    async def publish(self, event: ServerEvent) -> None:
        """The SDK's interface; everything comes through `tell`."""
        self.send(event)

    def send(self, event: ServerEvent) -> None:
        """Put an event on the stream, if the client asked for its kind."""
        if self.listener is not None:
            self.listener(event)


class StreamRegistry(SubscriptionRegistry[Stream]):
    """Every open stream of this process."""

    kind = "streams"

    async def listen(
        self, ctx: Ctx, context: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serve one stream until the client goes away, the caller may no longer watch, or the process drains.

        Raises:
            TooManyError: the token holds too many streams.
            NotAuthenticated: the caller may not watch.
        """
        # What is committed from here on is told; what was before, the client reads.
        watch = await self._run_in_thread(
            lambda conn: long_poll.begin_subscription(conn, ctx), ctx, single_statement=True
        )
        if watch is None:
            raise NotAuthenticated
        stream = Stream(watch)
        self._add(stream)
        try:
            return await stream.handler(context, params)
        finally:
            self._remove(stream)

    def _is_affected(self, subscription: Stream, topics: frozenset[str]) -> bool:
        return True

    async def _refresh(self, dirty: Sequence[Stream]) -> None:
        found = await self._run_in_thread(
            lambda conn: long_poll.fetch_changes(conn, [stream.state for stream in dirty]), single_statement=True
        )
        for stream, change in zip(dirty, found, strict=True):
            if change is None:
                self._close(stream)
                continue
            before, stream.state = stream.state, change.state
            for event in _build_events(before, change):
                stream.send(event)

    def _close(self, subscription: Stream) -> None:
        subscription.handler.close()


def _build_events(previous: long_poll.SubscriptionState, change: long_poll.SubscriptionChange) -> list[ServerEvent]:
    resources = {_RESOURCE_BY_EVENT_TYPE[kind] for kind in change.event_types if kind in _RESOURCE_BY_EVENT_TYPE}
    if any(kind.startswith("task_") for kind in change.event_types):
        resources.add(_TASKS_URI)
    if change.event_types:
        resources.add(_LEDGER_URI)
    if change.state.inbox != previous.inbox:
        resources.add(_INBOX_URI)
    events: list[ServerEvent] = [ResourceUpdated(uri=uri) for uri in sorted(resources)]
    if change.state.is_admin != previous.is_admin:
        events.append(ToolsListChanged())
    return events
