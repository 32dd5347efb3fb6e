"""Surfaces: the part of a repository that a lease is about, and the test whether two of them overlap.

A surface is a path relative to the repository, or a glob: `*` and `?` match within a segment, `[a-z]` and
`[!a-z]` are classes, `**` as a whole segment matches any number of segments, `{a,b}` are alternatives.
A path covers itself and everything under it; a glob covers the paths that it matches. Alternatives are
expanded first, as a shell does, so each stands for itself: `{src,docs/*.md}` covers all of `src`.

Brackets are also common in real names (`app/[id]/page.tsx`, `[...slug]`, `[user-id]`), and there is no syntax to
quote them. A surface with a class therefore covers its literal text as well as the matches of the class.
For an advisory lease a false alarm is cheap and a missed overlap is not. For the same reason braces without a
comma (`{{cookiecutter.slug}}`) are literal.

Overlap is decided exactly, by the automata in bus/rules/glob_automaton.py.
"""

import re
import unicodedata
from functools import lru_cache
from itertools import pairwise

from bus.errors import InvalidArgument
from bus.rules.glob_automaton import WILDCARD_OR_CLASS, State, build_automaton, intersects

MAX_LENGTH = 200
MAX_ALTERNATIVES = 64
MAX_BRACE_DEPTH = 8

# Controls, bidi controls, line separators, surrogates.
_FORBIDDEN_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_DRIVE_OR_HOME = re.compile(r"[A-Za-z]:(?:/|$)|~(?:/|$)")
_BRACE = re.compile(r"[{}]")


def normalise(surface: str) -> str:
    """Normalise a surface to its only spelling: `./src//api/` is `src/api`, `.` is `**`.

    Args:
        surface: as a client sent it.
    Returns:
        1 to 200 characters in NFC, without empty and '.' segments. Idempotent.
    Raises:
        InvalidArgument: empty, too long, absolute, outside the repository, contains a backslash or a character
            that cannot occur in a name, or has braces that are unbalanced, too deep or expand to too many paths.
    """
    if len(surface) > 4 * MAX_LENGTH:
        raise _too_long_error()
    if forbidden := _FORBIDDEN_CHARACTER.search(surface):
        raise InvalidArgument(f"surface contains a character that is refused (U+{ord(forbidden[0]):04X}); remove it.")
    if "\\" in surface:
        raise InvalidArgument("surface contains a backslash; use '/' between segments.")
    if not surface:
        raise InvalidArgument("surface is empty; send a path such as 'src/api', or '.' for the whole repository.")
    # The checks below apply to the normalised text, so that it passes again: './~/a' is refused like '~/a'.
    surface = _normalise_path(surface)
    if surface != surface.strip():
        raise InvalidArgument("surface begins or ends with white space; remove it.")
    if len(surface) > MAX_LENGTH:
        raise _too_long_error()
    _expand_alternatives(surface)
    return surface


def literal_prefix(surface: str) -> str:
    """Return the literal directories that a normalised surface begins with; '' if there are none.

    Everything that a surface covers is its prefix or lies under it. So if two surfaces overlap, their prefixes are
    equal, or one is a directory above the other, or one is ''.

    Returns:
        The segments before the first that contains a wildcard, a class or alternatives; for a literal path,
        the path.
    """
    wildcard = WILDCARD_OR_CLASS.search(surface)
    ends = [wildcard.start()] if wildcard else []
    alternatives_start = _find_alternatives_start(surface)
    if alternatives_start is not None:
        ends.append(alternatives_start)
    return surface[: min(ends)].rpartition("/")[0] if ends else surface


def overlaps(a: str, b: str) -> bool:
    """Whether two normalised surfaces cover a common path. Exact and symmetric."""
    prefix_a, prefix_b = literal_prefix(a), literal_prefix(b)
    if not (_is_same_or_under(prefix_a, prefix_b) or _is_same_or_under(prefix_b, prefix_a)):
        return False
    if prefix_a == a and prefix_b == b:
        return True
    return intersects(_build_automaton(a), _build_automaton(b))


def modes_contend(mode_a: str, mode_b: str) -> bool:
    """Whether leases of these modes contend on overlapping surfaces: they do unless both are shared."""
    return not (mode_a == "shared" and mode_b == "shared")


# The largest surface takes some 50 KB here, a usual one a few KB.
@lru_cache(maxsize=512)
def _build_automaton(surface: str) -> State:
    return build_automaton(_expand_alternatives(surface))


def _too_long_error() -> InvalidArgument:
    return InvalidArgument(f"surface has too many characters; send at most {MAX_LENGTH}.")


def _is_same_or_under(directory: str, path: str) -> bool:
    return not directory or path == directory or path.startswith(directory + "/")


def _normalise_path(text: str) -> str:
    """Remove empty and '.' segments from one path or pattern; '**' if none remain."""
    segments = [segment for segment in unicodedata.normalize("NFC", text).split("/") if segment not in ("", ".")]
    path = "/".join(segments) or "**"
    if text.startswith("/") or _DRIVE_OR_HOME.match(path):
        raise InvalidArgument("surface is absolute; send a path relative to the repository, such as 'src/api'.")
    if ".." in segments:
        raise InvalidArgument("surface contains '..'; send a path relative to the root of the repository.")
    return path


def _expand_alternatives(surface: str) -> list[str]:
    """Expand a surface into normalised paths and patterns without alternatives."""
    if "{" not in surface and "}" not in surface:
        return [surface]
    depth = 0
    for brace in _BRACE.findall(surface):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            break
        if depth > MAX_BRACE_DEPTH:
            raise InvalidArgument(f"surface has too many nested braces; nest at most {MAX_BRACE_DEPTH}.")
    if depth:
        raise InvalidArgument("surface has an unbalanced brace; close every '{' with a '}'.")
    expanded = _expand_braces(surface)
    if "" in expanded:
        raise InvalidArgument("surface has an empty alternative; use '.' for the whole repository.")
    return list(dict.fromkeys(map(_normalise_path, expanded)))


def _find_alternatives_start(text: str) -> int | None:
    """Find the first brace that encloses alternatives; a brace without a comma is literal."""
    open_braces: list[int] = []
    start: int | None = None
    for position, char in enumerate(text) if "{" in text else ():
        if char == "{":
            open_braces.append(position)
        elif char == "}" and open_braces:
            open_braces.pop()
        elif char == "," and open_braces and (start is None or open_braces[-1] < start):
            start = open_braces[-1]
    return start


def _expand_braces(text: str) -> list[str]:
    """Expand a text with balanced braces into one text for each choice among its alternatives."""
    start = _find_alternatives_start(text)
    if start is None:
        return [text]
    # The opening brace, the commas at its level, and the closing brace.
    separators, depth, position = [start], 1, start
    while depth:
        position += 1
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
        if not depth or (depth == 1 and text[position] == ","):
            separators.append(position)
    heads = [
        text[:start] + choice
        for left, right in pairwise(separators)
        for choice in _expand_braces(text[left + 1 : right])
    ]
    tails = _expand_braces(text[position + 1 :])
    # Checked before the texts are built, since their number is exponential in the length of the text.
    if len(heads) * len(tails) > MAX_ALTERNATIVES:
        raise InvalidArgument(f"surface stands for too many paths; use at most {MAX_ALTERNATIVES} alternatives.")
    return [head + tail for head in heads for tail in tails]
