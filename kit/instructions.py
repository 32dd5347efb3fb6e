"""The block of rules in CLAUDE.md, AGENTS.md and GEMINI.md: inserted once, replaced in place, removed completely."""

from __future__ import annotations

from collections.abc import Iterable

from kit import marks, text_files

BLOCK_BEGIN, BLOCK_END = "<!-- llm-bus:begin -->", "<!-- llm-bus:end -->"


def insert_block(text: str, block: str, known: Iterable[str] = ()) -> str:
    """Return the text with the block in the place of an earlier one, or at the end.

    Args:
        known: other texts that an earlier block may have; further lines between its marks are the user's, and stay.
    """
    return marks.insert_block(text, block, BLOCK_BEGIN, BLOCK_END, known)


def insert_into(content: bytes, block: str, known: Iterable[str] = ()) -> bytes:
    """Return the content of a file with the block.

    A block in ASCII is right in every encoding that extends ASCII, so the rest needs not be UTF-8.

    Raises:
        UnreadableTextError: the content is in an encoding that does not extend ASCII.
    """
    if not block.isascii():
        text_files.decode(content)
    return text_files.encode_any(insert_block(text_files.decode_any(content), block, known))


def remove_block(content: bytes, known: Iterable[str] = ()) -> bytes:
    """Return the content of a file without the block."""
    if BLOCK_BEGIN.encode() not in content and BLOCK_END.encode() not in content:
        return content
    text = marks.remove_blocks(text_files.decode_any(content), BLOCK_BEGIN, BLOCK_END, known)
    return text_files.encode_any(text)
