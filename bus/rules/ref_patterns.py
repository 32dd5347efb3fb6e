"""Patterns of references: which texts are references, and the address that each leads to.

RE2 reads a text once, whatever the pattern, so the pattern of an owner cannot block a process.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import re2

from bus.errors import InvalidArgument
from bus.rules import validation

MAX_PATTERNS = 20
MAX_PATTERN_LENGTH = 200
MAX_ADDRESS_LENGTH = 500
_MAX_GROUPS = 9
_MAX_MEMORY_BYTES = 1 << 20
# RE2 reads each character in a time that grows with the size of the program: 84 for `(?i)[A-Z]{2,10}-\d{1,6}`, 1,200
# for `\pL+-\d+`, 4,000 for `.{500}`.
_MAX_PROGRAM_SIZE = 1_500
# Each match can read the rest of its part again, so the parts of a text are short, and its matches are counted.
MAX_MATCHES = 200
_MAX_PART_LENGTH = 1_000
_PART = re.compile(rf"(?s).{{1,{_MAX_PART_LENGTH}}}(?!\S)|.{{1,{_MAX_PART_LENGTH}}}")
_PLACEHOLDER = re.compile(r"\$(\d)")


@dataclass(frozen=True, slots=True)
class RefPattern:
    r"""A pattern and its address.

    Attributes:
        pattern: a regular expression in the syntax of RE2, such as `PR-(\d+)`.
        address: an address in which `$1` to `$9` stand for the groups of the pattern, and `$0` for the whole text.
    """

    pattern: str
    address: str


@dataclass(frozen=True, slots=True)
class RefMatch:
    """A reference in a text, from `start` to `end`, and its address."""

    start: int
    end: int
    address: str


def validate(pattern: str, address: str) -> RefPattern:
    """Check a pattern and its address.

    Raises:
        InvalidArgument: the pattern is not of RE2, is too large or matches an empty text; the address is not one of
            http or https, names a group that the pattern does not have, or has a group in its host.
    """
    pattern = validation.name(pattern, "pattern", MAX_PATTERN_LENGTH)
    address = validation.name(address, "address", MAX_ADDRESS_LENGTH)
    try:
        compiled = _compile(pattern)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise InvalidArgument(f"pattern is not valid in RE2 ({reason}); write one such as PR-(\\d+).") from None
    if max(compiled.programsize, compiled.reverseprogramsize) > _MAX_PROGRAM_SIZE:
        raise InvalidArgument("pattern is too large when it is compiled; repeat less, such as \\d+ for \\d{1,500}.")
    if compiled.groups > _MAX_GROUPS:
        raise InvalidArgument(f"pattern has {compiled.groups} groups; use at most {_MAX_GROUPS}.")
    if compiled.search("") is not None:
        raise InvalidArgument("pattern matches an empty text; write one such as PR-(\\d+).")
    try:
        parts = urlsplit(address)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc or "$" in parts.netloc or " " in address:
        raise InvalidArgument(
            "address must begin with https:// and a host, such as https://github.com/acme/shop/pull/$1."
        )
    missing = [number for number in _PLACEHOLDER.findall(address) if int(number) > compiled.groups]
    if missing:
        raise InvalidArgument(f"address has ${missing[0]}, but the pattern has {compiled.groups} groups.")
    return RefPattern(pattern, address)


def resolve(patterns: Sequence[RefPattern], ref: str) -> str | None:
    """Return the address of a reference: itself if it is one, else that of the first pattern that matches all of it."""
    if ref.startswith(("http://", "https://")) and not any(character.isspace() for character in ref):
        return ref
    for pattern in patterns:
        match = _compile(pattern.pattern).fullmatch(ref)
        if match is not None:
            return _fill(pattern.address, match)
    return None


class RefFinder:
    """Finds the references in the parts of one text, MAX_MATCHES at most.

    Args:
        patterns: of a project, in the order in which they are tried.
    """

    def __init__(self, patterns: Sequence[RefPattern]) -> None:
        self._patterns = patterns
        self._remaining = MAX_MATCHES

    def find_all(self, text: str) -> Iterator[RefMatch]:
        """Yield the references in a part of the text; one that is a part of a longer word is none."""
        for pattern in self._patterns:
            compiled = _compile(pattern.pattern)
            for part in _PART.finditer(text):
                for match in compiled.finditer(part[0]):
                    if self._remaining == 0:
                        return
                    self._remaining -= 1
                    start, end = part.start() + match.start(), part.start() + match.end()
                    address = _fill(pattern.address, match)
                    if address is None or start == end or _splits_word(text, start) or _splits_word(text, end):
                        continue
                    yield RefMatch(start, end, address)


@functools.lru_cache(256)
def _compile(pattern: str) -> "re2._Regexp":
    options = re2.Options()
    options.max_mem = _MAX_MEMORY_BYTES
    options.log_errors = False
    return re2.compile(pattern, options)


def _fill(address: str, match: "re2._Match") -> str | None:
    """Return the address of a match; None if a browser would leave the path of the pattern's address, by `..`."""
    filled = _PLACEHOLDER.sub(lambda placeholder: quote(match.group(int(placeholder[1])) or "", safe="/"), address)
    return None if ".." in re.split("[/?#]", filled) else filled


def _splits_word(text: str, position: int) -> bool:
    return 0 < position < len(text) and _is_word(text[position - 1]) and _is_word(text[position])


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"
