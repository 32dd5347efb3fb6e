"""The kit's parsers without a repository: patterns, JSON edits, numbers in file names, versions."""

import ast
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import agent_guide
from bus.errors import InvalidArgument
from bus.rules import surfaces, token_format
from cli.kit_files import BLOCK_VARIANTS
from kit import bundle, globs, instructions, jsonc, precommit
from kit import token_format as kit_token_format
from kit.config import Config
from kit.numbering import NumberingRule

SEGMENT = st.text("ab.[]{},!*?-", min_size=1, max_size=5)
PATTERN = st.lists(st.one_of(SEGMENT, st.just("**")), min_size=1, max_size=4).map("/".join)
NAME = st.lists(st.text("ab.-", min_size=1, max_size=4), min_size=1, max_size=4).map("/".join)


@given(PATTERN, NAME)
def test_a_pattern_covers_the_same_paths_as_a_lease_on_it(pattern: str, name: str) -> None:
    try:
        pattern, name = surfaces.normalise(pattern), surfaces.normalise(name)
    except InvalidArgument:
        return
    # A path as a surface also covers the paths below it, which makes no difference with equal numbers of segments.
    is_comparable = "**" not in [*pattern.split("/"), name] and "{" not in pattern
    if is_comparable and pattern.count("/") == name.count("/") and surfaces.overlaps(pattern, name):
        assert globs.covers(pattern, name), (pattern, name)
    if name != "**" and globs.covers(pattern, name):
        assert surfaces.overlaps(pattern, name), (pattern, name)


@pytest.mark.parametrize(
    ("pattern", "covered", "not_covered"),
    [
        ("docs/adr/*.md", ["docs/adr/1.md"], ["docs/adr/a/1.md", "x/docs/adr/1.md", "docs/adr/1.mdx"]),
        ("**/migrations/*.sql", ["migrations/1.sql", "a/b/migrations/1.sql"], ["migrations/a/1.sql"]),
        ("src", ["src", "src/a/b"], ["src2", "a/src"]),
        ("src/**", ["src/a", "src/a/b"], ["src"]),
        ("a/**/b", ["a/b", "a/x/y/b"], ["a/b/c"]),
        ("**", ["a", "a/b"], []),
        ("{a,b/*}.py", ["a.py", "b/x.py"], ["b.py"]),
        ("app/[id]/p.ts", ["app/[id]/p.ts", "app/i/p.ts"], ["app/x/p.ts"]),
        ("a?c", ["abc"], ["a/c", "ac"]),
    ],
)
def test_patterns_cover_the_documented_paths(pattern: str, covered: list[str], not_covered: list[str]) -> None:
    assert [path for path in covered if not globs.covers(pattern, path)] == []
    assert [path for path in not_covered if globs.covers(pattern, path)] == []


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.text(max_size=4), VALUE, max_size=4)


@given(OBJECT, st.sampled_from([None, 0, 1, 2, 4, "\t"]), st.text(max_size=4), st.text(max_size=4), VALUE)
def test_setting_a_value_keeps_the_rest_and_removing_it_restores_the_document(
    document: dict[str, Any], indent: Any, outer: str, inner: str, value: Any
) -> None:
    text = json.dumps(document, indent=indent)
    if not isinstance(document.get(outer, {}), dict) or inner in document.get(outer, {}):
        return
    changed = jsonc.set_value(text, (outer, inner), value)
    expected = {**document, outer: {**document.get(outer, {}), inner: value}}
    assert json.loads(changed) == expected
    assert jsonc.set_value(changed, (outer, inner), value) == changed
    restored = json.loads(jsonc.remove_value(changed, (outer, inner)))
    # An object that was empty before may be removed with the value.
    assert restored in (document, {name: child for name, child in document.items() if child != {} or name != outer})


@given(OBJECT, st.lists(VALUE, max_size=3), st.sampled_from([None, 2]), VALUE)
def test_items_are_appended_and_removed_again(
    document: dict[str, Any], items: list[Any], indent: Any, value: Any
) -> None:
    document = {**document, "list": items}
    text = jsonc.append_item(json.dumps(document, indent=indent), ("list",), value)
    assert json.loads(text)["list"] == [*items, value]
    restored = json.loads(jsonc.remove_value(text, ("list",), len(items)))
    assert restored == (document if items else {name: child for name, child in document.items() if name != "list"})


@given(
    OBJECT.filter(bool),
    st.sampled_from([None, 1, 4, "\t"]),
    st.sampled_from(["", ",", " // why", ", // why", " /* } */", " /* a\nb */,"]),
    st.sampled_from(["", "\n", " // end\n", "\n/* end */"]),
    st.booleans(),
    VALUE,
)
def test_a_removal_gives_back_the_same_text(
    document: dict[str, Any], indent: Any, behind: str, end: str, with_crlf: bool, value: Any
) -> None:
    text = json.dumps(document, indent=indent)
    text = text[:-1].rstrip() + behind + "\n}" + end
    text = text.replace("\n", "\r\n") if with_crlf else text
    key = max(document, key=len) + "x"
    changed = jsonc.set_value(text, (key, "inner"), value)
    assert jsonc.read_value(changed) == {**document, key: {"inner": value}}
    assert ("\n" in changed.replace("\r\n", "")) is not with_crlf
    assert jsonc.remove_value(changed, (key, "inner")) == text
    changed = jsonc.append_item(text, (key,), value)
    assert jsonc.remove_value(changed, (key,), 0) == text


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ('{ // c\n "m": 1, "b": 2}', '{ // c\n "b": 2}'),
        ('{\n  "m": 1, // mine\n  "b": 2\n}', '{ // mine\n  "b": 2\n}'),
        ('{\n  // x\n  "m": 1,\n  // y\n  "b": 2\n}', '{\n  // x\n  // y\n  "b": 2\n}'),
        ('{"a":1, /* q */ "m": 1 /* r */, /* s */ "b": 2}', '{"a":1, /* q */ /* r */ /* s */ "b": 2}'),
        ('{"a":1, // q\n "m": 1 /* } */ }', '{"a":1 // q\n /* } */ }'),
        ('{\n  "a": 1, // q\n  "m": 1 // r\n}\n', '{\n  "a": 1 // q\n  // r\n}\n'),
    ],
)
def test_comments_around_a_removed_member_stay(text: str, rest: str) -> None:
    assert jsonc.remove_value(text, ("m",)) == rest
    assert jsonc.read_value(rest) == {key: value for key, value in jsonc.read_value(text).items() if key != "m"}


def test_a_key_that_is_there_twice_is_read_as_clients_do_and_never_edited() -> None:
    text = '{"a": {"b": 1, "b": 2}}'
    assert jsonc.read_value(text, ("a", "b")) == 2
    edits: tuple[Callable[[], object], ...] = (
        lambda: jsonc.set_value(text, ("c",), 1),
        lambda: jsonc.append_item(text, ("c",), 1),
        lambda: jsonc.remove_value(text, ("a",)),
    )
    for edit in edits:
        with pytest.raises(jsonc.NotJsonError, match="twice"):
            edit()


def test_comments_and_trailing_commas_are_accepted_and_kept() -> None:
    text = '// top\n{\n  "a": 1, // one\n  /* two */\n  "b": [1, 2,],\n}\n'
    assert jsonc.read_value(text) == {"a": 1, "b": [1, 2]}
    changed = jsonc.append_item(jsonc.set_value(text, ("c", "d"), {"e": True}), ("b",), 3)
    assert jsonc.read_value(changed) == {"a": 1, "b": [1, 2, 3], "c": {"d": {"e": True}}}
    for comment in ("// top", "// one", "/* two */"):
        assert comment in changed
    for broken in ("{", "[1", '{"a" 1}', '{"a": 1 "b": 2}', "{} {}", "nope", '{"a": }'):
        with pytest.raises(jsonc.NotJsonError):
            jsonc.parse(broken)
    with pytest.raises(jsonc.NotJsonError):
        jsonc.set_value('{"a": 1}', ("a", "b"), 2)


@pytest.mark.parametrize(
    ("glob", "path", "number", "formatted", "renamed"),
    [
        ("docs/adr/*.md", "docs/adr/0007-cache.md", 7, "8", "docs/adr/0008-cache.md"),
        ("docs/adr/*.md", "docs/adr/7-cache.md", 7, "10", "docs/adr/10-cache.md"),
        ("docs/adr/*.md", "docs/adr/ADR-0099.md", 99, "ADR-0100", "docs/adr/ADR-0100.md"),
        ("docs/adr/*.md", "docs/adr/R7-x2.md", 7, "R103", "docs/adr/R103-x2.md"),
        ("docs/adr/*/README.md", "docs/adr/0042-queue/README.md", 42, "43", "docs/adr/0043-queue/README.md"),
        ("**/m/*.sql", "v2/m/0009_x.sql", 9, "0010", "v2/m/0010_x.sql"),
        ("docs/adr/*.md", "docs/adr/999.md", 999, "1000", "docs/adr/1000.md"),
        ("docs/adr/*.md", "docs/adr/README.md", None, "", ""),
        ("docs/adr/*.md", "docs/adr/000-template.md", None, "", ""),
        ("docs/adr/*.md", "docs/adr/99999999999999999999.md", None, "", ""),
        ("docs/adr/*.md", "docs/adr/٣-arabic.md", None, "", ""),
        ("docs/adr/*.md", "src/0001.py", None, "", ""),
    ],
)
def test_numbers_are_found_in_file_names_and_replaced_in_the_same_width(
    glob: str, path: str, number: int | None, formatted: str, renamed: str
) -> None:
    governed = Config("http://x/mcp", None, None, "T", (NumberingRule(glob, "adr"),)).find_governed(path)
    assert (governed.number if governed else None) == number
    if governed is not None:
        assert governed.path_with_number(formatted) == renamed


def test_the_blocks_equal_the_agent_guide_and_are_short() -> None:
    """`make docs` regenerates them."""
    files = bundle.read_files()
    for variant in BLOCK_VARIANTS:
        short = files[f"kit/blocks/{variant}-short.md"]
        assert short == agent_guide.repository_instructions(variant, has_rules=False)
        assert not any(rule.to_list_item() in short for rule in agent_guide.RULES)
        text = files[f"kit/blocks/{variant}.md"]
        assert text == agent_guide.repository_instructions(variant)
        assert len(text.splitlines()) < 60
        for rule in agent_guide.RULES:
            assert rule.to_list_item() in text
    for rule in agent_guide.RULES:
        assert rule.to_list_item() in agent_guide.INSTRUCTIONS
        assert rule.to_list_item() in agent_guide.GUIDE
    assert len(agent_guide.INSTRUCTIONS.encode()) < 2048


def test_a_block_is_inserted_once_and_removed_completely() -> None:
    for text in ("", "a", "a\n", "a\r\nb\r\n", "\n"):
        once = instructions.insert_block(text, "block\n")
        assert instructions.insert_block(once, "block\n") == once
        replaced = instructions.insert_block(once, "other\n")
        assert ("other" in replaced, "block" in replaced) == (True, False)
        removed = instructions.remove_block(once.encode())
        assert removed is not None
        assert removed.decode().rstrip() == text.rstrip()


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("fence", ["```", "~~~~", "```html"])
def test_marks_that_are_quoted_as_code_are_text_of_the_user(fence: str, newline: str) -> None:
    quoted = f"{instructions.BLOCK_BEGIN}\nan example\n{instructions.BLOCK_END}"
    closing = fence.removesuffix("html")
    text = f"# How the kit works\n\n{fence}\n{quoted}\n{closing}\n".replace("\n", newline)
    once = instructions.insert_block(text, "block\n")
    assert once.startswith(text)
    assert "block" in once[len(text) :]
    assert instructions.remove_block(once.encode()).decode() == text
    # Code that is not closed does not hide the block behind it.
    open_text = f"{fence}{newline}code{newline}"
    once = instructions.insert_block(open_text, "block\n")
    assert instructions.insert_block(once, "block\n") == once


def test_versions_are_compared_as_numbers() -> None:
    assert precommit.is_older("1.9.0", "1.10.0")
    assert not precommit.is_older("1.10.0", "1.9.0")
    assert not precommit.is_older("1.0.0", "1.0.0")
    assert not precommit.is_older("1.0.0", "nonsense")


def test_the_doctor_accepts_the_same_tokens_as_the_bus() -> None:
    token = token_format.generate_token()
    assert kit_token_format.is_well_formed(token)
    for malformed in (token[:-1], token + "x", token[:-1] + ("a" if token[-1] != "a" else "b"), "", "lbus_"):
        assert not kit_token_format.is_well_formed(malformed)


def test_the_kit_imports_only_the_standard_library_and_parses_under_its_oldest_python() -> None:
    for path in Path(bundle.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"), feature_version=(3, 9))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.partition(".")[0] in {*sys.stdlib_module_names, "kit"}, (path, name)
