"""Blocks between two marks, each on a line of its own, in files that other people also write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kit.text_files import detect_newline, gap_before_block

# A closed block of code in Markdown, in which marks are quoted.
_FENCED = re.compile(r"^ {0,3}(`{3,}|~{3,}).*?^ {0,3}\1[`~]*[ \t]*\r?$", re.MULTILINE | re.DOTALL)


class MarkError(ValueError):
    """The marks do not enclose a block."""


@dataclass(frozen=True)
class Block:
    """A block, `text[start:end]` with the line end behind it.

    Attributes:
        inner: the lines between the marks.
    """

    start: int
    end: int
    inner: list[str]


def find_blocks(text: str, begin: str, end: str) -> list[Block]:
    """Find the blocks between two marks.

    Raises:
        MarkError: a mark stands without the other one.
    """
    blocks: list[Block] = []
    opened: re.Match[str] | None = None
    for match in _find_marks(text, begin, end):
        is_begin = match.group(1) == begin
        if is_begin == (opened is not None):
            raise MarkError(f"a line '{match.group(1)}' stands alone; remove it")
        if opened is not None:
            inner = text[opened.end() : match.start()]
            blocks.append(Block(opened.start(), match.end(), inner.splitlines(keepends=True)))
        opened = match if is_begin else None
    if opened is not None:
        raise MarkError(f"the line '{end}' is missing")
    return blocks


def insert_block(text: str, block: str, begin: str, end: str, known: Iterable[str]) -> str:
    """Return the text with a block in the place of an earlier one, or at the end.

    Args:
        block: the lines between the marks.
        known: the lines that earlier blocks may have had; others between the marks are the user's, and stay behind it.
    """
    newline = detect_newline(text)
    marked = f"{begin}\n{block.strip()}\n{end}\n".replace("\n", newline)
    blocks = find_blocks(text, begin, end)
    if not blocks:
        return text + gap_before_block(text) + marked
    known = [*known, block]
    for later in reversed(blocks[1:]):
        text = _cut(text, later, "".join(_other_lines(later, known)))
    first = blocks[0]
    return text[: first.start] + marked + "".join(_other_lines(first, known)) + text[first.end :]


def remove_blocks(text: str, begin: str, end: str, known: Iterable[str], *, has_gap: bool = True) -> str:
    """Return the text without the blocks between two marks.

    Args:
        known: the texts that a block may have had; other lines between the marks are the user's, and stay.
        has_gap: whether a line end stands before a block that belongs to it.
    """
    for block in reversed(find_blocks(text, begin, end)):
        rest = "".join(_other_lines(block, known))
        text = _cut(text, block, rest) if has_gap else text[: block.start] + rest + text[block.end :]
    return text


def _find_marks(text: str, begin: str, end: str) -> Iterator[re.Match[str]]:
    # A byte order mark belongs to the file.
    pattern = rf"(?:^|(?<=\A\ufeff))[ \t]*({re.escape(begin)}|{re.escape(end)})[ \t]*(?:\r?\n|\Z)"
    fences = [match.span() for match in _FENCED.finditer(text)] if begin.startswith("<!--") and begin in text else []
    for match in re.finditer(pattern, text, re.MULTILINE):
        if not any(start <= match.start() < stop for start, stop in fences):
            yield match


def _cut(text: str, block: Block, rest: str) -> str:
    """Remove a block and the line end before it, unless two lines would become one."""
    before, after = text[: block.start], rest + text[block.end :]
    if before.endswith("\n"):
        shorter = before[: -2 if before.endswith("\r\n") else -1]
        if not after or not shorter or shorter.endswith("\n"):
            before = shorter
    return before + after


def _other_lines(block: Block, known: Iterable[str]) -> list[str]:
    """Return the lines of a block that the kit did not write.

    A block with all lines of a known text in their order is that text with lines of the user. Any other block is of
    another version of the kit, and is the kit's as a whole.
    """
    for text in known:
        expected = text.strip().splitlines()
        others: list[str] = []
        position = 0
        for line in block.inner:
            if position < len(expected) and line.rstrip("\r\n") == expected[position]:
                position += 1
            else:
                others.append(line)
        if position == len(expected):
            return others
    return []
