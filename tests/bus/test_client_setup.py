"""Cards and prompts: whatever a name, a token or an address holds, a shell and a JSON parser read what was meant."""

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

_FILES = {"cursor", "opencode", "windsurf"}
# Worse than any token or address is: all that can be printed, quotes and line ends included.
_NASTY = st.text(alphabet=string.printable.replace("\0", "") + "é§ß✓", min_size=1, max_size=60)


def _is_name(drawn: str) -> bool:
    try:
        validation.name(drawn, "name")
    except InvalidArgument:
        return False
    return True


_NAMES = st.text(alphabet="'\"`$\\;&|<>(){}[]!*?~# \n\tabcé✓\u202e", min_size=1, max_size=64).filter(_is_name)


def _words(script: str) -> list[list[str]]:
    """What a real sh makes of a script: the arguments of each command that it would run, none of which it has."""
    programs = ("claude", "codex", "gemini", "code", "curl")
    shown = "".join(f"{name}() {{ printf '%s\\0' {name} \"$@\"; printf '\\n\\0'; }}\n" for name in programs)
    done = subprocess.run(["sh", "-c", f"{shown}{script}"], capture_output=True, check=True)
    assert done.stderr == b""
    commands: list[list[str]] = [[]]
    for word in done.stdout.decode().split("\0")[:-1]:
        commands.append([]) if word == "\n" else commands[-1].append(word)
    return commands[:-1]


@settings(max_examples=60, deadline=None)
@given(_NASTY, _NASTY)
def test_every_shell_line_hands_over_exactly_the_token_and_the_address(address: str, token: str) -> None:
    for client in client_setup.build_client_setups(Endpoints("https://bus.example.org", address), token):
        if client.key in _FILES:
            continue
        (command,) = _words(client.snippet)
        if client.key == "vscode":
            config = json.loads(command[2])
            assert (config["url"], config["headers"]) == (address, {"Authorization": f"Bearer {token}"})
        else:
            assert address in command
            assert client.key == "codex" or f"Authorization: Bearer {token}" in command
            # The token goes through the environment, where the next command finds it.
            if client.key == "codex":
                export = client.snippet.partition(" && ")[0] if "&&" not in token else ""
                assert not export or shlex.split(export)[1] == f"LLM_BUS_TOKEN={token}"


@given(_NASTY, _NASTY)
def test_every_file_is_json_in_one_line(address: str, token: str) -> None:
    for client in client_setup.build_client_setups(Endpoints("https://bus.example.org", address), token):
        if client.key in _FILES:
            assert client.config_file is not None
            assert "\n" not in client.snippet
            found = json.dumps(json.loads(client.snippet), ensure_ascii=False)
            assert json.dumps(address, ensure_ascii=False) in found
            assert json.dumps(f"Bearer {token}", ensure_ascii=False) in found


@settings(max_examples=60, deadline=None)
@given(_NAMES, st.none() | _NAMES, st.booleans())
def test_no_name_breaks_out_of_the_prompt_or_its_shell_line(project: str, name: str | None, told: bool) -> None:
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
    assert command[-1] == f"Authorization: Bearer {token}"


def test_all_seven_clients_are_there_and_agents_are_told_of_three() -> None:
    addresses = Endpoints("https://b", "https://b/mcp")
    names = [client.name for client in client_setup.build_client_setups(addresses, generate_token())]
    assert names == ["Claude Code", "Codex", "Cursor", "Gemini CLI", "VS Code", "OpenCode", "Windsurf"]
    assert set(client_setup.build_setup(addresses, generate_token())["clients"]) == {"claude_code", "codex", "gemini"}


def test_the_file_to_download_holds_the_token_and_the_one_to_commit_does_not() -> None:
    token = generate_token()
    addresses = Endpoints("https://b", "https://b/mcp")
    assert token in json.dumps(client_setup.mcp_json_with_token(addresses, token))
    assert token not in json.dumps(client_setup.mcp_json(addresses))
