"""TOML is edited by position: the result is what was meant, nothing else changes, and a removal restores the text."""

import tomllib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kit import toml_edits, toml_reader
from kit.toml_reader import NotTomlError, Scalar

PATH = ("mcp_servers", "llm-bus")
MARKS = ("# >>> llm-bus >>>", "# <<< llm-bus <<<")
VALUES = {"url": "https://bus/mcp", "bearer_token_env_var": "T"}

# Pieces that exercise the grammar when they are joined at random: most results are not TOML.
PIECES = [
    *(
        "[",
        "[[",
        "]",
        "]]",
        "a",
        "b",
        "a.b",
        '"a"',
        "'b.c'",
        "=",
        " ",
        "\t",
        "\n",
        "\r\n",
        "\r",
        "# c\n",
        ",",
        "{",
        "}",
    ),
    *("1", "1.5", "0x1f", "01", "1_000", "1__0", "+1", "-0", "inf", "nan", "true", "1e5", "1.e5", "_1", "é", "\x00"),
    *('"s\\n"', '"s\\x"', '"""m\n"q" \\\n  z"""', "'''l\n''x'''", '""""a"""""', '"\\u00e9"', '"\\ud800"'),
    *("1979-05-27T07:32:00Z", "1979-02-30", "07:32:00", "1979-05-27 07:32:00.5", "[1,2,]", "[\n1,#c\n2]", "{a.b=1}"),
    *("a = 1\n", "[a]\n", "[a.b]\n", "[[a]]\n", "[[a.b]]\n", "a.b = 1\n", "b.c.d = 2\n", "a = {b = 1}\n", "[b.c]\n"),
]


def _to_values(value: Any) -> Any:
    if isinstance(value, Scalar):
        return tomllib.loads(f"x = {value}")["x"]
    if isinstance(value, dict):
        return {key: _to_values(child) for key, child in value.items()}
    return [_to_values(item) for item in value] if isinstance(value, list) else value


def _read_alone(text: str) -> Any:
    """Read a text as Pythons do that have no tomllib."""
    reader = toml_reader._Reader(text)
    reader.read()
    return _to_values(reader.document.root)


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join))
@example("[a]\nb.c = 1\n[a.b]\n")
@example("[a.b.c]\n[a]\nb.d = 1\n")
@example("[[a]]\n[a.b]\n[[a]]\n[a.b]\n")
@example("a.b = 1\n[a.c]\n")
def test_the_reader_accepts_and_reads_what_the_standard_library_does(text: str) -> None:
    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(NotTomlError):
            _read_alone(text)
    else:
        assert repr(_read_alone(text)) == repr(expected)


DOCUMENTS = {
    "empty": "",
    "bom": "\ufeff",
    "bom and text": '\ufeffmodel = "o3"\n',
    "no final newline": 'model = "o3"',
    "no final newline in a table": '[profiles.x]\nmodel = "y"',
    "crlf": 'model = "o3"\r\n\r\n[mcp_servers.a]\r\ncommand = "x"\r\n',
    "mixed": 'model = "o3"\r\n[mcp_servers.a]\ncommand = "x"\r\n',
    "comments everywhere": "# top\nmodel = 1 # one\n\n[a] # two\n# three\nb = [ # four\n  1, # five\n]\n# end",
    "tabs": "[a]\n\tb = 1\n\t[a.c]\n\t\td = 2\n",
    "strings that look like tables": 'a = """\n[mcp_servers.llm-bus]\nurl = "no"\n# >>> llm-bus >>>\n"""\n',
    "inline tables elsewhere": 'env = { A = "1", B = { C = 2 } }\n',
    "dotted keys": 'mcp_servers.a.command = "x"\nmcp_servers.a.args = []\n',
    "arrays of tables": '[[profiles]]\nname = "a"\n[[profiles]]\nname = "b"\n',
    "quoted keys": '["mcp_servers".\'other\']\n"command" = "x"\n',
    "explicit parent": "[mcp_servers]\n\n[mcp_servers.z]\nurl = 'u'\n",
    "blank lines at the end": "a = 1\n\n\n",
    "not ascii": 'name = "Größe ✓"\n',
}


@pytest.mark.parametrize("text", DOCUMENTS.values(), ids=list(DOCUMENTS))
def test_a_table_is_added_and_its_removal_restores_each_byte(text: str) -> None:
    changed = toml_edits.set_table(text, PATH, VALUES, MARKS)
    before = tomllib.loads(text.lstrip("\ufeff"))
    after = tomllib.loads(changed.lstrip("\ufeff"))
    assert after["mcp_servers"].pop("llm-bus") == VALUES
    assert after["mcp_servers"] == before.get("mcp_servers", {})
    assert {**after, "mcp_servers": {}} == {**before, "mcp_servers": {}}
    assert changed.startswith(text)
    added = changed[len(text) :]
    assert ("\r\n" in added, "\n" in added.replace("\r\n", "")) == ((True, False) if "\r\n" in text else (False, True))
    assert toml_edits.set_table(changed, PATH, VALUES, MARKS) == changed
    assert toml_edits.remove_table(changed, PATH, MARKS) == text


@given(
    st.lists(st.sampled_from([line for text in DOCUMENTS.values() for line in text.splitlines(keepends=True)])).map(
        "".join
    )
)
def test_a_table_comes_and_goes_in_any_text(text: str) -> None:
    try:
        document = toml_reader.parse(text)
        changed = toml_edits.set_table(text, PATH, VALUES, MARKS)
    except NotTomlError:
        return
    if MARKS[0] not in text and document.find(PATH) is None:
        assert toml_edits.remove_table(changed, PATH, MARKS) == text


# A line of the user between, behind or beside the kit's lines.
WRITTEN_SINCE = {
    "before": lambda text: "top = 1\n" + text,
    "behind": lambda text: text + "\n[profiles.x]\nmodel = 'y'\n",
    "between the marks": lambda text: text.replace(MARKS[1], f"[profiles.x]\nmodel = 'y'\n{MARKS[1]}"),
    "a comment in the table": lambda text: text.replace("url =", "# why\nurl ="),
    "marks removed": lambda text: text.replace(MARKS[0] + "\n", "").replace(MARKS[1] + "\n", ""),
    "end mark removed": lambda text: text.replace(MARKS[1] + "\n", ""),
}


@pytest.mark.parametrize("change", WRITTEN_SINCE.values(), ids=list(WRITTEN_SINCE))
def test_what_was_written_since_stays(change: Any) -> None:
    text = '[mcp_servers.a]\ncommand = "x"\n'
    changed = change(toml_edits.set_table(text, PATH, VALUES, MARKS))
    expected = tomllib.loads(changed)
    del expected["mcp_servers"]["llm-bus"]
    restored = toml_edits.remove_table(changed, PATH, MARKS)
    assert tomllib.loads(restored) == expected
    assert ("# why" in restored) == ("# why" in changed)
    assert not any(mark in restored for mark in MARKS)


def test_sub_tables_and_keys_of_the_server_go_with_it() -> None:
    changed = toml_edits.set_table('model = "o3"\n', PATH, VALUES, MARKS)
    changed += "startup_timeout_sec = 20\n\n[mcp_servers.llm-bus.tools.claim]\napproval_mode = 'approve'\n"
    changed += "\n[mcp_servers.llm-bus.env]\nA = '1'\n\n[mcp_servers.other]\ncommand = 'x'\n"
    expected = "model = \"o3\"\n\n[mcp_servers.other]\ncommand = 'x'\n"
    assert toml_edits.remove_table(changed, PATH, MARKS) == expected


def test_an_update_keeps_the_other_keys_the_comments_and_the_place() -> None:
    text = '[mcp_servers.llm-bus] # ours\nurl = "old" # where\nenabled = false\n[x]\n'
    changed = toml_edits.set_table(text, PATH, VALUES, MARKS)
    assert changed == (
        '[mcp_servers.llm-bus] # ours\nbearer_token_env_var = "T"\nurl = "https://bus/mcp" # where\n'
        "enabled = false\n[x]\n"
    )
    # Approvals that an earlier removal left behind belong to the server again.
    orphan = "[mcp_servers.llm-bus.tools.claim]\na = 1\n"
    completed = tomllib.loads(toml_edits.set_table(orphan, PATH, VALUES, MARKS))
    assert completed["mcp_servers"]["llm-bus"] == {**VALUES, "tools": {"claim": {"a": 1}}}


@pytest.mark.parametrize(
    "text",
    [
        'mcp_servers = { a = { command = "x" } }\n',
        '[mcp_servers]\nllm-bus = { url = "mine" }\n',
        "mcp_servers = 1\n",
        "[[mcp_servers]]\na = 1\n",
        "a = 1\na = 2\n",
        "[a]\n[a]\n",
        "a = 1\r",
        "a = {\n b = 1\n}\n",
        "not toml\n",
        "a = " + "[" * 200 + "]" * 200 + "\n",
    ],
)
def test_what_cannot_be_edited_is_refused(text: str) -> None:
    with pytest.raises(NotTomlError):
        toml_edits.set_table(text, PATH, VALUES, MARKS)
