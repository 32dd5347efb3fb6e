import fnmatch
import itertools
import re
import time
from functools import cache

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bus.errors import InvalidArgument
from bus.rules import surface_overlap, surfaces
from bus.rules.surfaces import literal_prefix, modes_contend, normalise, overlaps


@pytest.mark.parametrize(
    ("sent", "normal"),
    [
        ("src/a.py", "src/a.py"),
        ("./src//a.py", "src/a.py"),
        ("././src/./a.py/.", "src/a.py"),
        ("src/api/", "src/api"),
        ("src/api///", "src/api"),
        (".", "**"),
        ("./", "**"),
        ("././/", "**"),
        ("**/", "**"),
        (".github/workflows", ".github/workflows"),
        ("a..b/..c", "a..b/..c"),
        ("~backup/a~", "~backup/a~"),
        ("a:b", "a:b"),
        ("docs/my notes.md", "docs/my notes.md"),
        ("cafe\u0301", "café"),
        ("src/{a,b}/*.py/", "src/{a,b}/*.py"),
        ("{{cookiecutter.slug}}/a", "{{cookiecutter.slug}}/a"),
        ("app/[id]/page.tsx", "app/[id]/page.tsx"),
        ("a[b", "a[b"),
        ("./" * 60 + "x" * 200, "x" * 200),
    ],
)
def test_a_surface_is_normalised_to_one_spelling(sent: str, normal: str) -> None:
    assert normalise(sent) == normal
    assert normalise(normal) == normal


@pytest.mark.parametrize(
    ("sent", "fragment"),
    [
        ("", "empty"),
        (" ", "white space"),
        ("a ", "white space"),
        ("a /", "white space"),
        ("./ a", "white space"),
        ("/", "absolute"),
        ("/src", "absolute"),
        ("//src", "absolute"),
        ("C:/src", "absolute"),
        ("c:", "absolute"),
        ("~", "absolute"),
        ("~/src", "absolute"),
        ("./~/src", "absolute"),
        ("./C:/src", "absolute"),
        ("\u212a:/src", "absolute"),  # the Kelvin sign: K in NFC
        ("C:\\src", "use '/'"),
        ("src\\a.py", "use '/'"),
        ("..", "contains '..'"),
        ("../src", "contains '..'"),
        ("src/../a", "contains '..'"),
        ("src/..", "contains '..'"),
        ("{a,..}/b", "contains '..'"),
        ("{a,.}./b", "contains '..'"),
        ("{,a}/b", "absolute"),
        ("{a,/b}", "absolute"),
        ("{a,}", "empty alternative"),
        ("{a", "unbalanced brace"),
        ("a}", "unbalanced brace"),
        ("}{", "unbalanced brace"),
        ("[{]", "unbalanced brace"),
        ("{" * 9 + "a,b" + "}" * 9, "nest at most 8"),
        ("{a,b}" * 7, "at most 64"),
        ("{" + "a," * 64 + "a}", "at most 64"),
        ("{a,b}" * 40, "at most 64"),
        ("x" * 201, "at most 200"),
        ("./" * 1000, "at most 200"),
        ("a\0b", "U+0000"),
        ("a\nb", "U+000A"),
        ("a\x7f", "U+007F"),
        ("a\x85", "U+0085"),
        ("a\u202eb", "U+202E"),
        ("a\u2066b", "U+2066"),
        ("a\u061cb", "U+061C"),
        ("a\u2028b", "U+2028"),
        ("a\ud800b", "U+D800"),
    ],
)
def test_a_surface_outside_the_repository_or_malformed_is_refused(sent: str, fragment: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        normalise(sent)
    assert refused.value.message.startswith("surface ")
    assert fragment in refused.value.message
    assert refused.value.message.endswith(".")


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=30) | st.text("ab1./*{,}[]~:#L\"'@\\ ", max_size=30))
def test_any_text_is_normalised_or_refused(sent: str) -> None:
    try:
        normal = normalise(sent)
    except InvalidArgument:
        return
    assert normalise(normal) == normal
    assert 1 <= len(normal) <= 200
    assert not normal.startswith("/")
    assert not normal.endswith("/")
    assert not {"", ".", ".."} & set(normal.split("/"))
    assert overlaps(normal, normal)
    assert overlaps(normal, "**")


@pytest.mark.parametrize(
    ("surface", "folded"),
    [
        ("Src/A.PY", "src/a.py"),
        ("ÄÖ/Σ.md", "äö/σ.md"),
        ("İx/A", "İx/a"),
        ("[A-Z][!A-C]/[Id]", "[a-z][!a-c]/[id]"),
        ("[A-z]/[Z-a]/[0-A]", "?/?/?"),
        ("{A,B}/**", "{a,b}/**"),
    ],
)
def test_a_surface_has_one_spelling_where_case_is_ignored(surface: str, folded: str) -> None:
    assert surfaces.fold_case(surface) == folded
    assert surfaces.fold_case(folded) == folded
    assert normalise(folded) == folded


@settings(deadline=None)
@given(st.text("aAbBzZ_./*?{,}[]!-ÄäİßΣ", max_size=12), st.text("aAbBzZ_.-ÄäİΣ/", min_size=1, max_size=8))
def test_the_folded_surface_covers_the_folded_paths(sent: str, path: str) -> None:
    try:
        surface, path = normalise(sent), normalise(path)
    except InvalidArgument:
        return
    if overlaps(surface, path):
        assert overlaps(surfaces.fold_case(surface), surfaces.fold_case(path))


@pytest.mark.parametrize(
    ("surface", "prefix"),
    [
        ("src/api/x.py", "src/api/x.py"),
        ("src", "src"),
        ("**", ""),
        ("*", ""),
        ("*.py", ""),
        ("src/*.py", "src"),
        ("src/api/**/x.py", "src/api"),
        ("src/api?/x", "src"),
        ("src/[ab]/x", "src"),
        ("src/[!a]/x", "src"),
        ("src/{a,b}/x", "src"),
        ("src/x{a/b,c}/*", "src"),
        ("{src/a,src/b}", ""),
        ("src/{a}/x", "src/{a}/x"),
        ("src/{{a}}/*", "src/{{a}}"),
        ("src/{a{b,c}}/x", "src"),
        ("src/a[b/x", "src/a[b/x"),
        ("src/[]/x", "src/[]/x"),
        ("src/[!]/x", "src/[!]/x"),
        ("src/a]/*", "src/a]"),
    ],
)
def test_the_prefix_is_the_directories_before_the_first_wildcard(surface: str, prefix: str) -> None:
    assert normalise(surface) == surface
    assert literal_prefix(surface) == prefix


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        # paths and directories
        ("src/a.py", "src/a.py", True),
        ("src/a.py", "src/b.py", False),
        ("src", "src/api/x.py", True),
        ("src/api", "src/api2", False),
        ("src/api", "src/api.py", False),
        ("Src", "src", False),
        # a path and a glob
        ("src/api", "src/**/*.py", True),
        ("src/api/x.py", "src/**/*.py", True),
        ("src/x.py", "src/**/*.py", True),
        ("src/x.js", "src/**/*.py", True),  # x.js could be a directory
        ("lib", "src/**/*.py", False),
        ("src", "src/**", True),
        ("src/api", "src/*", True),
        ("src/api/x.py", "src/*", False),
        ("src/api/v1", "src/*/v1", True),
        ("src", "**/x.py", True),
        ("src/a/b", "src/*", False),
        ("a.py", "*.py", True),
        ("a/b", "**", True),
        # two globs
        ("*.py", "*.js", False),
        ("*.py", "test_*", True),
        ("src/**/*.py", "src/api/*.py", True),
        ("src/**/*.py", "src/api/*.js", False),
        ("src/**/test/*", "src/unit/**", True),
        ("a/**/b", "a/**/c", False),
        ("a/**/b/**", "a/**/c/**", True),
        ("**/a", "b/**", True),
        ("a/*/c", "a/b/*", True),
        ("a/*", "a/*/c", False),
        ("??", "???", False),
        ("a?c", "?b?", True),
        ("a**b", "axxb", True),
        ("a**b", "a/b", False),
        ("***", "a/b", False),
        # classes
        ("[ab].py", "b.py", True),
        ("[ab].py", "c.py", False),
        ("[a-m]*", "[n-z]*", False),
        ("[a-n]*", "[n-z]*", True),
        ("[!a-z]", "[a-z]", False),
        ("[!a]", "[!b]", True),
        ("[]a]x", "]x", True),
        ("[!]a]x", "]x", False),
        ("[a-]x", "-x", True),
        ("[z-a!]x", "!x", True),
        ("[z-a!]x", "bx", False),
        ("[*]x", "[ab]x", True),  # literally, a star between brackets
        ("[*]x", "ax", False),
        ("[?]x", "?x", True),
        ("a[+-9]b", "a/b", False),
        ("a[!x]b", "a/b", False),
        # alternatives
        ("{a,b}/x", "b/x/y", True),
        ("{a,b}/x", "c/x", False),
        ("{a,b}", "{c,d}", False),
        ("{a,b/c}/*.py", "b/c/x.py", True),
        ("src/{,sub/}x.py", "src/x.py", True),
        ("src/{,sub/}x.py", "src/sub/x.py", True),
        ("{*,src/*}*", "a/b", True),  # two adjacent stars are a whole segment of two
        ("{a,{b,c}d}/x", "cd/x", True),
        ("{a,{b,c}d}/x", "ad/x", False),
        ("{.,src}", "lib", True),
        ("e{\u0301,x}", "é", True),
        # names with brackets and braces are matched literally too
        ("app/[id]", "app/[id]/page.tsx", True),
        ("app/[id]/page.tsx", "app/[id]/page.tsx", True),
        ("app/[id]/page.tsx", "app/i/page.tsx", True),
        ("app/[id]/page.tsx", "app/[slug]/page.tsx", False),
        ("app/[id]/*", "app/[id]/page.tsx", True),
        ("app/[...slug]/x", "app/[...slug]", True),
        ("app/[user-id]/x", "app/[user-id]", True),
        ("app/[user-id]/x", "app/*/x", True),
        ("[z-a]", "[z-a]", True),
        ("[z-a]", "z", False),
        ("{{slug}}/a", "{{slug}}", True),
        ("{{slug}}/a", "slug/a", False),
        ("{x}/*", "{x}/a", True),
    ],
)
def test_surfaces_overlap_exactly_when_they_share_a_path(a: str, b: str, expected: bool) -> None:
    a, b = normalise(a), normalise(b)
    assert overlaps(a, b) is expected
    assert overlaps(b, a) is expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("shared", "shared", False),
        ("shared", "exclusive", True),
        ("exclusive", "shared", True),
        ("exclusive", "exclusive", True),
    ],
)
def test_only_shared_leases_do_not_contend(a: str, b: str, expected: bool) -> None:
    assert modes_contend(a, b) is expected


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
