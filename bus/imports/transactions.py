"""How an import gets its transactions."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

from bus.db import Connection

# Opens a transaction. In a dry run, all of them are parts of one that is rolled back.
Transactions: TypeAlias = Callable[[], AbstractContextManager[Connection]]
