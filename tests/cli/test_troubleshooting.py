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


# Raised where a program cannot start or go on; each call of `Finding` with these is a fault that a doctor reports.
_RAISED = {"CliError", "StartFailedError"}
# Mistakes in the words of a command, which the message corrects by itself.
_OBVIOUS = ("Give either", "Give the NAME", "No token was given", "The parent has ended")


def _part(node: ast.expr) -> str:
    """Return the longest constant part of the first sentence of a text."""
    values = node.values if isinstance(node, ast.JoinedStr) else [node]
    text = "".join(str(value.value) if isinstance(value, ast.Constant) else "\0" for value in values)
    parts = (part.strip(" .:,;({") for part in re.split(r"\. | `", text)[0].split("\0"))
    return max(parts, key=len)


def _raised_messages() -> list[str]:
    """The longest part of the first sentence of each message with which a command ends, or that a doctor shows."""
    messages = []
    for path in (*sorted((_ROOT / "cli").rglob("*.py")), _ROOT / "kit" / "doctor.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            text: ast.expr | None = node.args[0] if name in _RAISED else None
            if name == "Finding" and path.parent.name == "cli" and isinstance(node.args[1], ast.Constant):
                text = None if node.args[1].value else node.args[2]
            elif name == "Finding" and path.parent.name == "kit" and len(node.args) > 2:
                text = node.args[1]
            part = _part(text) if text is not None else ""
            if len(part) > 5 and not part.startswith(_OBVIOUS):
                messages.append(part)
    return sorted(set(messages))


@pytest.mark.parametrize("message", _raised_messages())
def test_the_page_has_every_message_of_a_start_and_of_the_doctors(message: str) -> None:
    # A message may stand in parts: `…` replaces names and values.
    listed = _PAGE.read_text(encoding="utf-8")
    assert any(message in part or (len(part) > 15 and part in message) for part in _listed_parts(listed)), message


@cache
def _listed_parts(page: str) -> list[str]:
    return [
        part.strip(" .:,;({") for text in re.findall(r"`([^`]+)`", page) for part in text.split("…") if part.strip()
    ]


def test_the_page_lists_many_messages() -> None:
    assert len(_messages()) > 80
    assert len(_raised_messages()) > 60
