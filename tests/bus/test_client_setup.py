"""Client set-up: shells and JSON parsers read any name, token and address unchanged."""

import json
import shlex
import string
import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from bus import client_setup
from bus.client_setup import Endpoints
from bus.errors import InvalidArgument
from bus.rules import validation
from bus.rules.token_format import generate_invite_code, generate_token

_FILES = {"cursor", "opencode", "windsurf", "vscode"}
# More than a token or address may contain: all printable characters, with quotes and line breaks.
_NASTY = st.text(alphabet=string.printable.replace("\0", "") + "é§ß✓", min_size=1, max_size=60)


def _is_name(drawn: str) -> bool:
    try:
        validation.name(drawn, "name")
    except InvalidArgument:
        return False
    return True


_NAMES = st.text(alphabet="'\"`$\\;&|<>(){}[]!*?~# \n\tabcé✓\u202e", min_size=1, max_size=64).filter(_is_name)


def _words(script: str) -> list[list[str]]:
    """Return the arguments of each command that a real sh would run; the programs are replaced by functions."""
    programs = ("claude", "codex", "gemini", "code", "curl")
    stubs = "".join(f"{name}() {{ printf '%s\\0' {name} \"$@\"; printf '\\036\\0'; }}\n" for name in programs)
    completed = subprocess.run(["sh", "-c", f"{stubs}{script}"], capture_output=True, check=True)
    assert completed.stderr == b""
    commands: list[list[str]] = [[]]
    for word in completed.stdout.decode().split("\0")[:-1]:
        commands.append([]) if word == "\x1e" else commands[-1].append(word)
    return commands[:-1]


@settings(max_examples=60, deadline=None)
@given(_NASTY, _NASTY)
def test_every_shell_command_passes_token_and_address_unchanged(address: str, token: str) -> None:
    for client in client_setup.build_client_setups(Endpoints("https://bus.example.org", address), token):
        if client.key in _FILES:
            continue
        (command,) = _words(client.snippet)
        assert address in command
        assert client.key == "codex" or command[-1] == "Authorization: Bearer ${LLM_BUS_TOKEN}"
        # The token is exported for the next command.
        export = client.snippet.partition(" && ")[0] if "&&" not in token else ""
        assert not export or shlex.split(export)[1] == f"LLM_BUS_TOKEN={token}"


@given(_NASTY, _NASTY)
def test_every_config_file_snippet_is_json_on_one_line(address: str, token: str) -> None:
    for client in client_setup.build_client_setups(Endpoints("https://bus.example.org", address), token):
        if client.key in _FILES:
            assert client.config_file is not None
            assert "\n" not in client.snippet
            parsed = json.dumps(json.loads(client.snippet), ensure_ascii=False)
            assert json.dumps(address, ensure_ascii=False) in parsed
            if client.key == "vscode":
                # VS Code asks for the token and stores it.
                assert "Bearer ${input:llm-bus-token}" in parsed
            else:
                assert json.dumps(f"Bearer {token}", ensure_ascii=False) in parsed


@settings(max_examples=60, deadline=None)
@given(_NAMES, st.none() | _NAMES)
def test_no_name_escapes_from_the_prompt_or_its_shell_command(project: str, name: str | None) -> None:
    code = generate_invite_code()
    prompt = client_setup.invite_prompt(Endpoints("https://bus.example.org", "https://x/mcp"), code, project, name)
    before, line, after = prompt.split("\n\n")
    assert "\n" not in before + after
    (command,) = _words(line)
    assert command[:3] == ["curl", "--fail-with-body", "-sS"]
    assert command[command.index("-d") - 3 : command.index("-d")][0] == "https://bus.example.org/join"
    body = json.loads(command[-1])
    assert body == ({"code": code} if name is not None else {"code": code, "name": "CHOOSE-A-NAME"})
    assert json.dumps(project) in before


@settings(max_examples=40, deadline=None)
@given(_NAMES, _NAMES)
def test_the_prompt_of_a_token_names_the_agent_and_connects_it(project: str, label: str) -> None:
    token = generate_token()
    prompt = client_setup.connect_prompt(Endpoints("https://b", "https://b/mcp"), token, project, f"ada/{label}")
    paragraphs = prompt.split("\n\n")
    assert len(paragraphs) == 4
    assert json.dumps(f"ada/{label}") in paragraphs[0]
    assert json.dumps(project) in paragraphs[0]
    (command,) = _words(paragraphs[2])
    assert command[-1] == "Authorization: Bearer ${LLM_BUS_TOKEN}"


@given(_NASTY)
@settings(max_examples=10, deadline=None)
def test_a_client_that_signs_in_gets_the_address_unchanged(address: str) -> None:
    for setup in client_setup.build_sign_in_setups(Endpoints("https://bus", address)):
        if setup.config_file is None:
            assert address in _words(setup.snippet)[0], setup.key
        else:
            assert "\n" not in setup.snippet
            ((server,),) = [entry.values() for entry in json.loads(setup.snippet).values()]
            assert (server["url"], "headers" in server) == (address, False), setup.key


def test_no_program_gets_the_token_as_an_argument() -> None:
    """All users of a machine can list the arguments of its processes."""
    token = generate_token()
    addresses = Endpoints("https://b", "https://b/mcp")
    commands = [setup.snippet for setup in client_setup.build_client_setups(addresses, token) if not setup.config_file]
    assert len(commands) == 3
    commands.append(client_setup.connect_prompt(addresses, token, "demo", "ada/builder").split("\n\n")[2])
    assert token not in client_setup.kit_install_command(addresses)
    for command in commands:
        assert all(token not in word for words in _words(command) for word in words), command


def test_seven_clients_are_supported_and_agents_get_three_of_them() -> None:
    addresses = Endpoints("https://b", "https://b/mcp")
    names = [client.name for client in client_setup.build_client_setups(addresses, generate_token())]
    assert names == ["Claude Code", "Codex", "Cursor", "Gemini CLI", "VS Code", "OpenCode", "Windsurf"]
    assert set(client_setup.build_setup(addresses, generate_token())["clients"]) == {"claude_code", "codex", "gemini"}


def test_only_the_downloaded_file_contains_the_token() -> None:
    token = generate_token()
    addresses = Endpoints("https://b", "https://b/mcp")
    assert token in json.dumps(client_setup.mcp_json_with_token(addresses, token))
    assert token not in json.dumps(client_setup.mcp_json(addresses))
