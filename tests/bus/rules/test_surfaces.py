import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.errors import InvalidArgument
from bus.rules import surfaces
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
