"""Overlap of surfaces against a second implementation, as properties, and in time."""

import fnmatch
import itertools
import re
import time
from functools import cache

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bus.errors import InvalidArgument
from bus.rules import surface_overlap
from bus.rules.surfaces import literal_prefix, normalise, overlaps

# The oracle: a second implementation of coverage, with the standard library's fnmatch segment by segment. Two
# surfaces overlap when they both cover some path of a small universe.


def alternatives_of(surface: str) -> list[str]:
    """Expand the innermost group that has a comma until none is left."""
    group = re.search(r"\{([^{}]*,[^{}]*)\}", surface)
    if group is None:
        return [surface]
    return [
        expanded
        for choice in group[1].split(",")
        for expanded in alternatives_of(surface[: group.start()] + choice + surface[group.end() :])
    ]


@cache
def patterns_of(surface: str) -> list[list[str]]:
    patterns = []
    for alternative in alternatives_of(surface):
        for reading in (alternative, alternative.replace("[", "[[]")):
            segments = [segment for segment in reading.split("/") if segment not in ("", ".")]
            literal = not re.search(r"[*?]", reading) and reading.count("[") == reading.count("[[]") * 2
            patterns.append([*segments, "**"] if literal else segments)
    return patterns


def matches(pattern: list[str], path: list[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(matches(pattern[1:], path[taken:]) for taken in range(len(path) + 1))
    return bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and matches(pattern[1:], path[1:])


def covers(surface: str, path: str) -> bool:
    return any(matches(pattern, path.split("/")) for pattern in patterns_of(surface))


# If two of these segments match a common name, they match one of NAMES. With at most two segments besides '**'
# in a surface, two surfaces that share any path share a path of at most four segments.
SEGMENTS = ["**", "*", "a", "b", "?", "a*", "*b", "[ab]", "[!a]"]
NAMES = ["a", "b", "ab", "[ab]", "[!a]"]
SMALL_PATHS = ["/".join(path) for depth in (1, 2, 3, 4) for path in itertools.product(NAMES, repeat=depth)]


def _has_one_or_two_names(segments: list[str]) -> bool:
    return 1 <= sum(segment != "**" for segment in segments) <= 2


PLAIN = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4).filter(_has_one_or_two_names).map("/".join)
SMALL = PLAIN | st.lists(PLAIN, min_size=2, max_size=3).map(lambda choices: "{" + ",".join(choices) + "}")


@cache
def small_paths(surface: str) -> frozenset[str]:
    return frozenset(path for path in SMALL_PATHS if covers(surface, path))


@settings(max_examples=200, deadline=None)
@given(SMALL, SMALL)
@example("a/b", "**/b/*")
@example("**/a/**/b", "**/b/**/a")
def test_overlap_agrees_with_an_exhaustive_search_of_small_paths(a: str, b: str) -> None:
    a, b = normalise(a), normalise(b)
    assert overlaps(a, b) == overlaps(b, a) == bool(small_paths(a) & small_paths(b))


LETTERS = ["".join(letters) for size in range(1, 8) for letters in itertools.product("ab", repeat=size)]
SEGMENT = st.lists(st.sampled_from(["a", "b", "?", "*"]), min_size=1, max_size=6).map("".join)


@settings(max_examples=200, deadline=None)
@given(SEGMENT, SEGMENT)
@example("a*b", "*ab*")
def test_segments_agree_with_an_exhaustive_search_of_names(a: str, b: str) -> None:
    # Names of seven letters suffice for every pair with at most seven tokens that match one letter.
    assume(sum(token != "*" for token in a + b) <= 7)
    assume("**" not in (a, b))
    names = [name for name in LETTERS if covers(a, name) and covers(b, name)]
    assert overlaps(a, b) == overlaps(b, a) == bool(names)


# Without '/', which would end the segment, and wildcards, which would be matched literally as well.
# Without '!' except in front: fnmatch reads one after a reversed range as a negation.
MEMBERS = st.text("abcyz-^.+0 é", max_size=6)


@settings(max_examples=200, deadline=None)
@given(MEMBERS, MEMBERS, st.sampled_from(["", "!"]), st.sampled_from(["", "!"]))
@example("a-c", "a-c", "", "!")
@example("]a", "]", "", "!")
@example("-a", "--0", "", "!")
@example(" -é", "", "!", "!")
def test_classes_agree_with_an_exhaustive_search_of_characters(
    members_a: str, members_b: str, negation_a: str, negation_b: str
) -> None:
    a, b = f"x[{negation_a}{members_a}]x", f"x[{negation_b}{members_b}]x"
    names = [a, b, *(f"x{chr(point)}x" for point in range(32, 256) if point != ord("/"))]
    assert overlaps(a, b) == any(covers(a, name) and covers(b, name) for name in names)


SURFACE = st.lists(
    st.lists(
        st.sampled_from(["a", "b", "ab", "*", "?", "**", "[ab]", "[!a-b]", "{a,b}", "{*,b/a}", "{a,{b,?}}"]),
        min_size=1,
        max_size=3,
    ).map("".join),
    min_size=1,
    max_size=4,
).map("/".join)
PATH = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=5).map("/".join)


@settings(deadline=None)
@given(SURFACE, SURFACE, PATH)
def test_surfaces_that_cover_the_same_path_overlap_and_its_prefix_is_theirs(a: str, b: str, path: str) -> None:
    try:
        a, b = normalise(a), normalise(b)
    except InvalidArgument:
        assume(False)
    for surface in (a, b):
        if covers(surface, path):
            assert overlaps(surface, path)
            assert (
                path == literal_prefix(surface)
                or f"{path}/".startswith(f"{literal_prefix(surface)}/")
                or not literal_prefix(surface)
            )
    if covers(a, path) and covers(b, path):
        assert overlaps(a, b)
        assert overlaps(b, a)


@settings(deadline=None)
@given(SURFACE, SURFACE)
def test_overlap_is_reflexive_and_symmetric_and_implies_related_prefixes(a: str, b: str) -> None:
    try:
        a, b = normalise(a), normalise(b)
    except InvalidArgument:
        assume(False)
    assert overlaps(a, a)
    assert overlaps(a, b) == overlaps(b, a)
    # Checked on the automata directly, since overlaps() relies on the property.
    intersects = surface_overlap.patterns_intersect(a, b)
    assert intersects == overlaps(a, b)
    if intersects:
        above, below = sorted((literal_prefix(a), literal_prefix(b)), key=len)
        assert not above or below == above or below.startswith(above + "/")


@settings(deadline=None)
@given(SURFACE)
def test_a_surface_overlaps_its_prefix_and_the_whole_repository(surface: str) -> None:
    try:
        surface = normalise(surface)
    except InvalidArgument:
        assume(False)
    assert overlaps(surface, "**")
    if literal_prefix(surface):
        assert overlaps(surface, literal_prefix(surface))
        assert overlaps(surface, literal_prefix(surface) + "/**")


CHOICES = "{a,b}" * 6


_SLOW_SECONDS = 5.0


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("*a" * 100, "*b" * 99 + "*c"),
        ("*a" * 100, "*b" * 100),
        ("?*" * 100, "*?" * 100),
        (CHOICES + "*a" * 85, CHOICES + "*b" * 84 + "c"),
        ("*a" * 85 + CHOICES, "*b" * 84 + "c" + "{b,d}" * 6),
        ("{a,b}" * 3 + "*a" * 85 + "{a,b}" * 3, "{a,b}" * 3 + "*b" * 85 + "{c,d}" * 3),
        ("{a,*a}" * 6 + "*a" * 80, "{b,*a}" * 6 + "*b" * 80 + "c"),
        ("{a,[x-z]*}{b,*b}{c,*c}" * 2 + "*a" * 77 + "b", "[!b]*" * 32 + "{c,d}" * 6),
        ("/".join(["**/*a"] * 33), "/".join(["**/*b"] * 33)),
        ("**/a/" * 39 + "*b", "**/b/" * 39 + "*a"),
        ("[a-z!0]" * 28, "[!a-y]*" * 28),
        ("{" + ",".join("*" + chr(0x100 + n) for n in range(64)) + "}", "{" + "*x,?y," * 31 + "z}*"),
        (CHOICES + "".join(chr(0x100 + n) for n in range(170)), CHOICES + "*" * 169 + "c"),
    ],
)
def test_no_pair_of_surfaces_is_slow(a: str, b: str) -> None:
    surface_overlap._build_token_graph.cache_clear()
    surface_overlap._build_position_masks.cache_clear()
    started = time.process_time()
    a, b = normalise(a), normalise(b)
    assert overlaps(a, b) == overlaps(b, a)
    # It takes milliseconds; a backtracking search would take days.
    assert time.process_time() - started < _SLOW_SECONDS


def test_too_many_alternatives_are_refused_quickly() -> None:
    started = time.process_time()
    for bomb in ("{a,b}" * 40, "{{a,b}{a,b},{a,b}{a,b}}" * 8, "{" * 100 + "}" * 100, "{,,,,}" * 33):
        with pytest.raises(InvalidArgument):
            normalise(bomb)
    assert time.process_time() - started < _SLOW_SECONDS
