"""A data folder, and a shared bus that tests may read but not change."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import bus_process


@pytest.fixture
def data() -> Iterator[Path]:
    """An empty data folder for one test, with reserved ports."""
    with bus_process.temporary_data_folder() as folder:
        folder.mkdir(mode=0o711)
        bus_process.reserve_ports(folder)
        yield folder


@pytest.fixture(scope="session")
def bus() -> Iterator[bus_process.BusProcess]:
    """A bus shared by all tests of a pytest worker that do not change it."""
    with bus_process.temporary_data_folder() as folder, bus_process.running_bus(folder) as process:
        yield process
