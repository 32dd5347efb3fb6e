"""The block of rules in CLAUDE.md, AGENTS.md and GEMINI.md: put in once, renewed in place, taken out whole."""

from __future__ import annotations

import re

BEGIN, END = "<!-- llm-bus:begin -->", "<!-- llm-bus:end -->"
_BLOCK = re.compile(rf"(?:\r?\n)?{re.escape(BEGIN)}.*?{re.escape(END)}\r?\n?", re.DOTALL)


def insert(held: str, block: str) -> str:
    """A text with the block at its end, or where it stood before."""
    ending = "\r\n" if "\r\n" in held else "\n"
    whole = f"{BEGIN}\n{block.strip()}\n{END}\n".replace("\n", ending)
    found = _BLOCK.search(held)
    if found:
        lead = ending if found.start() else ""
        return held[: found.start()] + lead + whole + held[found.end() :]
    gap = "" if not held else ending if held.endswith("\n") else ending * 2
    return held + gap + whole


def strip(held: bytes) -> bytes | None:
    """A text without the block."""
    return _BLOCK.sub("", held.decode("utf-8")).encode("utf-8")
