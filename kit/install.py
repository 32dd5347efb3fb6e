"""The installer: connects a repository and its clients to a bus, and takes everything back.

`python3 kit/install.py --endpoint URL` from a checkout, or from the bus itself:
`curl -fsSL https://BUS/kit/install.py | python3 -`.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path

if __package__ in (None, ""):
    # Run as a file of the checkout: the package is the folder that it lies in.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    __package__ = "kit"

from kit import VERSION, clients, config, githooks, instructions, jsonc, repo
from kit.activity_log import FOLDER_NAME, GITIGNORE_TEXT
from kit.file_edits import FileEdits, Remover
from kit.repo import NoRepositoryError, Repo

_SUGGESTED_SEQUENCES = (
    ("docs/decisions", "docs/decisions/*.md", "adr"),
    ("docs/adr", "docs/adr/*.md", "adr"),
    ("migrations", "**/migrations/*.sql", "migration"),
    ("db/migrations", "**/migrations/*.sql", "migration"),
)
_OKF_DIR = "docs/wiki"


class InstallError(Exception):
    """What keeps the installer from going on, and what to do."""


def main(
    arguments: list[str], files: Mapping[str, str] | None = None, defaults: Mapping[str, str] | None = None
) -> int:
    """Run the installer.

    Args:
        files: the kit as a bundle brings it, by path; None reads the folder that this file lies in.
        defaults: the addresses of the bus that the bundle came from.
    Returns:
        0, or 1 if nothing could be done.
    """
    asked = _parse_arguments(arguments, defaults or {})
    try:
        where = repo.get_repo()
        edits = FileEdits(where.git_dir / "llm-bus" / "installed.json", dry_run=asked.dry_run)
        if asked.uninstall:
            _uninstall(where, edits)
        else:
            _install(where, edits, asked, files if files is not None else _read_own_files())
    except (NoRepositoryError, InstallError, OSError) as error:
        print(f"llm-bus: {error}", file=sys.stderr)
        return 1
    return 0


def _parse_arguments(arguments: list[str], defaults: Mapping[str, str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="install.py",
        description="Connect this repository and its clients to an LLM Bus. Run it again at will; --uninstall takes "
        "everything back.",
    )
    add = parser.add_argument
    add("--endpoint", default=defaults.get("endpoint"), help="the MCP address, such as https://bus.example.org/mcp")
    add("--home", default=defaults.get("home"), help="the web address of the bus, for news of the kit")
    add("--client", default="auto", help="auto (those found here), all, none, or names: claude,codex,gemini,cursor,…")
    add("--token-env", default=config.TOKEN_VARIABLE, help="the variable that holds the token (%(default)s)")
    add("--save-token", action="store_true", help="keep the token of the environment inside .git, for the hooks")
    add("--ask-token", action="store_true", help="ask for the token at the terminal, and keep it inside .git")
    add("--invite", metavar="CODE", help="redeem an invite (or its whole address), and keep the token inside .git")
    add("--name", help="what you will be called, where the invite leaves it open")
    add("--lead", action="store_true", help="instructions for whoever leads: hands out work, lets others in")
    add("--no-instructions", action="store_true", help="leave CLAUDE.md, AGENTS.md and GEMINI.md alone")
    add("--no-git-hook", action="store_true", help="leave the pre-commit hook alone")
    add("--wake", action="store_true", help="let Claude Code wait in the background and wake when mail arrives")
    add("--with-okf", action="store_true", help=f"a starter for durable knowledge in {_OKF_DIR}; never overwrites")
    add("--force", action="store_true", help="replace a server of the name llm-bus that is not from this kit")
    add("--dry-run", action="store_true", help="say what would change, and change nothing")
    add("--uninstall", action="store_true", help="leave the repository as it was")
    add("--version", action="version", version=VERSION)
    return parser.parse_args(arguments)


def _install(where: Repo, edits: FileEdits, asked: argparse.Namespace, files: Mapping[str, str]) -> None:
    token, endpoint = _obtain_token(where, asked)
    endpoint = endpoint or asked.endpoint or _find_configured_endpoint(where)
    if not endpoint or not endpoint.startswith(("https://", "http://")):
        raise InstallError("say where the bus is: --endpoint https://BUS/mcp")
    wanted = clients.InstallOptions(where, Path.home(), endpoint, asked.token_env, asked.wake, asked.force)
    chosen = _choose_clients(asked.client, wanted)
    _write_kit(where, edits, files)
    _write_config(where, edits, asked, endpoint)
    for client in chosen:
        client.configure(wanted, edits)
    if not asked.no_instructions:
        for name in dict.fromkeys(client.instructions_file for client in chosen):
            _write_instructions(where.top / name, edits, "lead" if asked.lead else "participant", files)
    if not asked.no_git_hook:
        githooks.install(where, edits)
    if asked.with_okf:
        _write_okf(where, edits, files)
    if token is not None and not asked.dry_run:
        _save_token(where, token)
    print(f"LLM Bus kit {VERSION} in {where.top}{' (dry run: nothing was changed)' if asked.dry_run else ''}")
    print("\n".join(f"  {line}" for line in edits.messages))
    print(_format_next_steps(wanted, chosen, config.find_token(where, asked.token_env) is not None))


def _uninstall(where: Repo, edits: FileEdits) -> None:
    hook = githooks.hook_path(where)
    if not edits.is_ours(hook) and hook.exists() and githooks.BLOCK_BEGIN.encode() in hook.read_bytes():
        # Put there from another work tree that shares the hooks.
        left = githooks.remove_block(hook.read_bytes())
        if not edits.dry_run:
            hook.unlink() if left is None else hook.write_bytes(left)
        edits.messages.append(f"~ {hook.name}")
    _delete_local_state(where, edits)
    edits.undo(_choose_remover)
    if not edits.dry_run:
        for path in config.list_token_files(where)[:1]:
            path.unlink(missing_ok=True)
        for folder in (where.top / FOLDER_NAME / "kit", where.top / FOLDER_NAME, where.git_dir / "llm-bus"):
            try:
                folder.rmdir()
            except OSError:
                continue
    print(f"LLM Bus kit in {where.top}: taken back{' (dry run: nothing was changed)' if edits.dry_run else ''}")
    print("\n".join(f"  {line}" for line in edits.messages))


def _choose_remover(path: Path) -> Remover:
    """How our part is taken out of a file that somebody changed since."""
    if path.name == "pre-commit":
        return githooks.remove_block
    if path.suffix == ".md" and FOLDER_NAME not in path.parts and "wiki" not in path.parts:
        return instructions.remove_block
    if path.suffix in (".json", ".jsonc", ".toml") and path.name != config.FILE_NAME and FOLDER_NAME not in path.parts:
        return _remove_our_entries_if_valid
    if path.name == config.FILE_NAME or "wiki" in path.parts:
        # What somebody wrote into them is theirs.
        return lambda held: held
    return lambda held: None


def _remove_our_entries_if_valid(content: bytes) -> bytes | None:
    try:
        return clients.remove_our_entries(content)
    except (jsonc.NotJsonError, UnicodeDecodeError):
        return content


def _delete_local_state(where: Repo, edits: FileEdits) -> None:
    """Remove what the hooks wrote down here."""
    if edits.dry_run:
        return
    folder = where.top / FOLDER_NAME
    for pattern in ("journal.jsonl*", "state/*", "kit/__pycache__/*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    for name in ("state", "kit/__pycache__"):
        try:
            (folder / name).rmdir()
        except OSError:
            continue


def _read_own_files() -> dict[str, str]:
    from kit import bundle

    return bundle.read_files()


def _choose_clients(names_option: str, options: clients.InstallOptions) -> list[clients.Client]:
    if names_option == "auto":
        return [client for client in clients.CLIENTS if client.is_present(options)]
    if names_option in ("all", "none"):
        return list(clients.CLIENTS) if names_option == "all" else []
    names = [name.strip() for name in names_option.split(",") if name.strip()]
    known = {client.name: client for client in clients.CLIENTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InstallError(f"no client is called {', '.join(unknown)}; known are: {', '.join(known)}")
    return [known[name] for name in names]


def _write_kit(where: Repo, edits: FileEdits, files: Mapping[str, str]) -> None:
    before = len(edits.messages)
    for name, text in sorted(files.items()):
        edits.write(where.top / FOLDER_NAME / name, text.encode("utf-8"), lambda held: None)
    edits.write(where.top / FOLDER_NAME / ".gitignore", GITIGNORE_TEXT.encode(), lambda held: None)
    # One line for all of them.
    changed = [line for line in edits.messages[before:] if not line.startswith("=")]
    edits.messages[before:] = [
        f"{'~' if changed else '='} {FOLDER_NAME}/kit ({len(changed)} of {len(files) + 1} files)"
    ]


def _write_config(where: Repo, edits: FileEdits, asked: argparse.Namespace, endpoint: str) -> None:
    path = where.top / config.FILE_NAME
    if path.exists():
        text = path.read_bytes().decode("utf-8")
    else:
        found = {glob: sequence for folder, glob, sequence in _SUGGESTED_SEQUENCES if (where.top / folder).is_dir()}
        text = jsonc.set_value("", ("endpoint",), endpoint)
        text = jsonc.set_value(text, ("tokenEnv",), asked.token_env)
        text = jsonc.set_value(text, ("sequences",), found)
    try:
        text = jsonc.set_value(text, ("endpoint",), endpoint)
        if asked.home:
            text = jsonc.set_value(text, ("home",), asked.home.rstrip("/"))
        if asked.token_env != config.TOKEN_VARIABLE:
            text = jsonc.set_value(text, ("tokenEnv",), asked.token_env)
    except jsonc.NotJsonError as error:
        raise InstallError(f"{path} is not JSON ({error}); mend it first") from None
    edits.write(path, text.encode("utf-8"), lambda held: held)


def _find_configured_endpoint(where: Repo) -> str | None:
    path = where.top / config.FILE_NAME
    try:
        found = jsonc.read_value(path.read_bytes().decode("utf-8"), ("endpoint",))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, str) else None


def _write_instructions(path: Path, edits: FileEdits, variant: str, files: Mapping[str, str]) -> None:
    held = path.read_bytes().decode("utf-8") if path.exists() else ""
    if path.name == "CLAUDE.md" and "@AGENTS.md" in held:
        # It takes over what stands there, and once is enough.
        path = path.with_name("AGENTS.md")
        held = path.read_bytes().decode("utf-8") if path.exists() else ""
    edits.write(
        path,
        instructions.insert_block(held, files[f"kit/blocks/{variant}.md"]).encode("utf-8"),
        instructions.remove_block,
    )


def _write_okf(where: Repo, edits: FileEdits, files: Mapping[str, str]) -> None:
    for name, text in sorted(files.items()):
        if not name.startswith("kit/okf/"):
            continue
        path = where.top / _OKF_DIR / Path(name).name
        if path.exists() and not edits.is_ours(path):
            edits.messages.append(f"= {_OKF_DIR}/{path.name} is there already")
        elif not path.exists():
            edits.write(path, text.encode("utf-8"), lambda held: held)


def _obtain_token(where: Repo, asked: argparse.Namespace) -> tuple[str | None, str | None]:
    """The token to keep, and the endpoint that came with it, if one did."""
    invite = asked.invite or os.environ.get("LLM_BUS_INVITE")
    if invite:
        if asked.dry_run:
            return None, asked.endpoint
        from kit import join

        try:
            joined = join.redeem(invite, asked.home, asked.name)
        except join.JoinError as error:
            raise InstallError(str(error)) from None
        asked.home = asked.home or joined.web_url
        print(f"You are {joined.participant} in project {joined.project}.")
        # At once: the invite is used up, whatever happens next.
        _save_token(where, joined.token)
        return joined.token, joined.endpoint
    if asked.ask_token:
        return getpass.getpass("Token (not shown): ").strip() or None, None
    if asked.save_token:
        token = os.environ.get(asked.token_env, "").strip()
        if not token:
            raise InstallError(f"--save-token keeps the token of ${asked.token_env}, which is not set")
        return token, None
    return None, None


def _save_token(where: Repo, token: str) -> None:
    """Write the token into this work tree's folder of .git, for its user only."""
    path = config.list_token_files(where)[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as out:
        out.write(token + "\n")


def _format_next_steps(options: clients.InstallOptions, chosen: list[clients.Client], connected: bool) -> str:
    lines = []
    if os.environ.get(options.token_variable):
        lines.append(f"{options.token_variable} is set here; set it wherever you start your client.")
    else:
        export = "setx" if clients.is_windows() else "export"
        saved = "The hooks have the saved token; clients read" if connected else "Hooks and clients read"
        lines.append(f"{saved} {options.token_variable} from the environment: {export} {options.token_variable}=…")
    if chosen:
        lines.append(f"Restart {', '.join(client.title for client in chosen)}.")
    if any(client.name == "codex" for client in chosen):
        lines.append("Codex reads .codex/ once you trust this folder, and asks before it runs the hooks.")
    if any(client.name == "vscode" for client in chosen):
        lines.append("VS Code asks for the token and keeps it itself.")
    lines.append("If something does not connect: python3 .llm-bus/kit doctor")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
