"""Surfaces: the part of a repository that a lease is about, and the test whether two of them overlap.

A surface is a path relative to the repository, or a glob: `*` and `?` match within a segment, `[a-z]` and
`[!a-z]` are classes, `**` as a whole segment matches any number of segments, `{a,b}` are alternatives.
A path covers itself and everything under it; a glob covers the paths that it matches. Alternatives are
expanded first, as a shell does, so each stands for itself: `{src,docs/*.md}` covers all of `src`.

Brackets are also common in real names (`app/[id]/page.tsx`, `[...slug]`, `[user-id]`), and there is no syntax to
quote them. A surface with a class therefore covers its literal text as well as the matches of the class.
For an advisory lease a false alarm is cheap and a missed overlap is not. For the same reason braces without a
comma (`{{cookiecutter.slug}}`) are literal.

Overlap is decided exactly, as the emptiness of the intersection of two automata. The left surface becomes a
minimal graph of tokens, so that 64 alternatives with a common part cost little more than one. The right
one becomes a bit mask with one bit for each position in each alternative. One walk of the graph carries along
the set of positions that the right surface can be at. No step depends on the texts that a pattern could match, so

Overlap is decided exactly (bus/rules/surface_overlap.py).
"""

import re

from bus.errors import InvalidArgument
from bus.rules import surface_text
from bus.rules.surface_alternatives import expand_alternatives, find_alternatives_start, normalise_path
from bus.rules.surface_overlap import patterns_intersect
from bus.rules.surface_tokens import CLASS_PATTERN

MAX_LENGTH = 200

# Controls, bidi controls, line separators, surrogates.
_FORBIDDEN_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_WILDCARD_OR_CLASS = re.compile(rf"[*?]|{CLASS_PATTERN}")
_CLASS = re.compile(CLASS_PATTERN)
_RANGE = re.compile("(.)-(.)")


def normalise(surface: str) -> str:
    """Normalise a surface to its only spelling: `./src//api/` is `src/api`, `.` is `**`, `"a.py":10` is `a.py`.

    Args:
        surface: as a client sent it.
    Returns:
        1 to 200 characters in NFC, without empty and '.' segments. Idempotent.
    Raises:
        InvalidArgument: empty, too long, absolute, outside the repository, not one path or glob
            (bus/rules/surface_text.py), contains a character that cannot occur in a name, or has braces that are
            unbalanced, too deep or expand to too many paths.
    """
    if len(surface) > 4 * MAX_LENGTH:
        raise _too_long_error()
    if forbidden := _FORBIDDEN_CHARACTER.search(surface):
        advice = "send one path in each call" if forbidden[0] in "\t\n\r" else "remove it"
        raise InvalidArgument(f"surface contains a character that is refused (U+{ord(forbidden[0]):04X}); {advice}.")
    if not surface:
        raise InvalidArgument("surface is empty; send a path such as 'src/api', or '.' for the whole repository.")
    # The checks apply to the normalised text, so that it passes again: './~/a' is refused like '~/a'.
    if surface_text.is_plain(surface):
        # No blank, brace or quote: only its length is left to check.
        surface = normalise_path(surface)
        if len(surface) > MAX_LENGTH:
            raise _too_long_error()
        if surface_text.is_plain(surface):
            return surface
    surface_text.check_raw(surface)
    surface = _clean_path(surface)
    if surface != surface.strip():
        raise InvalidArgument("surface begins or ends with white space; remove it.")
    if len(surface) > MAX_LENGTH:
        raise _too_long_error()
    for path in expand_alternatives(surface):
        if path != path.strip():
            raise InvalidArgument("surface has white space beside a brace or a comma; remove it.")
        surface_text.check(path)
    return surface


def literal_prefix(surface: str) -> str:
    """Return the literal directories that a normalised surface begins with; '' if there are none.

    Everything that a surface covers is its prefix or lies under it. So if two surfaces overlap, their prefixes are
    equal, or one is a directory above the other, or one is ''.

    Returns:
        The segments before the first that contains a wildcard, a class or alternatives; for a literal path,
        the path.
    """
    wildcard = _WILDCARD_OR_CLASS.search(surface)
    ends = [wildcard.start()] if wildcard else []
    alternatives_start = find_alternatives_start(surface)
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
    return patterns_intersect(a, b)


def fold_case(surface: str) -> str:
    """Return the only spelling of a normalised surface in a project whose paths ignore case: lower case. Idempotent.

    No character becomes several, so the length and the meaning of wildcards stay. A class with a range from one case
    into the other, such as [A-z], becomes '?', since its lower case would match less.
    """
    if "[" in surface:
        surface = _CLASS.sub(lambda match: "?" if _has_mixed_range(match[0]) else match[0], surface)
    lower = surface.lower()
    if len(lower) == len(surface):
        return lower
    return "".join(char.lower() if len(char.lower()) == 1 else char for char in surface)


def _has_mixed_range(character_class: str) -> bool:
    members = character_class[1:-1].removeprefix("!")
    ranges = _RANGE.findall(members)
    return any(low.islower() != high.islower() or low.isupper() != high.isupper() for low, high in ranges)


def modes_contend(mode_a: str, mode_b: str) -> bool:
    """Whether leases of these modes contend on overlapping surfaces: they do unless both are shared."""
    return not (mode_a == "shared" and mode_b == "shared")


def _too_long_error() -> InvalidArgument:
    return InvalidArgument(f"surface has too many characters; send at most {MAX_LENGTH}.")


def _is_same_or_under(directory: str, path: str) -> bool:
    return not directory or path == directory or path.startswith(directory + "/")


def _clean_path(text: str) -> str:
    """Clean and normalise a text until neither changes it: './"a"' is 'a'."""
    while True:
        path = normalise_path(surface_text.clean(text))
        if path == text:
            return path
        text = path
