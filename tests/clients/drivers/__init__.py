"""The clients of the bench, in the order of the matrix."""

from tests.clients.drivers.claude import ClaudeDriver
from tests.clients.drivers.codex import CodexDriver
from tests.clients.drivers.driver import Driver
from tests.clients.drivers.gemini import GeminiDriver
from tests.clients.drivers.opencode import OpenCodeDriver

DRIVERS: tuple[Driver, ...] = (ClaudeDriver(), CodexDriver(), GeminiDriver(), OpenCodeDriver())
