"""What a number is: the numbering rules of a repository, and the numbers in the names of its files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from kit import globs

_DIGITS = re.compile(r"[0-9]+")
_WILDCARD = re.compile(r"[*?\[{]")
# The service accepts no higher number.
_MAX_NUMBER = 2**53 - 1
# A name such as `0007-cache.md`, `ADR-0007 cache.md`, `V7__cache.sql`: perhaps words, then the digits.
_NAME = re.compile(r"(?P<words>(?:[A-Za-z]+[-_ .#])*[A-Za-z]*)(?P<digits>[0-9]+)(?P<rest>.*)\Z", re.DOTALL)
_END_OF_NUMBER = re.compile(r"\Z|[-_ ,~+()\[\]\u2013\u2014]|\.(?![0-9])")
# Before a number of any form: these words and the name of the sequence, perhaps after another word.
_KNOWN_WORDS = frozenset(("ad", "adr", "madr", "dr", "rfc", "rfd", "pep", "kep", "decision", "proposal"))
_MAX_WORDS = 2
# Before a number that is padded with zeros: any word. `http-2-support.md` has no number.
_PADDED = re.compile(r"0[0-9]{2,}\Z")
# Flyway and refinery: a version, and the file that undoes it. `V1_1__a.sql` and `V1.1__a.sql` are dotted versions.
_FLYWAY_WORDS = frozenset("VUvu")
_FLYWAY_BASELINE = "B"
# From this width on digits are a timestamp or a hash; from the smaller one on, unless they are padded.
_TIMESTAMP_WIDTH = 10
_MAX_UNPADDED_WIDTH = 7
_YEAR, _MONTH, _DAY = "(?:19|20)[0-9]{2}", "(?:0[1-9]|1[0-2])", "(?:0[1-9]|[12][0-9]|3[01])"
_DATE_EXPRESSION = (
    rf"{_YEAR}[-_. ]?{_MONTH}(?![0-9])"
    rf"|{_YEAR}[-_. ]?{_MONTH}[-_. ]?{_DAY}"
    rf"|{_YEAR}[-_. ][0-9]{{1,2}}[-_. ][0-9]{{1,2}}(?![0-9])"
    rf"|{_YEAR}[-_. ]?(?:[qQ][1-4]|[wW][0-9]{{1,2}}|[hH][12])(?![0-9A-Za-z])"
    # Numbered by year: `2024-013-cache.md`, `ADR-2024-13.md`.
    rf"|{_YEAR}[-_. ][0-9]{{2,}}(?![0-9A-Za-z])"
    rf"|[0-9]{{1,2}}[-_.][0-9]{{1,2}}[-_.]{_YEAR}(?![0-9])"
    rf"|[0-9]{{2}}[-_.]{_MONTH}[-_.]{_DAY}(?![0-9])"
    rf"|[1-9][0-9]{_MONTH}{_DAY}(?![0-9])"
    # Laravel: the migrations of the framework have the year 1.
    rf"|[0-9]{{4}}_{_MONTH}_{_DAY}_[0-9]{{6}}(?![0-9])"
)
# Numbered in parts: `24-001-cache.md`, `01-02-cache.md`. The number of such a file is no number of the sequence.
_FURTHER_NUMBER = re.compile(r"[-_ ]0[0-9]+(?![0-9A-Za-z])")
_YEAR_BEHIND = re.compile(rf"[-_. ]?{_YEAR}(?![0-9A-Za-z])")
# Django: the file replaces those that it names, and begins with the number of the first.
_SQUASHED = re.compile(r"_squashed_[0-9]")
# Files of one number that belong together: `0007_cache.up.sql` and `0007_cache_down.sql`.
_DIRECTION = re.compile(r"(?:\A|[-_ ])(?:up|down|do|undo|revert|rollback|deploy|verify|tests?|spec)\Z")
_TITLE_SEPARATORS = "-_ ,~+()[]\u2013\u2014"
_FIRST_YEAR, _LAST_YEAR = 1900, 2100
# Numbers this far from every other one are no part of the sequence: `404-page.md` among 1 to 19.
_MAX_GAP = 100


@lru_cache(maxsize=1)
def _date_pattern() -> re.Pattern[str]:
    # Compiled for the first number: that takes longer than most other parts of a hook.
    return re.compile(_DATE_EXPRESSION)


@dataclass(frozen=True)
class NumberingRule:
    """A rule: `sequence` numbers the files that match `glob`.

    Attributes:
        pattern: captures the number of a path in its first group; None for the usual forms of names.
    """

    glob: str
    sequence: str
    pattern: re.Pattern[str] | None = None


@dataclass(frozen=True)
class GovernedFile:
    """A file that is numbered by a sequence; its number is `path[number_start:number_end]`.

    Attributes:
        title: the rest of the name without extension and direction: files of one number and title belong together.
    """

    path: str
    sequence: str
    number: int
    number_start: int
    number_end: int
    title: str = ""

    @property
    def folder(self) -> str:
        """The folder of the numbered file or folder, with a slash at its end; empty for the root."""
        return self.path[: self.path.rfind("/", 0, self.number_start) + 1]

    @property
    def may_be_year(self) -> bool:
        """Whether the number looks like a year, as in `2024-review.md`."""
        return self.number_end - self.number_start == 4 and _FIRST_YEAR <= self.number <= _LAST_YEAR

    def path_with_number(self, formatted: str) -> str:
        """Return the path with the number of `formatted`, padded to the width of this file's number."""
        digits: str = _DIGITS.findall(formatted)[-1]
        if self.path[self.number_start] == "0":
            digits = digits.lstrip("0").zfill(self.number_end - self.number_start) if digits.strip("0") else digits
        return self.path[: self.number_start] + digits + self.path[self.number_end :]


def find_governed(rules: Iterable[NumberingRule], path: str) -> GovernedFile | None:
    """Find the number in a path by the first rule that matches it; None if there is no rule or no number."""
    for rule in rules:
        if globs.covers(rule.glob, path):
            return _match_pattern(rule, path) if rule.pattern else _match_name(rule, path)
    return None


def find_version_scheme(name: str) -> str | None:
    """Find how the name of a file without a number is versioned.

    Returns:
        "timestamp" for a timestamp or a date, "version" for a dotted version, "hash" for a hash; None for none of them.
    """
    match = _NAME.match(name)
    if match and (len(match["digits"]) >= _TIMESTAMP_WIDTH or _date_pattern().match(name, match.start("digits"))):
        return "timestamp"
    if match and not match["words"].strip("Vv") and re.match(r"[._][0-9]", match["rest"]):
        return "version"
    if match and _FURTHER_NUMBER.match(match["rest"]):
        return "version"
    return "hash" if re.match(r"(?=[a-f]*[0-9])[0-9a-f]{11,40}(?:_|\b)", name) else None


def highest_number(numbers: Iterable[int]) -> int:
    """Return the highest number of a sequence; 0 without numbers.

    A single number that is far above all others is not of the sequence. It would raise the sequence for good.
    """
    ordered = sorted(set(numbers))
    while len(ordered) > 1 and ordered[-1] - ordered[-2] > _MAX_GAP:
        ordered.pop()
    return ordered[-1] if ordered else 0


def _match_pattern(rule: NumberingRule, path: str) -> GovernedFile | None:
    match = rule.pattern.search(path) if rule.pattern else None
    if match is None or not match.group(1) or not match.group(1).isdigit() or not match.group(1).isascii():
        return None
    start, end = match.span(1)
    segment_start, segment_end = path.rfind("/", 0, start) + 1, path.find("/", end)
    segment_end = len(path) if segment_end < 0 else segment_end
    title = path[segment_start:start] + _normalize_title(path[end:segment_end])
    return _make_governed(rule, path, start, end, title)


def _match_name(rule: NumberingRule, path: str) -> GovernedFile | None:
    """Match the number at the beginning of the file name, else that of the nearest folder that a wildcard matches.

    `docs/adr/*/README.md` governs `docs/adr/0042-queue/README.md`.
    """
    segments, patterns = path.split("/"), [part for part in rule.glob.split("/") if part not in ("", ".")]
    literal_count = next((i for i, part in enumerate(patterns) if _WILDCARD.search(part)), len(patterns))
    is_aligned = "**" not in patterns and len(patterns) == len(segments)
    end = len(path)
    for index in range(len(segments) - 1, -1, -1):
        start = end - len(segments[index])
        is_last = index == len(segments) - 1
        is_open = _WILDCARD.search(patterns[index]) is not None if is_aligned else index >= literal_count
        match = _match_segment(segments[index], rule.sequence) if is_last or is_open else None
        if match:
            title = _normalize_title(match["rest"])
            return _make_governed(rule, path, start + match.start("digits"), start + match.end("digits"), title)
        end = start - 1
    return None


def _match_segment(segment: str, sequence: str) -> re.Match[str] | None:
    """Match a name that begins with a number, or with a word such as ADR or V and a number, up to a separator."""
    match = _NAME.match(segment)
    if match is None:
        return None
    words, digits, rest = match["words"], match["digits"], match["rest"]
    if words in _FLYWAY_WORDS:
        is_number = rest.startswith("__")
    else:
        is_number = _END_OF_NUMBER.match(rest) is not None and _may_precede_number(words, digits, rest, sequence)
    if not is_number or len(digits) >= _TIMESTAMP_WIDTH or _date_pattern().match(segment, match.start("digits")):
        return None
    if len(digits) > _MAX_UNPADDED_WIDTH and not digits.startswith("0"):
        return None
    return None if _SQUASHED.match(rest) or _FURTHER_NUMBER.match(rest) else match


def _may_precede_number(words: str, digits: str, rest: str, sequence: str) -> bool:
    """Whether the digits after these words are a number."""
    if not words:
        return True
    parts = [part for part in re.split(r"[-_ .#]", words) if part]
    last_word = parts[-1].lower()
    if len(parts) <= _MAX_WORDS and (last_word in _KNOWN_WORDS or last_word in (sequence, sequence.rstrip("s"))):
        return True
    if len(words) == 1 and words.isupper():
        # `R7-cache.md`, not `Q1-2024.md`; `B7__baseline.sql` of Flyway repeats the number of the version that it
        # stands for.
        return not (words == _FLYWAY_BASELINE and rest.startswith("__")) and not _YEAR_BEHIND.match(rest)
    is_glued = words[-1].isalpha()
    return len(parts) == 1 and _PADDED.match(digits) is not None and (not is_glued or words.isupper())


def _normalize_title(rest: str) -> str:
    """Return the title in what follows the number: without direction, language and extension.

    `_users.up.sql` and `.users.sql` give "users", `-to-v1.2.md` gives "to-v1.2".
    """
    first, *others = rest.lower().split(".")
    if others and not others[-1][:1].isdigit():
        # The extension.
        others.pop()
    title = _DIRECTION.sub("", first.strip(_TITLE_SEPARATORS))
    if not first:
        # Dots separate the parts of the name.
        title = next((part for part in others if part and not _DIRECTION.fullmatch(part)), "")
    return title + "".join(f".{part}" for part in others if part[:1].isdigit())


def _make_governed(rule: NumberingRule, path: str, start: int, end: int, title: str) -> GovernedFile | None:
    # The length first: Python refuses to convert thousands of digits.
    if end - start > len(str(_MAX_NUMBER)) + 12:
        return None
    number = int(path[start:end])
    return GovernedFile(path, rule.sequence, number, start, end, title) if 0 < number <= _MAX_NUMBER else None
