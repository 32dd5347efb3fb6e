"""The block of rules in CLAUDE.md, AGENTS.md and GEMINI.md: put in once, renewed in place, taken out whole."""

from __future__ import annotations

import re

BLOCK_BEGIN, BLOCK_END = "<!-- llm-bus:begin -->", "<!-- llm-bus:end -->"
_BLOCK_PATTERN = re.compile(rf"(?:\r?\n)?{re.escape(BLOCK_BEGIN)}.*?{re.escape(BLOCK_END)}\r?\n?", re.DOTALL)


def insert_block(text: str, block: str) -> str:
    """A text with the block at its end, or where it stood before."""
    ending = "\r\n" if "\r\n" in text else "\n"
    whole = f"{BLOCK_BEGIN}\n{block.strip()}\n{BLOCK_END}\n".replace("\n", ending)
    found = _BLOCK_PATTERN.search(text)
    if found:
        lead = ending if found.start() else ""
        return text[: found.start()] + lead + whole + text[found.end() :]
    gap = "" if not text else ending if text.endswith("\n") else ending * 2
    return text + gap + whole


def remove_block(content: bytes) -> bytes | None:
    """A text without the block."""
    return _BLOCK_PATTERN.sub("", content.decode("utf-8")).encode("utf-8")
