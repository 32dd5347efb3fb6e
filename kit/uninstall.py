"""Removes the kit from a repository: by the record of the installation, and by marks where there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from kit import (
    bundle,
    client_files,
    client_plugins,
    clients,
    config,
    connection,
    githooks,
    instructions,
    jsonc,
    local_code,
    seeding,
    text_files,
)
from kit.file_edits import FileEdits, Remover
from kit.repo import Repo

_WRITTEN_KEYS = {"endpoint", "home", "tokenEnv", "sequences"}


def uninstall(work_tree: Repo, edits: FileEdits, files: Mapping[str, str]) -> None:
    """Remove everything that the kit wrote, and report what stays.

    Args:
        files: the files of the kit, with the texts of its blocks.
    """
    client_remover = client_files.make_remover(known_endpoints(work_tree))

    def get_remover(path: Path) -> Remover:
        return _get_remover(path, client_remover, files)

    recorded = edits.recorded_paths()
    edits.undo(get_remover)
    githooks.uninstall(work_tree, edits)
    # Another clone or worktree installed the kit, and the branch has what it wrote.
    for path in _list_candidates(work_tree):
        if str(path) not in recorded:
            with edits.place(path):
                is_whole_file = local_code.OLD_FOLDER_NAME in path.parts or path.name == config.FILE_NAME
                edits.remove_part(path, get_remover(path), b"" if is_whole_file else b"llm-bus")
    _remove_old_folders(work_tree, edits)
    _report_other_servers(work_tree, edits)
    if not edits.dry_run:
        for path in config.list_token_files(work_tree)[:1]:
            path.unlink(missing_ok=True)
        local_code.remove(work_tree)


def known_endpoints(work_tree: Repo) -> frozenset[str]:
    """Return the addresses of the bus that the kit has written here: the committed and the confirmed one."""
    confirmed = connection.find_connection(work_tree)
    endpoints = {confirmed.endpoint} if confirmed is not None else set()
    try:
        content = (work_tree.top / config.FILE_NAME).read_bytes()
        endpoint = jsonc.read_value(text_files.decode(content), ("endpoint",))
    except (OSError, ValueError):
        endpoint = None
    return frozenset(endpoints | ({endpoint} if isinstance(endpoint, str) else set()))


def remove_instructions(files: Mapping[str, str]) -> Remover:
    """Return the function that removes the block of rules from a file."""
    return lambda content, original: instructions.remove_block(content, block_texts(files))


def block_texts(files: Mapping[str, str]) -> list[str]:
    """Return the texts that a block may have."""
    return [text for name, text in sorted(files.items()) if name.startswith("kit/blocks/")]


def keep_all(content: bytes, original: bytes | None) -> bytes | None:
    """Keep a file that the user has changed."""
    return content


def _delete(content: bytes, original: bytes | None) -> bytes | None:
    return None


def _delete_gitignore(content: bytes, original: bytes | None) -> bytes | None:
    return None if content.startswith(b"# Written by the LLM Bus kit") else content


def _remove_config(content: bytes, original: bytes | None) -> bytes | None:
    """Remove the configuration, unless it has settings of the user."""
    document = jsonc.read_value(text_files.decode(content))
    if original is not None or not isinstance(document, dict):
        return content
    sequences = document.get("sequences", {})
    is_written = set(document) <= _WRITTEN_KEYS and isinstance(sequences, dict)
    return None if is_written and all(seeding.is_suggested(*rule) for rule in sequences.items()) else content


def _get_remover(path: Path, client_remover: Remover, files: Mapping[str, str]) -> Remover:
    """Return the function that removes the kit's part from a file."""
    if path.name.startswith("pre-commit"):
        return githooks.remove_part
    if path.name.startswith("lefthook-local"):
        return githooks.remove_lefthook_part
    if local_code.OLD_FOLDER_NAME in path.parts:
        return _delete_gitignore if path.name == ".gitignore" else _delete
    if path.name == config.FILE_NAME:
        return _remove_config
    if path.suffix == ".js":
        return client_plugins.remove_plugin
    if "wiki" in path.parts:
        # The user's changes stay.
        return keep_all
    return remove_instructions(files) if path.suffix == ".md" else client_remover


def _list_candidates(work_tree: Repo) -> list[Path]:
    """List the files of the work tree in which the kit may have written."""
    top = work_tree.top
    names = dict.fromkeys([*clients.CONFIGURED_FILES, *(client.instructions_file for client in clients.CLIENTS)])
    old_folder = top / local_code.OLD_FOLDER_NAME
    old_code = [] if (old_folder / "kit").is_symlink() else bundle.list_paths(old_folder / "kit")
    return [*(top / name for name in names), *old_code, old_folder / ".gitignore", top / config.FILE_NAME]


def _remove_old_folders(work_tree: Repo, edits: FileEdits) -> None:
    """Remove the folders of an earlier version, unless something else is in them."""
    folder = work_tree.top / local_code.OLD_FOLDER_NAME
    if not edits.dry_run and folder.is_dir() and not folder.is_symlink():
        for name in ("kit/blocks", "kit/okf", "kit", "."):
            with contextlib.suppress(OSError):
                (folder / name).rmdir()


def _report_other_servers(work_tree: Repo, edits: FileEdits) -> None:
    if client_files.has_server(edits, Path.home() / clients.WINDSURF_FILE):
        edits.messages.append(f"= ~/{clients.WINDSURF_FILE}: the server is for all repositories, and stays")
    for name in clients.CONFIGURED_FILES:
        if not edits.dry_run and client_files.has_server(edits, work_tree.top / name):
            edits.messages.append(f"= {name}: a server {client_files.SERVER_NAME} that the kit did not write stays")
