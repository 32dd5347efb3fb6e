"""The messages of the troubleshooting page are those of the programs."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_PAGE = _ROOT / "docs" / "howto" / "troubleshooting.md"
# Messages of other programs, and names of states and jobs.
_FOREIGN = {
    "certificate verify failed",
    "server does not support SSL, but SSL was required",
    "wait_for",
    "reconcile",
    "alarm",
}


@cache
def _texts() -> str:
    """All constant texts of the programs; the parts of a formatted text are texts of their own."""
    functions = [path.read_text(encoding="utf-8") for path in sorted((_ROOT / "bus").rglob("*.sql"))]
    constants = (
        node.value
        for package in ("bus", "cli", "kit", "mcp_gateway", "webapp", "workers")
        for path in sorted((_ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return "\n".join((*functions, *constants))


def _messages() -> list[str]:
    rows = re.findall(r"^\| (.*?) \| ", _PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row) if message not in _FOREIGN]


@pytest.mark.parametrize("message", _messages())
def test_a_message_is_one_that_a_program_shows(message: str) -> None:
    parts = [part.strip() for part in message.split("…")]
    assert [part for part in parts if part and part not in _texts()] == []


def test_the_page_lists_many_messages() -> None:
    assert len(_messages()) > 30
