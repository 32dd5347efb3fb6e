"""A database with the sample data, which tests copy: a copy takes a tenth of the time of creating the data."""

import time
from contextlib import ExitStack

from bus.db import Database
from tests import servers
from tests.webapp.sample_data import SampleData, create_sample_data

# Agents become idle and leases expire while the tests run, so old sample data looks different.
_MAX_AGE_SECONDS = 60


class SampleDatabase:
    """The sample database of a test worker, created when it is first needed.

    Attributes:
        sample: the sample data, which is valid for every copy.
    """

    sample: SampleData

    def __init__(self) -> None:
        self._exit_stack = ExitStack()
        self._url: str | None = None
        self._created_at = 0.0

    def fresh_url(self) -> str:
        """Return the URL of sample data of at most a minute, for `cloned_database`."""
        if self._url is None or time.monotonic() - self._created_at > _MAX_AGE_SECONDS:
            self.close()
            self._url = self._exit_stack.enter_context(servers.cloned_database())
            database = Database(self._url, pool_size=1)
            try:
                with database.transaction() as conn:
                    self.sample = create_sample_data(conn)
            finally:
                database.close()
            self._created_at = time.monotonic()
        return self._url

    def close(self) -> None:
        self._exit_stack.close()
        self._url = None
