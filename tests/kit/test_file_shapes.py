"""Files of every shape that people have: each is edited safely, or left as it is and named."""

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit import exit_codes, jsonc
from tests.kit.git_repo import GitRepo
from tests.kit.workplace import URL, Workplace

CLIENT_FILES = {
    ".mcp.json": "claude",
    ".claude/settings.json": "claude",
    ".codex/config.toml": "codex",
    ".codex/hooks.json": "codex",
    ".gemini/settings.json": "gemini",
    ".cursor/mcp.json": "cursor",
    ".cursor/hooks.json": "cursor",
    ".vscode/mcp.json": "vscode",
    "opencode.json": "opencode",
    "CLAUDE.md": "claude",
    "AGENTS.md": "codex",
}
# Text that each file may have.
TEXTS = {
    ".mcp.json": '{\n  "mcpServers": {\n    "a": {"command": "x"}\n  }\n}\n',
    ".claude/settings.json": '{\n  "hooks": {\n    "Stop": [{"hooks": [{"command": "say"}]}]\n  }\n}\n',
    ".codex/config.toml": 'model = "o3"\n\n[mcp_servers.a]\ncommand = "x"\n',
    ".codex/hooks.json": '{\n  "hooks": {}\n}\n',
    ".gemini/settings.json": '{\n  "theme": "dark",\n  "mcpServers": {}\n}\n',
    ".cursor/mcp.json": "{}\n",
    ".cursor/hooks.json": '{\n  "version": 1,\n  "hooks": {"stop": [{"command": "x"}]}\n}\n',
    ".vscode/mcp.json": '{\n  // team\n  "servers": {"a": {"url": "u"}},\n  "inputs": [{"id": "mine"}],\n}\n',
    "opencode.json": '{\n  "model": "x" // why\n}\n',
    "CLAUDE.md": "# Rules\n\nBe kind.\n",
    "AGENTS.md": "# Rules\n",
}
FORMS: dict[str, Callable[[str], bytes]] = {
    "lf": lambda text: text.encode(),
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "mixed": lambda text: text.replace("\n", "\r\n", 1).encode(),
    "bom": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "bom crlf": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
    "no final newline": lambda text: text.rstrip("\n").encode(),
    "blank lines at the end": lambda text: text.encode() + b"\n\n",
    "tabs": lambda text: text.replace("\n  ", "\n\t").encode(),
}


def _parse(name: str, content: bytes) -> Any:
    text = content.decode("utf-8-sig")
    if name.endswith(".toml"):
        return tomllib.loads(text)
    return jsonc.read_value(text) if ".json" in name else None


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_text_is_kept_and_restored(place: Workplace, form: str) -> None:
    originals = {name: FORMS[form](text) for name, text in TEXTS.items()}
    for name, content in originals.items():
        place.write(name, content, 0o640)
    before = place.listing()
    assert place.install("all")[0] == exit_codes.OK
    installed = place.listing()
    for name, content in originals.items():
        entry = installed[name]
        assert not isinstance(entry, str)
        mode, changed = entry
        assert (mode, changed != content) == (0o640, True), name
        assert changed.startswith(b"\xef\xbb\xbf") == form.startswith("bom"), name
        if "crlf" in form:
            assert b"\n" not in changed.replace(b"\r\n", b""), name
        if form == "lf":
            assert b"\r" not in changed
        if form == "mixed":
            assert changed.count(b"\r\n") >= content.count(b"\r\n"), name
        _parse(name, changed)
    assert place.install("all")[0] == exit_codes.OK
    assert place.listing() == installed
    assert place.uninstall()[0] == exit_codes.OK
    assert place.listing() == before


def test_every_python_edits_them_alike(repo: GitRepo) -> None:
    """Also one without `tomllib`."""
    for name, text in TEXTS.items():
        path = repo.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FORMS["bom crlf"](text))
    before = repo.snapshot()
    repo.install(URL, "--client", "all")
    for name in TEXTS:
        content = (repo.root / name).read_bytes()
        assert b"\n" not in content.replace(b"\r\n", b""), name
        _parse(name, content)
    assert _parse(".codex/config.toml", (repo.root / ".codex/config.toml").read_bytes())["mcp_servers"]["llm-bus"]
    installed = repo.snapshot()
    repo.install(URL, "--client", "all")
    assert repo.snapshot() == installed
    assert repo.run_kit("uninstall").returncode == exit_codes.OK
    assert repo.snapshot() == before


@pytest.mark.parametrize("form", FORMS)
def test_without_a_record_the_marks_are_enough(place: Workplace, form: str) -> None:
    """As in a clone of a branch with the kit's entries: text keeps its bytes, JSON its values and comments."""
    originals = {name: FORMS[form](text) for name, text in TEXTS.items()}
    for name, content in originals.items():
        place.write(name, content)
    before = place.listing()
    place.install("all")
    place.forget()
    code, output = place.uninstall()
    assert code == exit_codes.OK, output
    after = place.listing()
    # Of a file in which nothing but brackets is left it is unknown who created it.
    empty = {".codex/hooks.json", ".cursor/mcp.json"}
    assert set(after) == set(before) - empty
    for name, content in originals.items():
        if name in empty:
            continue
        if "json" not in name or name in (".mcp.json", ".cursor/hooks.json", "opencode.json"):
            assert after[name] == before[name], name
        else:
            expected = {key: value for key, value in _parse(name, content).items() if value != {}}
            assert {key: value for key, value in _parse(name, place.read(name)).items() if value != {}} == expected, (
                name
            )


@pytest.mark.parametrize(
    "content", [b"", b"\n", b" \r\n", b"\xef\xbb\xbf"], ids=["empty", "newline", "blank crlf", "bom"]
)
def test_a_file_without_content_is_filled_and_emptied(place: Workplace, content: bytes) -> None:
    for name in CLIENT_FILES:
        place.write(name, content)
    before = place.listing()
    assert place.install("all")[0] == exit_codes.OK
    for name in CLIENT_FILES:
        assert place.read(name).startswith(content[:3] if content.startswith(b"\xef") else b""), name
        _parse(name, place.read(name))
    assert place.uninstall()[0] == exit_codes.OK
    assert place.listing() == before


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "utf-16 json": (".mcp.json", '{"mcpServers": {}}'.encode("utf-16"), "UTF-16"),
    "utf-16 without a mark": (".mcp.json", '{"mcpServers": {}}'.encode("utf-16-le"), "UTF-16"),
    "utf-16 toml": (".codex/config.toml", 'a = "b"\n'.encode("utf-16"), "UTF-16"),
    "utf-16 markdown": ("CLAUDE.md", "# Rules\n".encode("utf-16"), "UTF-16"),
    "latin-1 json": (".gemini/settings.json", '{"a": "Größe"}'.encode("latin-1"), "not UTF-8"),
    "latin-1 toml": (".codex/config.toml", 'a = "Größe"\n'.encode("latin-1"), "not UTF-8"),
    "duplicate key in json": (".mcp.json", b'{"mcpServers": {}, "mcpServers": {"a": {}}}', "twice"),
    "duplicate key far inside": (".mcp.json", b'{"mcpServers": {"a": {"x": 1, "x": 2}}}', "twice"),
    "duplicate key in toml": (".codex/config.toml", b"a = 1\na = 2\n", "not TOML"),
    "duplicate table": (".codex/config.toml", b"[a]\n[a]\n", "not TOML"),
    "inline table of servers": (".codex/config.toml", b'mcp_servers = { a = { command = "x" } }\n', "cannot be added"),
    "an array": (".mcp.json", b"[]", "not an object"),
    "servers are a text": (".mcp.json", b'{"mcpServers": "x"}', "not an object"),
    "hooks are a list": (".claude/settings.json", b'{"hooks": []}', "not an object"),
    "an event is no list": (".claude/settings.json", b'{"hooks": {"Stop": {}}}', "not an array"),
    "inputs are no list": (".vscode/mcp.json", b'{"servers": {}, "inputs": {}}', "not an array"),
    "too many levels": (".mcp.json", b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "too many levels"),
    "cut off": (".mcp.json", b'{"mcpServers": {', "no name"),
    "a conflict": ("opencode.json", b'{\n<<<<<<< HEAD\n  "a": 1\n=======\n  "a": 2\n>>>>>>> b\n}\n', "no name"),
    "begin mark alone": ("AGENTS.md", b"<!-- llm-bus:begin -->\ntext\n", "is missing"),
    "end mark alone": ("AGENTS.md", b"text\n<!-- llm-bus:end -->\n", "stands alone"),
    "configuration": ("llm-bus.config.json", b"{ broken", "no name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_edited_is_named_and_everything_else_is_installed(place: Workplace, case: str) -> None:
    name, content, reason = REFUSED[case]
    place.write(name, content)
    before = place.listing()
    code, output = place.install("all")
    assert code == exit_codes.PARTLY
    (line,) = [line for line in output.splitlines() if line.startswith("  ! ")]
    assert line.startswith(f"  ! {name}: ")
    assert line.endswith("left as it is")
    assert reason in line
    if case != "inputs are no list":
        assert place.read(name) == content
    for other in CLIENT_FILES:
        assert (place.top / other).is_file(), other
    assert (place.top / ".git/hooks/pre-commit").is_file()
    place.uninstall()
    assert place.listing() == before


def test_instructions_in_another_encoding_keep_their_bytes(place: Workplace) -> None:
    content = "# Größe\r\n".encode("latin-1")
    place.write("CLAUDE.md", content)
    assert place.install("claude")[0] == exit_codes.OK
    assert place.read("CLAUDE.md").startswith(content)
    assert b"\n" not in place.read("CLAUDE.md").replace(b"\r\n", b"")
    place.write("CLAUDE.md", place.read("CLAUDE.md") + b"\xe9\r\n")
    assert place.uninstall()[0] == exit_codes.OK
    assert place.read("CLAUDE.md") == content + b"\xe9\r\n"


def test_a_place_that_an_uninstallation_left_is_restored_by_the_next_one(place: Workplace) -> None:
    place.write(".mcp.json", '{ "a": 1 }')
    before = place.listing()
    place.install("claude")
    (place.top / ".mcp.json").chmod(0o444)
    code, output = place.uninstall()
    assert code == exit_codes.PARTLY
    assert "! .mcp.json: the file is read-only" in output
    assert not (place.top / "CLAUDE.md").exists()
    (place.top / ".mcp.json").chmod(0o644)
    assert place.uninstall()[0] == exit_codes.OK
    assert place.listing() == before


def test_code_of_an_earlier_version_in_a_clone_is_removed(place: Workplace) -> None:
    place.write("README.md", "text\n")
    before = place.listing()
    place.write(".llm-bus/kit/main.py", "# of version 1.0.0\n")
    place.write(".llm-bus/kit/blocks/lead.md", "text\n")
    place.write(".llm-bus/.gitignore", "# Written by the LLM Bus kit: local files of this machine.\n/state/\n")
    assert place.uninstall()[0] == exit_codes.OK
    assert place.listing() == before
    assert not (place.top / ".llm-bus").exists()


def test_a_block_that_a_merge_doubled_is_one_again(place: Workplace) -> None:
    before = place.listing()
    place.install("codex")
    place.write("AGENTS.md", place.read("AGENTS.md") * 2)
    place.install("codex")
    assert place.read("AGENTS.md").count(b"llm-bus:begin") == 1
    place.uninstall()
    assert place.listing() == before


def test_a_copy_of_a_repository_never_changes_the_one_that_it_came_from(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("CLAUDE.md", "mine\n")
    # Only the record, which the copy has too, knows that this was there.
    place.write(".mcp.json", "{ }")
    before = place.listing()
    place.install("claude")
    installed = place.listing()
    copy = Workplace(tmp_path / "copy", place.home, place.capture)
    shutil.copytree(place.top, copy.top, symlinks=True)
    monkeypatch.chdir(copy.top)
    assert copy.uninstall()[0] == exit_codes.OK
    assert place.listing() == installed
    assert copy.listing() == before


def test_what_the_user_wrote_beside_and_between_stays(place: Workplace) -> None:
    place.install("claude,gemini,vscode")
    changes: dict[str, Callable[[Any], object]] = {
        ".mcp.json": lambda document: document["mcpServers"]["llm-bus"].update(timeout=5),
        ".gemini/settings.json": lambda document: document["hooks"]["AfterAgent"][0]["hooks"].insert(
            0, {"command": "x"}
        ),
        ".vscode/mcp.json": lambda document: document["inputs"].append({"id": "mine"}),
        ".claude/settings.json": lambda document: document["hooks"]["Stop"][0]["hooks"].append(
            {"command": "./mine.sh"}
        ),
    }
    for name, change in changes.items():
        document = json.loads(place.read(name))
        change(document)
        place.write(name, json.dumps(document, indent=1))
    lines = place.read("CLAUDE.md").decode().splitlines(keepends=True)
    place.write("CLAUDE.md", "Above.\n" + "".join([*lines[:3], "Between.\n", *lines[3:]]) + "Below.\n")
    # An installation with other options changes its own entries only.
    assert place.install("claude,gemini,vscode", "--wake", "--lead")[0] == exit_codes.OK
    assert json.loads(place.read(".mcp.json"))["mcpServers"]["llm-bus"]["timeout"] == 5
    assert b"./mine.sh" in place.read(".claude/settings.json")
    assert b"Between." in place.read("CLAUDE.md")
    assert place.uninstall()[0] == exit_codes.OK
    assert not (place.top / ".mcp.json").exists()
    assert json.loads(place.read(".gemini/settings.json")) == {"hooks": {"AfterAgent": [{"hooks": [{"command": "x"}]}]}}
    assert json.loads(place.read(".vscode/mcp.json")) == {"inputs": [{"id": "mine"}]}
    assert json.loads(place.read(".claude/settings.json")) == {
        "hooks": {"Stop": [{"hooks": [{"command": "./mine.sh"}]}]}
    }
    assert place.read("CLAUDE.md").split() == [b"Above.", b"Between.", b"Below."]


OWN_SERVER = {"type": "http", "url": "https://mine/mcp", "headers": {"Authorization": "Bearer ${MINE}"}}


@pytest.mark.parametrize("has_record", [True, False])
def test_a_server_of_the_same_name_outlives_the_kit(place: Workplace, has_record: bool) -> None:
    own = {"mcpServers": {"llm-bus": OWN_SERVER}}
    place.write(".gemini/settings.json", json.dumps(own))
    place.write(".codex/config.toml", '[mcp_servers.llm-bus]\nurl = "https://mine/mcp"\nbearer_token_env_var = "M"\n')
    place.install("gemini,codex")
    document = json.loads(place.read(".gemini/settings.json"))
    assert document["mcpServers"] == own["mcpServers"]
    place.write(".gemini/settings.json", json.dumps({**document, "theme": "dark"}))
    if not has_record:
        place.forget()
    _, output = place.uninstall()
    assert json.loads(place.read(".gemini/settings.json")) == {**own, "theme": "dark"}
    assert b"https://mine/mcp" in place.read(".codex/config.toml")
    assert "a server llm-bus that the kit did not write stays" in output


def test_a_server_that_force_replaced_comes_back(place: Workplace) -> None:
    own = {"mcpServers": {"llm-bus": OWN_SERVER}}
    place.write(".mcp.json", json.dumps(own))
    place.write(".codex/config.toml", '[mcp_servers.llm-bus]\nurl = "https://mine/mcp"\n')
    place.install("claude,codex", "--force")
    assert URL.encode() in place.read(".mcp.json")
    assert URL.encode() in place.read(".codex/config.toml")
    document = json.loads(place.read(".mcp.json"))
    place.write(".mcp.json", json.dumps({**document, "more": 1}))
    place.uninstall()
    assert json.loads(place.read(".mcp.json")) == {**own, "more": 1}
    assert place.read(".codex/config.toml") == b'[mcp_servers.llm-bus]\nurl = "https://mine/mcp"\n'


def test_a_configuration_with_the_users_settings_stays_and_is_named(place: Workplace) -> None:
    place.install()
    place.forget()
    place.uninstall()
    assert not (place.top / "llm-bus.config.json").exists()
    place.install()
    document = {**json.loads(place.read("llm-bus.config.json")), "leases": {"src/**": "strict"}}
    place.write("llm-bus.config.json", json.dumps(document))
    _, output = place.uninstall()
    assert json.loads(place.read("llm-bus.config.json")) == document
    assert "llm-bus.config.json (changed since: left to you)" in output


def test_the_mode_that_the_user_gave_a_file_since_stays(place: Workplace) -> None:
    place.write("CLAUDE.md", "mine\n", 0o644)
    place.install("claude")
    (place.top / "CLAUDE.md").chmod(0o600)
    place.install("claude", "--lead")
    assert (place.top / "CLAUDE.md").stat().st_mode & 0o777 == 0o600
    place.uninstall()
    assert (place.top / "CLAUDE.md").stat().st_mode & 0o777 == 0o600
    assert place.read("CLAUDE.md") == b"mine\n"


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    markdown=st.binary(max_size=30) | TEXT.map(str.encode),
    toml=st.lists(st.sampled_from(["a = 1\n", "# c\r\n", "\n", "[b]\n", "c.d = ''\n", "e = [\n1,\n]"]), unique=True),
    document=st.dictionaries(TEXT, st.none() | st.lists(TEXT, max_size=2) | st.dictionaries(TEXT, TEXT), max_size=3),
    indent=st.sampled_from([None, 0, 1, 4, "\t"]),
)
def test_an_uninstallation_gives_back_the_same_bytes(
    place: Workplace, markdown: bytes, toml: list[str], document: dict[str, Any], indent: Any
) -> None:
    place.write("CLAUDE.md", markdown)
    place.write(".codex/config.toml", "".join(toml))
    for name in (".mcp.json", ".claude/settings.json", ".gemini/settings.json"):
        place.write(name, json.dumps(document, indent=indent))
    before = place.listing()
    place.install("claude,codex,gemini")
    place.uninstall()
    assert place.listing() == before
