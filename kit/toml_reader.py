"""A reader of TOML 1.0 that keeps the position of each statement and comment.

Python has no `tomllib` before 3.11, and it has no positions. Where it exists, it reads each text a second time.
"""

from __future__ import annotations

import datetime
import re
import sys
from dataclasses import dataclass, field
from typing import Any

KeyPath = tuple[str, ...]
_BLANKS = re.compile(r"[ \t]*")
_NEWLINE = re.compile(r"\r?\n")
_COMMENT = re.compile(r"#[^\x00-\x08\x0a-\x1f\x7f]*")
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BASIC_STRING = re.compile(r'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[^\n])*)"')
_LITERAL_STRING = re.compile(r"'([^'\x00-\x08\x0a-\x1f\x7f]*)'")
_LONG_BASIC_STRING = re.compile(
    r'"""(?:\r?\n)?((?:(?:"{0,2}(?:[^"\\\x00-\x08\x0b-\x1f\x7f]|\r\n|\\(?:[^\r\n]|\r?\n)))*)"{0,2})"""'
)
_LONG_LITERAL_STRING = re.compile(r"'''(?:\r?\n)?((?:'{0,2}(?:[^'\x00-\x08\x0b-\x1f\x7f]|\r\n))*'{0,2})'''")
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[ \t]*\r?\n[ \t\r\n]*|.)", re.DOTALL)
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?"
_DIGITS = r"(?:0|[1-9](?:_?[0-9])*)"
_SCALAR = re.compile(
    rf"(?P<date>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})(?:[Tt ]{_TIME}(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?)?"
    rf"|{_TIME}|[+-]?(?:inf|nan)|true|false"
    r"|0x[0-9A-Fa-f](?:_?[0-9A-Fa-f])*|0o[0-7](?:_?[0-7])*|0b[01](?:_?[01])*"
    rf"|[+-]?{_DIGITS}(?:\.[0-9](?:_?[0-9])*)?(?:[eE][+-]?[0-9](?:_?[0-9])*)?"
)
_MAX_DEPTH = 100


class NotTomlError(ValueError):
    """The text is not TOML, or it cannot be edited without a change of something else."""


class Table(dict[str, Any]):
    """A table, and how it was defined: a second definition is an error."""

    is_defined = False
    is_inline = False
    dotted_in = -1


class Scalar(str):
    """A number, a boolean or a date, as it is written."""


class _TableArray(list[Any]):
    """An array of tables that headers define."""


@dataclass(frozen=True)
class Statement:
    """A header or a key with its value, `text[start:end]`, without the comment behind it.

    Attributes:
        kind: table, array (of tables), or pair.
        path: the keys from the document.
        value_start: the start of the value of a pair.
    """

    kind: str
    path: KeyPath
    start: int
    end: int
    value_start: int


@dataclass
class Document:
    """A parsed text.

    Attributes:
        comments: the spans of all comments.
    """

    root: Table = field(default_factory=Table)
    statements: list[Statement] = field(default_factory=list)
    comments: list[tuple[int, int]] = field(default_factory=list)

    def find(self, path: KeyPath) -> Any:
        """Find a value; None if there is none."""
        value: Any = self.root
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def statements_below(self, path: KeyPath) -> list[Statement]:
        """List the statements that define the value at a path, or a part of it."""
        return [statement for statement in self.statements if statement.path[: len(path)] == path]


def parse(text: str) -> Document:
    """Parse a text; a byte order mark is skipped.

    Raises:
        NotTomlError: the text is not TOML 1.0.
    """
    reader = _Reader(text)
    reader.read()
    _check_with_standard_library(text)
    return reader.document


def _check_with_standard_library(text: str) -> None:
    if sys.version_info >= (3, 11):
        import tomllib

        try:
            tomllib.loads(text[1:] if text.startswith("\ufeff") else text)
        except (ValueError, RecursionError) as error:
            raise NotTomlError(f"this is not TOML ({error})") from None


class _Reader:
    """The state of the parser."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 1 if text.startswith("\ufeff") else 0
        self.document = Document()
        self.table: Table = self.document.root
        self.table_path: KeyPath = ()
        self.section = 0

    def read(self) -> None:
        while self.position < len(self.text):
            self.skip(_BLANKS)
            if self.peek() == "[":
                self.read_header()
            elif self.peek() not in ("", "#", "\n", "\r"):
                self.read_pair()
            self.read_line_end()

    def read_header(self) -> None:
        start = self.position
        is_array = self.text.startswith("[[", start)
        self.position += 2 if is_array else 1
        path = self.read_key()
        self.expect("]]" if is_array else "]")
        self.section += 1
        parent = self.document.root
        for key in path[:-1]:
            parent = self.descend(parent.setdefault(key, Table()))
        existing = parent.get(path[-1])
        if is_array:
            existing = parent.setdefault(path[-1], _TableArray())
            if not isinstance(existing, _TableArray):
                raise self.error(f"{'.'.join(path)} is defined twice")
            existing.append(Table())
            self.table = existing[-1]
        else:
            existing = parent.setdefault(path[-1], Table())
            if not isinstance(existing, Table) or existing.is_inline or self.is_closed(existing):
                raise self.error(f"{'.'.join(path)} is defined twice")
            self.table = existing
        self.table.is_defined = True
        self.table_path = path
        self.add_statement("array" if is_array else "table", path, start, start)

    def read_pair(self) -> None:
        start = self.position
        path = self.read_key()
        self.expect("=")
        self.skip(_BLANKS)
        value_start = self.position
        self.assign(self.table, path, self.read_value(0), is_header_table=True)
        self.add_statement("pair", (*self.table_path, *path), start, value_start)

    def assign(self, table: Table, path: KeyPath, value: Any, *, is_header_table: bool) -> None:
        for key in path[:-1]:
            inner = table.setdefault(key, Table())
            if not isinstance(inner, Table) or inner.is_inline or (is_header_table and self.is_closed(inner)):
                raise self.error(f"{'.'.join(path)} is defined twice")
            inner.dotted_in = self.section
            table = inner
        if path[-1] in table:
            raise self.error(f"{'.'.join(path)} is defined twice")
        table[path[-1]] = value

    def is_closed(self, table: Table) -> bool:
        """Whether a table was defined by a header, or by dotted keys below another header."""
        return table.is_defined or table.dotted_in not in (-1, self.section)

    def descend(self, value: Any) -> Table:
        if isinstance(value, _TableArray):
            value = value[-1]
        if not isinstance(value, Table) or value.is_inline:
            raise self.error("a header extends a value that is not a table")
        return value

    def add_statement(self, kind: str, path: KeyPath, start: int, value_start: int) -> None:
        self.document.statements.append(Statement(kind, path, start, self.position, value_start))

    def read_line_end(self) -> None:
        self.skip(_BLANKS)
        self.read_comment()
        if self.position < len(self.text) and not self.skip(_NEWLINE):
            raise self.error("unexpected text")

    def read_comment(self) -> None:
        start = self.position
        if self.skip(_COMMENT):
            self.document.comments.append((start, self.position))

    def read_key(self) -> KeyPath:
        keys = []
        while True:
            self.skip(_BLANKS)
            quote_sign = self.peek()
            if quote_sign in ('"', "'") and not self.text.startswith(quote_sign * 3, self.position):
                keys.append(self.read_string())
            else:
                match = self.match(BARE_KEY)
                keys.append(match.group())
            self.skip(_BLANKS)
            if self.peek() != ".":
                return tuple(keys)
            self.position += 1

    def read_value(self, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise self.error("too many levels")
        opening = self.peek()
        if opening in ('"', "'"):
            return self.read_string()
        if opening == "[":
            return self.read_array(depth)
        if opening == "{":
            return self.read_inline_table(depth)
        match = self.match(_SCALAR)
        if date := match.group("date"):
            try:
                datetime.date(*map(int, date.split("-")))
            except ValueError:
                raise self.error("this date does not exist") from None
        return Scalar(match.group())

    def read_string(self) -> str:
        sign = self.peek()
        is_long = self.text.startswith(sign * 3, self.position)
        if sign == "'":
            raw = self.match(_LONG_LITERAL_STRING if is_long else _LITERAL_STRING).group(1)
            return raw.replace("\r\n", "\n")
        raw = self.match(_LONG_BASIC_STRING if is_long else _BASIC_STRING).group(1)
        return _ESCAPE.sub(self.unescape, raw).replace("\r\n", "\n") if is_long else _ESCAPE.sub(self.unescape, raw)

    def unescape(self, match: re.Match[str]) -> str:
        escape: str = match.group(1)
        if escape[:1] in "uU" and len(escape) > 1:
            number = int(escape[1:], 16)
            if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
                raise self.error("an escape that is no character")
            return chr(number)
        if "\n" in escape:
            return ""
        if escape not in _ESCAPED:
            raise self.error("unknown escape")
        return _ESCAPED[escape]

    def read_array(self, depth: int) -> list[Any]:
        self.position += 1
        items: list[Any] = []
        self.skip_blank_lines()
        while self.peek() != "]":
            items.append(self.read_value(depth + 1))
            self.skip_blank_lines()
            if self.peek() == ",":
                self.position += 1
                self.skip_blank_lines()
            elif self.peek() != "]":
                raise self.error("no ',' in an array")
        self.position += 1
        return items

    def read_inline_table(self, depth: int) -> Table:
        self.position += 1
        table = Table()
        self.skip(_BLANKS)
        while self.peek() != "}":
            path = self.read_key()
            self.expect("=")
            self.skip(_BLANKS)
            self.assign(table, path, self.read_value(depth + 1), is_header_table=False)
            self.skip(_BLANKS)
            if self.peek() == ",":
                self.position += 1
                self.skip(_BLANKS)
                if self.peek() == "}":
                    raise self.error("a ',' at the end of an inline table")
            elif self.peek() != "}":
                raise self.error("no ',' in an inline table")
        self.position += 1
        _close(table)
        return table

    def skip_blank_lines(self) -> None:
        while True:
            self.skip(_BLANKS)
            self.read_comment()
            if not self.skip(_NEWLINE):
                return

    def skip(self, pattern: re.Pattern[str]) -> bool:
        match = pattern.match(self.text, self.position)
        if match is None:
            return False
        self.position = match.end()
        return bool(match.group())

    def match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self.text, self.position)
        if match is None:
            raise self.error("unexpected text")
        self.position = match.end()
        return match

    def expect(self, sign: str) -> None:
        self.skip(_BLANKS)
        if not self.text.startswith(sign, self.position):
            raise self.error(f"no '{sign}'")
        self.position += len(sign)

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def error(self, message: str) -> NotTomlError:
        line = self.text.count("\n", 0, self.position) + 1
        return NotTomlError(f"this is not TOML: {message} in line {line}")


def _close(table: Table) -> None:
    """Mark a table and the tables in it as inline: nothing may be added to them."""
    table.is_inline = True
    for value in table.values():
        if isinstance(value, Table):
            _close(value)
