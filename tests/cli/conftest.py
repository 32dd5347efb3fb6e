"""A data folder, and a bus that tests may look at but not change."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import bus_process


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder of the test's own, empty but for ports that no other test asks for."""
    with bus_process.temporary_data_folder() as folder:
        folder.mkdir(mode=0o711)
        bus_process.reserve_ports(folder)
        yield folder


@pytest.fixture(scope="session")
def bus() -> Iterator[bus_process.BusProcess]:
    """A bus for all tests of a worker that leave it as it is."""
    with bus_process.temporary_data_folder() as folder, bus_process.running_bus(folder) as started:
        yield started
