"""Open streams of `subscriptions/listen`, which report changes of resources.

Changes are read from the ledger, starting at the last event that the stream reported; a change notification only
triggers the read. A lost or repeated notification therefore does no harm. Each read also checks that the caller may
still subscribe.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import ListenHandler, ResourceUpdated, ServerEvent, ToolsListChanged
from mcp_types import SubscriptionsListenRequestParams, SubscriptionsListenResult

from bus.coordination import subscriptions
from bus.ctx import Ctx
from bus.errors import NotAuthenticated, Unavailable
from bus.rules.enums import EventType
from mcp_gateway.subscriptions import SubscriptionRegistry

# A client with this many unread events is cut off; it subscribes again and reads what it missed.
_MAX_BUFFERED_EVENTS = 64
# _build_events handles tasks, ledger and inbox.
_RESOURCE_URI_BY_EVENT_TYPE: dict[EventType, str] = {
    "lease": "bus://leases",
    "release": "bus://leases",
    "lease_expire": "bus://leases",
    "register": "bus://presence",
    "presence_lapse": "bus://presence",
}
_TASKS_URI, _LEDGER_URI, _INBOX_URI = "bus://tasks", "bus://ledger", "bus://inbox"


@dataclass(eq=False)
class Stream:
    """One open stream; it is also the event bus of its SDK handler.

    Attributes:
        state: what the stream reported last.
        listener: receives events for the client; None until the handler subscribes.
        handler: the SDK's handler of the stream.
    """

    state: subscriptions.SubscriptionState
    listener: Callable[[ServerEvent], None] | None = None
    handler: ListenHandler = field(init=False)

    def __post_init__(self) -> None:
        self.handler = ListenHandler(self, max_subscriptions=1, max_buffered_events=_MAX_BUFFERED_EVENTS)

    @property
    def ctx(self) -> Ctx:
        """The caller."""
        return self.state.ctx

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Set the listener; the SDK's handler calls this before it acknowledges the subscription."""
        self.listener = listener

        def unsubscribe() -> None:
            self.listener = None

        return unsubscribe

    async def publish(self, event: ServerEvent) -> None:
        """Send an event; required by the SDK's interface of an event bus."""
        self.send(event)

    def send(self, event: ServerEvent) -> None:
        """Send an event to the client; the handler drops the kinds that the client did not request."""
        if self.listener is not None:
            self.listener(event)


class StreamRegistry(SubscriptionRegistry[Stream]):
    """All open streams of this process."""

    kind = "streams"

    async def listen(
        self, ctx: Ctx, context: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serve one stream until the client disconnects, the caller loses access, or the process drains.

        Raises:
            ConcurrencyLimitExceeded: the token has too many open streams.
            NotAuthenticated: the caller may not subscribe.
            Unavailable: the process is about to stop.
        """
        # The stream reports commits from here on; the client reads earlier ones itself.
        state = await self._run_in_thread(
            lambda conn: subscriptions.begin_subscription(conn, ctx), ctx, single_statement=True
        )
        if state is None:
            raise NotAuthenticated
        if self.is_draining:
            raise Unavailable("The bus is restarting; subscribe again.")
        stream = Stream(state)
        self._add(stream)
        try:
            return await stream.handler(context, params)
        finally:
            self._remove(stream)

    def _is_affected(self, subscription: Stream, topics: frozenset[str]) -> bool:
        return True

    async def _refresh(self, dirty: Sequence[Stream]) -> None:
        changes = await self._run_in_thread(
            lambda conn: subscriptions.fetch_changes(conn, [stream.state for stream in dirty]), single_statement=True
        )
        for stream, change in zip(dirty, changes, strict=True):
            if change is None:
                self._close(stream)
                continue
            previous, stream.state = stream.state, change.state
            for event in _build_events(previous, change):
                stream.send(event)

    def _close(self, subscription: Stream) -> None:
        subscription.handler.close()


def _build_events(
    previous: subscriptions.SubscriptionState, change: subscriptions.SubscriptionChange
) -> list[ServerEvent]:
    uris = {uri for event_type, uri in _RESOURCE_URI_BY_EVENT_TYPE.items() if event_type in change.event_types}
    if any(event_type.startswith("task_") for event_type in change.event_types):
        uris.add(_TASKS_URI)
    if change.event_types:
        uris.add(_LEDGER_URI)
    if change.state.inbox != previous.inbox:
        uris.add(_INBOX_URI)
    events: list[ServerEvent] = [ResourceUpdated(uri=uri) for uri in sorted(uris)]
    if change.state.is_admin != previous.is_admin:
        events.append(ToolsListChanged())
    return events
