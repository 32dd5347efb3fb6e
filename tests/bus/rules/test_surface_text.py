"""A surface is one path or glob: decoration that cannot be mistaken is removed, and other texts are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import InvalidArgument
from bus.rules.surfaces import normalise, overlaps

_PATHS = ["src/a.py", "docs/my notes.md", "app/[id]/page.tsx", "src/{a,b}.py", "src/**/*.py", "Makefile", "é.md"]


def _refusal(sent: str) -> str:
    with pytest.raises(InvalidArgument) as refused:
        normalise(sent)
    message = refused.value.message
    assert message.startswith("surface ")
    assert message.endswith(".")
    assert len(message) < 700
    return message


@pytest.mark.parametrize("path", _PATHS)
@pytest.mark.parametrize(
    "decoration",
    [
        "./{}",
        ".//{}",
        "././{}",
        "{}/.",
        "'{}'",
        '"{}"',
        "`{}`",
        "\u201c{}\u201d",
        "\u2018{}\u2019",
        "\u00ab{}\u00bb",
        "\u2039{}\u203a",
        "\u201e{}\u201c",
        '"`{}`"',
        "'./{}'",
        './"{}"',
        "{}:1",
        "{}:10-20",
        "{}:10\u201320",
        "{}:10:5",
        "{}:10:5-12:1",
        "{}:10,20",
        "{}:L10-L20",
        "{}#L10",
        "{}#L10-L20",
        "{}#L10C3-L20C4",
        '"{}:10-20"',
        "'{}':10",
        "`{}`#L1",
    ],
)
def test_decoration_that_cannot_be_mistaken_is_removed(path: str, decoration: str) -> None:
    # Not str.format(), since paths contain braces.
    assert normalise(decoration.replace("{}", path)) == path


@pytest.mark.parametrize(
    "sent",
    [
        "src/a.py,src/b.py",
        "src/a.py, src/b.py",
        "src/a.py ,src/b.py",
        "src/a.py;src/b.py",
        "src/a.py; src/b.py",
        "src/a.py|src/b.py",
        "src/a.py | src/b.py",
        "src/a.py src/b.py",
        "src/a.py  src/b.py",
        "src/a.py and src/b.py",
        "src/a.py & src/b.py",
        "src/a.py\uff0csrc/b.py",
        "src/a.py\u3001src/b.py",
        '["src/a.py","src/b.py"]',
        '["src/a.py", "src/b.py"]',
        "['src/a.py', 'src/b.py']",
        "[src/a.py, src/b.py]",
        "[src/a.py,src/b.py]",
        '"src/a.py" "src/b.py"',
        '"src/a.py", "src/b.py"',
        "'src/a.py' 'src/b.py'",
        "'src/a.py','src/b.py'",
        "`src/a.py`, `src/b.py`",
        "./src/a.py ./src/b.py",
        "src/a.py:10 src/b.py:20",
        "src/a.py:src/b.py",
        "src/a.py::src/b.py",
        "src/a.py\u30fbsrc/b.py",
        "src/a.py\u00b7src/b.py",
        "src/a.py\u2192src/b.py",
    ],
)
def test_several_paths_are_refused_with_each_of_them(sent: str) -> None:
    message = _refusal(sent)
    assert "names several paths; call once for each: " in message
    assert "src/a.py" in message
    assert "src/b.py" in message


@pytest.mark.parametrize(
    "sent",
    [
        "a.py b.py",
        "Makefile setup.py",
        ".gitignore setup.py",
        "src/api:src/web",
        "src/api:docs/x:lib/y",
        "src/a.py:Makefile:docs/b.md",
        "a.py\u2192b.py",
        "src/api docs/api",
        "src/api src/web",
        "lib/x lib/y",
        "src tests",
        "src docs tests",
        "*.py *.js",
        "src/** docs/x",
        "src/api docs/**/*.md",
        "a b/c.py ./d.py",
        "a @b",
        "a /b",
        "a.py,",
        ",a.py",
        "[a.py, b.py]",
        "[a.py b.py]",
        '["src/a.py"]',
        "a,b.py",
    ],
)
def test_a_text_that_may_name_several_paths_is_refused(sent: str) -> None:
    assert "names several paths" in _refusal(sent)


def test_a_line_break_between_paths_is_refused() -> None:
    for sent in ("src/a.py\nsrc/b.py", "src/a.py\r\nsrc/b.py", "src/a.py\tsrc/b.py"):
        assert "send one path in each call" in _refusal(sent)


@pytest.mark.parametrize("sent", ["{src/a.py, src/b.py}", "{src/a.py ,src/b.py}", "src/{a, b}.py/x", "{ a,b}"])
def test_white_space_in_alternatives_is_refused_where_it_begins_or_ends_a_path(sent: str) -> None:
    try:
        normal = normalise(sent)
    except InvalidArgument:
        return
    assert overlaps(normal, "src/ b.py")


@pytest.mark.parametrize(
    ("sent", "fragment"),
    [
        ("@src/a.py", "send 'src/a.py'; for a name that begins with '@', send '[@]src/a.py'"),
        ("@scope/pkg", "send '[@]scope/pkg'"),
        ("./@a", "begins with '@'"),
        ("file://src/a.py", "is a URL"),
        ("file:///repo/src/a.py", "is a URL"),
        ("FILE://src/a.py", "is a URL"),
        ("'file:///repo/src/a.py'", "label before the path"),
        ("https://example.org/o/r/blob/main/a.py", "is a URL"),
        ("vscode://file/src/a.py", "is a URL"),
        ("src/...", "ellipsis"),
        ("./...", "ellipsis"),
        ("...", "ellipsis"),
        (".../a.py", "ellipsis"),
        ("src/.../a.py", "ellipsis"),
        ("src/api...", "ellipsis"),
        ("...rc/api", "ellipsis"),
        ("src/\u2026", "ellipsis"),
        ("src/a\u2026.py", "ellipsis"),
        ('src/"a".py', "quote"),
        ('"src/a.py', "quote"),
        ("src/a.py'", "quote"),
        ("'src/a.py", "quote"),
        ("src/`a`.py", "quote"),
        ("\u201csrc/a.py", "quote"),
        ("src/my%20notes.md", "escape"),
        ("src%2Fa.py", "escape"),
        ("src/my\\ notes.md", "escape"),
        ("src/caf\\303\\251.py", "escape"),
        ("src/\\u00e9.py", "escape"),
        ("src/a\\*.py", "escape"),
        ("a&amp;b", "escape"),
        ("src&#x2F;a.py", "escape"),
        ("src&#47;a.py", "escape"),
        ("src\\a.py", "use '/' between segments, such as 'src/a.py'"),
        ("${workspaceFolder}/src", "variable"),
        ("$HOME/src", "variable"),
        ("$(pwd)/src", "variable"),
        ("%USERPROFILE%/src", "variable"),
        ("src/<module>.py", "'<' or '>'"),
        ("src/a.py -> src/b.py", "'<' or '>'"),
        ("HEAD:src/a.py", "label before the path"),
        ("origin:src/a.py", "label before the path"),
        ("path: src/a.py", "label before the path"),
        ("surface=src/a.py", "label before the path"),
        ("src/a.py::test_x", "send 'src/a.py'"),
        ("src/a.py:main", "send 'src/a.py'"),
        ("src/a.py#main", "send 'src/a.py'"),
        ("src/a.py(10)", "send 'src/a.py'"),
        ("src/a.py(10,5)", "send 'src/a.py'"),
        ("src/a.py line 10", "send 'src/a.py'"),
        ("src/a.py lines 10-20", "send 'src/a.py'"),
        ("src/a.py (lines 10-20)", "send 'src/a.py'"),
        ("src/a.py, line 10", "send 'src/a.py'"),
        ("src/a.py L10", "send 'src/a.py'"),
        ("src/a.py.", "send 'src/a.py'"),
        ("./src/a.py./", "send 'src/a.py'"),
        ("src/a.py!", "send 'src/a.py'"),
        ("src/a.py@main", "send 'src/a.py'"),
        ("src/a.py@10", "send 'src/a.py'"),
        ("src/a.py^", "send 'src/a.py'"),
        ("src/a.py?plain=1", "send 'src/a.py'"),
        ("src/a.py?plain=1#L10", "send 'src/a.py'"),
        ("src/a.py[10:20]", "send 'src/a.py'"),
        ("(src/a.py)", "is in brackets; send 'src/a.py'"),
        ("[src/a.py]", "is in brackets; send 'src/a.py'"),
        ("{src/a.py}", "is in brackets; send 'src/a.py'"),
        ("\u2022 src/a.py", "list mark; send 'src/a.py'"),
        ("1. src/a.py", "list mark; send 'src/a.py'"),
        ("+++ b/src/a.py", "list mark; send 'src/a.py'"),
        ("--- a/src/a.py", "list mark; send 'src/a.py'"),
        ("src\u2044a.py", "only looks like a slash (U+2044)"),
        ("src\uff0fa.py", "only looks like a slash (U+FF0F)"),
        ("null", "for a file of that name, send '[n]ull'"),
        ("./undefined", "as programs write a missing value"),
        ("None", "as programs write a missing value"),
        ("!src/a.py", "begins with '!'"),
        ("!*.py", "begins with '!'"),
        (":/src", "begins with ':'"),
        (":(glob)src/**", "begins with ':'"),
        ("- src/a.py", "list mark; send 'src/a.py'"),
        ("[a.py](src/a.py)", "Markdown link"),
        ("{src/a.py:main,src/b.py}", "send 'src/a.py'"),
        ("{@src/a.py,src/b.py}", "begins with '@'"),
    ],
)
def test_what_is_no_path_is_refused_with_the_text_to_send(sent: str, fragment: str) -> None:
    assert fragment in _refusal(sent)


@pytest.mark.parametrize(
    "character",
    [
        "\u00ad",
        "\u034f",
        "\u115f",
        "\u180e",
        "\u200b",
        "\u200c",
        "\u200d",
        "\u2060",
        "\u2063",
        "\u2800",
        "\u3164",
        "\ufe0f",
        "\ufeff",
        "\uffa0",
        "\U000e0041",
        "\U000e0100",
        "\u00a0",
        "\u2003",
        "\u202f",
        "\u3000",
    ],
)
def test_invisible_characters_are_refused_by_code_point(character: str) -> None:
    code_point = f"U+{ord(character):04X}"
    for sent in (f"src/a{character}b.py", f"src/a{character}/b.py"):
        message = _refusal(sent)
        assert code_point in message
        assert "send '?' in its place" in message
    # At either end some of them are white space.
    _refusal(f"{character}src/a.py")
    _refusal(f"src/a.py{character}")
    assert overlaps("src/a?b.py", f"src/a{character}b.py")


@pytest.mark.parametrize(
    "path",
    [
        "docs/my notes.md",
        "Assets/TextMesh Pro/Shaders/x.shader",
        "Assets/My Game/Main Scene.unity",
        "docs/salt and pepper.md",
        "docs/v1.0 notes.md",
        "docs/notes (1).md",
        "docs/don't panic.md",
        "R&D/notes.md",
        "C#/x.cs",
        "notes #1.md",
        "logo@2x.png",
        "packages/@scope/pkg/index.ts",
        "app/@modal/(.)photo/[id]/page.tsx",
        "app/(group)/[...slug]/page.tsx",
        "app/[[...slug]]/page.tsx",
        "app/routes/$id.tsx",
        "app/routes/posts.$postId.tsx",
        "src/routes/+page.svelte",
        "{{cookiecutter.slug}}/setup.py",
        "src/[ab].py",
        "src/[!a-c,;|].py",
        "src/{a,b}.py",
        "{src/a.py,docs/*.md}",
        "a..b",
        "a...b",
        "a:b",
        "a=b",
        "src/null",
        "null.py",
        "[n]ull",
        "(group)",
        "[id]",
        "docs/col\u00b7lecci\u00f3.md",
        "\u30c7\u30fc\u30bf\u30fb\u30d9\u30fc\u30b9.md",
        "app/_auth+/login.tsx",
        "100%.md",
        "~backup/a~",
        "-x/a",
        "_/a",
        "!x",
        "docs/données/résumé.md",
        "日本語/ファイル.md",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.md",
        "\U0001f469\u200d\U0001f4bb.md",
        "\u2764\ufe0f.md",
    ],
)
def test_names_that_occur_in_repositories_stay_as_they_are(path: str) -> None:
    assert normalise(path) == path


@given(
    st.lists(
        st.sampled_from(["src/a.py", "docs/b.md", "Makefile", "lib/**/*.js", "tests/c_test.go"]),
        min_size=2,
        max_size=4,
        unique=True,
    ),
    st.sampled_from([",", ", ", ";", ":", "::", " ", "  ", "|", " | ", "\n", "\t", " and ", '","', "', '", "` `"]),
    st.sampled_from(["{}", "[{}]", '"{}"', "'{}'", "`{}`", "- {}", "({})"]),
)
def test_no_list_of_paths_succeeds_and_protects_none_of_them(paths: list[str], separator: str, frame: str) -> None:
    try:
        normal = normalise(frame.replace("{}", separator.join(paths)))
    except InvalidArgument:
        return
    assert all(overlaps(normal, path) for path in paths), normal
