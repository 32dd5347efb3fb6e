"""The metrics of all processes of a group in the answer of the process that a scrape reaches.

Each process serves its own metrics on a Unix socket in a folder that only the user of the parent can read. A process
that is scraped reads those of its siblings. The label `process` of every sample is the place of a process in the
group, which its successor takes over, so that counters begin again as after the restart of a process.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_log = logging.getLogger(__name__)
# A sibling that does not answer, for example while it ends, is left out.
_TIMEOUT_SECONDS = 2.0


class GroupMetrics:
    """The metrics of this process and of its siblings.

    Args:
        path: the socket of this process; its name is the place in the group.
        render: returns the metrics of this process in the text format of Prometheus.
    """

    def __init__(self, path: Path, render: Callable[[], bytes]) -> None:
        self._path = path
        self._render = render
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Serve the metrics of this process to its siblings, in place of its predecessor."""
        # A name that no process of the group reads until it is complete.
        temporary_path = self._path.with_name(f".{os.getpid()}")
        try:
            self._server = await asyncio.start_unix_server(self._answer, temporary_path)
            temporary_path.rename(self._path)
        except OSError as error:
            # For example a full disk; the calls of agents need no metrics.
            _log.warning("the siblings of this process cannot read its metrics: %s", error)

    async def stop(self) -> None:
        """Stop serving; the socket stays, since a successor may have taken its path."""
        if self._server is not None:
            self._server.close()

    async def collect(self) -> bytes:
        """Return the metrics of all processes of the group in the text format of Prometheus."""
        siblings = [path for path in self._path.parent.iterdir() if path.name.isdigit() and path != self._path]
        texts = await asyncio.gather(asyncio.to_thread(self._render), *map(_read, siblings))
        places = [self._path.name, *(path.name for path in siblings)]
        by_place = {place: text for place, text in sorted(zip(places, texts, strict=True)) if text}
        return await asyncio.to_thread(_merge, by_place)

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(await asyncio.to_thread(self._render))
            await writer.drain()
        writer.close()


async def _read(path: Path) -> bytes:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return await reader.read()
            finally:
                writer.close()
    return b""


def _merge(texts: Mapping[str, bytes]) -> bytes:
    """Merge the metrics of processes, by their places; a family appears once, as the text format requires."""
    families: dict[str, Metric] = {}
    for place, text in texts.items():
        for family in text_string_to_metric_families(text.decode()):
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                merged.samples.append(sample._replace(labels={**sample.labels, "process": place}))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Mapping[str, Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return list(self._families.values())
