"""The parts of one gateway process, and their start and stop."""

import asyncio
import logging

from bus.client_setup import Endpoints
from bus.config.settings import Settings
from bus.coordination.sessions import WakeReport
from mcp_gateway.activity_buffer import FLUSH_INTERVAL_SECONDS, ActivityBuffer
from mcp_gateway.authenticator import Authenticator
from mcp_gateway.change_notifications import ChangeNotifier
from mcp_gateway.concurrency_limit import SharedConcurrencyCounts
from mcp_gateway.engine_runner import EngineRunner
from mcp_gateway.long_poll import LongPollRegistry
from mcp_gateway.streams import StreamRegistry
from mcp_gateway.tool_runner import ToolRunner
from mcp_gateway.wake_reporter import WakeReporter

_log = logging.getLogger(__name__)


class Service:
    """The parts of one gateway process, without a transport: HTTP and standard input use the same ones.

    Attributes:
        engine: runs the engine in threads.
        authenticator: finds and checks callers.
        tool_runner: runs tool calls.
        activity: buffers presence, token use and posts shown.
        change_notifier: sends and receives change notifications.
        long_polls, streams: what is kept open.
    """

    def __init__(self, settings: Settings) -> None:
        self.activity = ActivityBuffer()
        self.engine = EngineRunner(settings, self.activity)
        self.authenticator = Authenticator(self.engine)
        self.change_notifier = ChangeNotifier(
            settings.redis_url, on_change=self._on_change, on_reconnect=self._on_reconnect
        )
        self._concurrency_counts = SharedConcurrencyCounts(settings.redis_url)
        self.long_polls = LongPollRegistry(
            self.engine.db,
            self.engine.executor,
            settings.waits_per_token,
            self._concurrency_counts,
            self._receives_notifications,
        )
        self.streams = StreamRegistry(
            self.engine.db,
            self.engine.executor,
            settings.streams_per_token,
            self._concurrency_counts,
            self._receives_notifications,
        )
        self.tool_runner = ToolRunner(
            self.engine,
            self.long_polls,
            self.change_notifier,
            self.activity,
            Endpoints(settings.public_url, settings.mcp_url),
        )
        self._wake_reporter = WakeReporter(
            lambda: (
                (pending.ctx, pending.began_at)
                for pending in self.long_polls.list_all()
                if "inbox" in pending.request.kinds
            ),
            lambda: (stream.ctx for stream in self.streams.list_all()),
        )
        self._flush_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start flushing activity and receiving change notifications."""
        self.change_notifier.start()
        self._concurrency_counts.start()
        self.long_polls.start()
        self.streams.start()
        self._flush_task = asyncio.create_task(self._flush_loop())

    async def stop(self) -> None:
        """Flush the buffered activity and close all connections and threads."""
        await self.long_polls.stop()
        await self.tool_runner.finish_give_backs()
        await self.streams.stop()
        await self.change_notifier.stop()
        await self._concurrency_counts.stop()
        if self._flush_task is not None:
            self._flush_task.cancel()
            await asyncio.gather(self._flush_task, return_exceptions=True)
        await self._flush_activity()
        self.engine.close()

    def drain(self) -> None:
        """Answer all long polls and end all streams before the process stops."""
        self.long_polls.drain()
        self.streams.drain()

    def _on_change(self, project_id: int, topics: frozenset[str]) -> None:
        self.long_polls.mark_dirty(project_id, topics)
        self.streams.mark_dirty(project_id, topics)

    def _on_reconnect(self) -> None:
        self.long_polls.mark_all_dirty()
        self.streams.mark_all_dirty()

    def _receives_notifications(self) -> bool:
        return self.change_notifier.is_connected

    async def _flush_loop(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_SECONDS)
            await self._flush_activity()

    async def _flush_activity(self) -> None:
        reports = self._wake_reporter.collect()
        try:
            await self.engine.executor.submit(lambda: self._write_activity(reports))
        except Exception:  # noqa: BLE001
            # Presence is advisory; the next flush writes this activity too.
            _log.warning("activity was not flushed", exc_info=True)

    def _write_activity(self, reports: list[WakeReport]) -> None:
        self.activity.flush(self.engine.db)
        if reports:
            self._wake_reporter.write(self.engine.db, reports)
