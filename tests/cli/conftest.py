"""A data folder, and a bus that tests may look at but not change."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import running


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder of the test's own, empty but for ports that no other test asks for."""
    with running.data_folder() as folder:
        folder.mkdir(mode=0o711)
        running.reserve_ports(folder)
        yield folder


@pytest.fixture(scope="session")
def bus() -> Iterator[running.Bus]:
    """A bus for all tests of a worker that leave it as it is."""
    with running.data_folder() as folder, running.bus(folder) as started:
        yield started
