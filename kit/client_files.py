"""The kit's entries in the files of the clients: servers, hooks and prompts, each written and removed alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import jsonc, text_files, toml_edits
from kit.file_edits import FileEdits, Remover
from kit.repo import Repo
from kit.toml_reader import parse

SERVER_NAME = "llm-bus"
TOML_TABLE = ("mcp_servers", SERVER_NAME)
_TOML_KEYS = {"url", "bearer_token_env_var", "http_headers_helper"}
TOML_MARKS = ("# >>> llm-bus >>>", "# <<< llm-bus <<<")
_SERVER_PATHS: tuple[jsonc.KeyPath, ...] = (
    ("mcpServers", SERVER_NAME),
    ("servers", SERVER_NAME),
    ("mcp", "servers", SERVER_NAME),
    ("mcp", SERVER_NAME),
)
_URL_KEYS = ("url", "httpUrl", "serverUrl")
# The token of the kit's servers is a reference to a variable or a prompt, in the syntax of each client.
_TOKEN_REFERENCE = re.compile(r"Bearer \$?\{[^{}]*\}")
# Also the commands of earlier versions, with other code in the same place.
_OUR_COMMAND = re.compile(
    r'(?:python3?|py) (?:(?:-I )?-c "import os,[^"]*llm-bus[^"]*runpy[^"]*"|-ISc "import os;[^"]*llm-bus/kit[^"]*")'
    r" [a-z -]+"
)
_OUR_OLD_COMMAND = re.compile(r'(?:python3?|py) -c "import os,[^"]*runpy[^"]*\.llm-bus[^"]*" [a-z -]+')
# What the kit writes into a new file besides its entries.
_SKELETONS: tuple[dict[str, Any], ...] = ({"version": 1}, {"$schema": "https://opencode.ai/config.json"})
# What a participant seldom needs. Clients that send every tool with each request leave these out, and offer the others.
RARE_TOOLS = (
    "whoami",
    "query_events",
    "seed_sequence",
    "latest_claims",
    "list_sequences",
    "task_assign",
    "task_start",
    "task_resolve",
    "who_is_active",
    "admin_provision",
    "admin_rotate",
    "admin_revoke",
    "create_invite",
)
# A user may switch the server off, and an update leaves it so.
_SWITCHES = ("enabled", "disabled")
# A user may remove the list, to have all tools, and an update does not write it again.
_WRITTEN_ONCE = ("excludeTools",)


@dataclass(frozen=True)
class InstallOptions:
    """The options of an installation that configure the clients.

    Attributes:
        token_variable: the environment variable from which the clients read the token.
        has_saved_token: whether a token is, or will be, saved inside .git.
        signs_in: whether the clients get the address alone and sign in by OAuth.
        wake_in_background: whether Claude Code waits for posts in the background.
        all_tools: whether clients that send every tool with each request get all of them.
        force: whether to replace a server entry of the same name that the kit did not write.
        remover: removes the kit's part from a client's file.
        files: the files of the kit by path, with its plugins.
    """

    repo: Repo
    home_dir: Path
    endpoint: str
    token_variable: str
    has_saved_token: bool
    signs_in: bool
    wake_in_background: bool
    all_tools: bool
    force: bool
    remover: Remover
    files: Mapping[str, str]


def make_remover(endpoints: frozenset[str]) -> Remover:
    """Return the function that removes the kit's part from a client's file.

    Args:
        endpoints: the addresses that the kit wrote here. Without a record of the installation, a server of another
            address is the user's; empty if they are unknown.
    """

    def remove(content: bytes, original: bytes | None) -> bytes | None:
        text = text_files.decode(content)
        if text_files.is_blank(text):
            return content
        if not text.lstrip("\ufeff \t\r\n").startswith(("{", "/")):
            return _remove_from_toml(text, original, endpoints).encode("utf-8")
        return _remove_from_json(text, original, endpoints)

    return remove


def read_json(edits: FileEdits, path: Path, keys: jsonc.KeyPath) -> Any:
    """Read a value of a file; None if there is none, or if the file cannot be read."""
    try:
        content = edits.read(path)
        return None if content is None else jsonc.read_value(text_files.decode(content), keys)
    except (OSError, ValueError):
        return None


def has_server(edits: FileEdits, path: Path) -> bool:
    """Whether a client's file has a server of the kit's name."""
    try:
        content = edits.read(path)
        text = "" if content is None else text_files.decode(content)
        if path.suffix == ".toml":
            return parse(text).find(TOML_TABLE) is not None
        is_blank = text_files.is_blank(text)
        return not is_blank and any(jsonc.read_value(text, keys) is not None for keys in _SERVER_PATHS)
    except (OSError, ValueError):
        return False


def write_server(
    options: InstallOptions,
    edits: FileEdits,
    path: Path,
    keys: jsonc.KeyPath,
    server: dict[str, Any],
    url_key: str,
    new_file: str = "",
) -> bool:
    """Write the server entry, unless the user wrote one of the same name. Returns whether the kit's entry is there.

    Args:
        new_file: the text of the file if there is none.
    """
    with edits.place(path):
        text = _read_text(edits, path) or new_file
        entry = None if text_files.is_blank(text) else jsonc.read_value(text, keys)
        if entry is None:
            text = jsonc.set_value(text, keys, server)
        elif _is_users_own(edits, path, keys, entry, server):
            if not options.force:
                url = entry.get(url_key) if isinstance(entry, dict) else None
                edits.messages.append(f"= {path.name} already has a server {SERVER_NAME} ({url}); --force replaces it")
                return False
            text = jsonc.set_value(text, keys, server)
        else:
            # Key by key, so that what the user added stays.
            for key, value in server.items():
                if key not in _WRITTEN_ONCE and (key not in _SWITCHES or key not in entry):
                    for inner in value if isinstance(value, dict) and isinstance(entry.get(key), dict) else ():
                        text = jsonc.set_value(text, (*keys, key, inner), value[inner])
                    if not isinstance(value, dict) or not isinstance(entry.get(key), dict):
                        text = jsonc.set_value(text, (*keys, key), value)
            text = _remove_token_reference(text, keys, entry) if options.signs_in else text
            if options.all_tools and entry.get("excludeTools") == list(RARE_TOOLS):
                text = jsonc.remove_value(text, (*keys, "excludeTools"))
        _write_text(options, edits, path, text)
        return True
    return False


def _remove_token_reference(text: str, keys: jsonc.KeyPath, entry: dict[str, Any]) -> str:
    """Remove what an earlier installation wrote for a token, which would keep the client from signing in."""
    if _has_token_reference(entry):
        text = jsonc.remove_value(text, (*keys, "headers", "Authorization"))
    if entry.get("oauth") is False:
        text = jsonc.remove_value(text, (*keys, "oauth"))
    return text


def write_hooks(
    options: InstallOptions,
    edits: FileEdits,
    path: Path,
    hooks: list[tuple[str, dict[str, Any]]],
    *,
    version: int | None = None,
) -> None:
    """Append the kit's hooks to the existing ones, and remove those that an earlier version wrote."""
    with edits.place(path):
        text = _read_text(edits, path)
        missing = list(hooks)
        if not text_files.is_blank(text):
            for position, hook in reversed(_find_our_hooks(text)):
                wanted = (str(position[1]), hook)
                if wanted in missing:
                    missing.remove(wanted)
                else:
                    text = jsonc.remove_value(text, position)
        if version is not None and (text_files.is_blank(text) or jsonc.read_value(text, ("version",)) is None):
            text = jsonc.set_value(text, ("version",), version)
        for event, item in missing:
            text = jsonc.append_item(text, ("hooks", event), item)
        _write_text(options, edits, path, text)


def write_prompt(options: InstallOptions, edits: FileEdits, path: Path, prompt: dict[str, Any]) -> None:
    """Write the prompt for the token into a file of VS Code."""
    with edits.place(path):
        text = _read_text(edits, path)
        inputs = None if text_files.is_blank(text) else jsonc.read_value(text, ("inputs",))
        if not isinstance(inputs, list) or not any(_is_our_input(entry) for entry in inputs):
            _write_text(options, edits, path, jsonc.append_item(text, ("inputs",), prompt))


def write_toml_server(options: InstallOptions, edits: FileEdits, path: Path, token_source: dict[str, str]) -> None:
    """Write the server table between two marks; one that the user wrote stays.

    Args:
        token_source: the setting that says where the token comes from.
    """
    with edits.place(path):
        text = _read_text(edits, path)
        entry = parse(text).find(TOML_TABLE)
        values = {"url": options.endpoint, **token_source}
        is_own = isinstance(entry, dict) and ("url" in entry or "command" in entry)
        is_own = is_own and not edits.is_ours(path) and not toml_edits.is_between(text, TOML_TABLE, TOML_MARKS)
        if is_own and entry != values and not (options.force and "command" not in entry):
            url = entry.get("url")
            edits.messages.append(f"= {path.name} already has a server {SERVER_NAME} ({url}); --force replaces it")
            return
        if isinstance(entry, dict) and not set(entry) <= set(values) and set(entry) <= _TOML_KEYS:
            # The token came from another place.
            text = toml_edits.remove_table(text, TOML_TABLE, TOML_MARKS)
        _write_text(options, edits, path, toml_edits.set_table(text, TOML_TABLE, values, TOML_MARKS))


def _remove_from_toml(text: str, original: bytes | None, endpoints: frozenset[str]) -> str:
    entry = parse(text).find(TOML_TABLE)
    if entry is None:
        return toml_edits.remove_table(text, TOML_TABLE, TOML_MARKS) if TOML_MARKS[0] in text else text
    own = parse(text_files.decode(original)).find(TOML_TABLE) if original else None
    if isinstance(own, dict) and "url" in own:
        # The user's own server, which --force replaced.
        values = {key: value for key, value in own.items() if type(value) is str}
        return toml_edits.set_table(text, TOML_TABLE, values, TOML_MARKS)
    is_ours = original is not None or toml_edits.is_between(text, TOML_TABLE, TOML_MARKS)
    if not is_ours and isinstance(entry, dict):
        is_orphan = "url" not in entry and "command" not in entry
        has_source = "bearer_token_env_var" in entry or _is_our_command(entry.get("http_headers_helper"))
        is_ours = is_orphan or (has_source and _is_known(entry.get("url"), endpoints))
    return toml_edits.remove_table(text, TOML_TABLE, TOML_MARKS) if is_ours else text


def _remove_from_json(text: str, original: bytes | None, endpoints: frozenset[str]) -> bytes | None:
    before = text
    original_text = text_files.decode(original) if original else ""
    original_document = None if text_files.is_blank(original_text) else jsonc.parse(original_text)

    def was_there(path: jsonc.KeyPath) -> bool:
        node = original_document
        for key in path:
            node = node.find_child(key) if node is not None else None
        return node is not None

    for path in _SERVER_PATHS:
        entry = jsonc.read_value(text, path)
        own = jsonc.read_value(original_text, path) if original_document is not None else None
        if entry is None or entry == own or not _has_our_form(entry, endpoints, has_record=original is not None):
            continue
        # --force replaced a server of the user.
        text = jsonc.set_value(text, path, own) if own else jsonc.remove_value(text, path, keep_empty=was_there)
    for position, _ in reversed(_find_our_hooks(text)):
        text = jsonc.remove_value(text, position, keep_empty=was_there)
    inputs = jsonc.read_value(text, ("inputs",))
    for index in range(len(inputs) - 1, -1, -1) if isinstance(inputs, list) else ():
        if _is_our_input(inputs[index]):
            text = jsonc.remove_value(text, ("inputs",), index, keep_empty=was_there)
    if text != before and not original and jsonc.read_value(text) in _SKELETONS and "//" not in _strip_schema(text):
        return None
    return text.encode("utf-8")


def _strip_schema(text: str) -> str:
    return text.replace("https://", "")


def _find_our_hooks(text: str) -> list[tuple[jsonc.KeyPath, dict[str, Any]]]:
    """Find the kit's hooks in file order: the path of what to remove for each, and the hook as the kit writes it."""
    hooks = jsonc.read_value(text, ("hooks",))
    ours: list[tuple[jsonc.KeyPath, dict[str, Any]]] = []
    for event, items in hooks.items() if isinstance(hooks, dict) else ():
        for index, item in enumerate(items) if isinstance(items, list) else ():
            path: jsonc.KeyPath = ("hooks", event, index)
            inner = item.get("hooks") if isinstance(item, dict) else None
            if _is_our_hook(item):
                ours.append((path, item))
            elif isinstance(inner, list):
                mine = [position for position, hook in enumerate(inner) if _is_our_hook(hook)]
                # A group of which nothing else is left goes as a whole.
                paths = [path] if len(mine) == len(inner) else [(*path, "hooks", position) for position in mine]
                ours += [(path, {**item, "hooks": [inner[position]]}) for path, position in zip(paths, mine)]
    return ours


def _is_our_hook(item: Any) -> bool:
    return _is_our_command(item.get("command")) if isinstance(item, dict) else False


def _is_our_command(command: Any) -> bool:
    return isinstance(command, str) and bool(_OUR_COMMAND.fullmatch(command) or _OUR_OLD_COMMAND.fullmatch(command))


def _is_our_input(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("id") == f"{SERVER_NAME}-token"


def _has_our_form(entry: Any, endpoints: frozenset[str], *, has_record: bool) -> bool:
    """Whether the kit wrote a server entry, which the user may have extended since."""
    if not isinstance(entry, dict):
        return False
    url = next((entry[key] for key in _URL_KEYS if key in entry), None)
    is_ours = (_has_token_reference(entry) and _is_known(url, endpoints)) or (
        # Of a client that signs in.
        "headers" not in entry and url in endpoints
    )
    return url is not None and (has_record or is_ours)


def _has_token_reference(entry: dict[str, Any]) -> bool:
    headers = entry.get("headers")
    token = headers.get("Authorization") if isinstance(headers, dict) else None
    return isinstance(token, str) and bool(_TOKEN_REFERENCE.fullmatch(token))


def _is_known(url: Any, endpoints: frozenset[str]) -> bool:
    return not endpoints or url in endpoints


def _is_users_own(edits: FileEdits, path: Path, keys: jsonc.KeyPath, entry: Any, server: dict[str, Any]) -> bool:
    if not isinstance(entry, dict):
        return True
    if not edits.is_ours(path):
        optional = (*_SWITCHES, *_WRITTEN_ONCE)
        return any(entry.get(key) != value for key, value in server.items() if key not in optional)
    original = edits.original_of(path)
    own = jsonc.read_value(text_files.decode(original), keys) if original else None
    return own is not None and entry == own and entry != server


def _read_text(edits: FileEdits, path: Path) -> str:
    content = edits.read(path)
    return "" if content is None else text_files.decode(content)


def _write_text(options: InstallOptions, edits: FileEdits, path: Path, text: str) -> None:
    edits.write(path, text.encode("utf-8"), options.remover)
