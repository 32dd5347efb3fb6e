"""The block of rules in CLAUDE.md, AGENTS.md and GEMINI.md: inserted once, replaced in place, removed completely."""

from __future__ import annotations

import re

BLOCK_BEGIN, BLOCK_END = "<!-- llm-bus:begin -->", "<!-- llm-bus:end -->"
_BLOCK_PATTERN = re.compile(rf"(?:\r?\n)?{re.escape(BLOCK_BEGIN)}.*?{re.escape(BLOCK_END)}\r?\n?", re.DOTALL)


def insert_block(text: str, block: str) -> str:
    """Return the text with the block in the place of an earlier one, or at the end."""
    newline = "\r\n" if "\r\n" in text else "\n"
    marked_block = f"{BLOCK_BEGIN}\n{block.strip()}\n{BLOCK_END}\n".replace("\n", newline)
    match = _BLOCK_PATTERN.search(text)
    if match:
        lead = newline if match.start() else ""
        return text[: match.start()] + lead + marked_block + text[match.end() :]
    gap = "" if not text else newline if text.endswith("\n") else newline * 2
    return text + gap + marked_block


def remove_block(content: bytes) -> bytes | None:
    """Return the content of a file without the block."""
    return _BLOCK_PATTERN.sub("", content.decode("utf-8")).encode("utf-8")
