"""The installer: connects a repository and its clients to a bus, and removes everything again.

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
    # Run as a script of a checkout: the package is the folder of this file.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    __package__ = "kit"

from kit import (
    VERSION,
    bundle,
    client_files,
    clients,
    config,
    confirmation,
    connection,
    exit_codes,
    githooks,
    instructions,
    jsonc,
    local_code,
    repo,
    seeding,
    text_files,
    uninstall,
)
from kit.file_edits import FileEdits
from kit.plain_text import one_line
from kit.repo import NoRepositoryError, Repo

_OKF_DIR = "docs/wiki"


class InstallError(Exception):
    """The installation cannot continue; the message says what to do."""


def main(
    arguments: list[str], files: Mapping[str, str] | None = None, defaults: Mapping[str, str] | None = None
) -> int:
    """Run the installer.

    Args:
        arguments: the arguments of the command line.
        files: the files of the kit by path, from a bundle; None reads the folder of this file.
        defaults: the addresses of the bus that served the bundle.

    Returns:
        The exit code: 0, 1 after an error, or 3 if a place was left as it is.
    """
    options = _parse_arguments(arguments, defaults or {})
    try:
        work_tree = repo.get_repo()
        edits = FileEdits(work_tree, dry_run=options.dry_run)
        kit_files = files if files is not None else bundle.read_files()
        if options.uninstall:
            _uninstall(work_tree, edits, kit_files)
        else:
            _install(work_tree, edits, options, kit_files)
    except (NoRepositoryError, InstallError, confirmation.NotConfirmedError, OSError) as error:
        print(f"llm-bus: {error}", file=sys.stderr)
        return exit_codes.FAILED
    return exit_codes.PARTLY if edits.left else exit_codes.OK


def _parse_arguments(arguments: list[str], defaults: Mapping[str, str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="install.py",
        description="Connect this repository and its clients to an LLM Bus. It can run repeatedly; --uninstall "
        "restores every file.",
    )
    add = parser.add_argument
    add("--endpoint", default=defaults.get("endpoint"), help="the MCP address, such as https://bus.example.org/mcp")
    add("--home", default=defaults.get("home"), help="the web address of the bus, for updates of the kit")
    add("--client", default="auto", help="auto (those in use here), all, none, or names: claude,codex,gemini,cursor,…")
    add("--token-env", help=f"the environment variable of the token ({config.TOKEN_VARIABLE})")
    add(
        connection.ALLOW_HTTP_OPTION,
        action="store_true",
        help="send the token without encryption, to a bus in a private network",
    )
    add("--sign-in", action="store_true", help="write no token for the clients: they sign in with the address alone")
    add("--save-token", action="store_true", help="save the token of the environment inside .git, for the hooks")
    add("--ask-token", action="store_true", help="prompt for the token, and save it inside .git")
    add("--invite", metavar="CODE", help="redeem an invite (its code or address), and save the token inside .git")
    add("--name", help="your participant's name, if the invite leaves it open")
    add(
        "--lead",
        action="store_true",
        help="write instructions for a lead, who assigns work and invites participants",
    )
    add(
        "--all-tools",
        action="store_true",
        help="give Gemini CLI and OpenCode all tools, not only those that a participant often needs",
    )
    add("--no-instructions", action="store_true", help="do not change CLAUDE.md, AGENTS.md and GEMINI.md")
    add("--no-git-hook", action="store_true", help="do not change the pre-commit hook")
    add("--no-seed", action="store_true", help="do not tell the bus the highest numbers of this repository")
    add("--wake", action="store_true", help="let Claude Code wait in the background and continue when a post arrives")
    add("--with-okf", action="store_true", help=f"create pages for durable knowledge in {_OKF_DIR}; never overwrites")
    add("--force", action="store_true", help="replace a server named llm-bus that the kit did not write")
    add("--dry-run", action="store_true", help="list the changes without making them")
    add("--uninstall", action="store_true", help="restore the repository")
    add("--version", action="version", version=VERSION)
    return parser.parse_args(arguments)


def _install(work_tree: Repo, edits: FileEdits, options: argparse.Namespace, files: Mapping[str, str]) -> None:
    options.token_env = confirmation.confirm_token_variable(work_tree, options.token_env)
    token, endpoint = _obtain_token(work_tree, options)
    confirmed = confirmation.confirm_connection(work_tree, options, endpoint)
    endpoint, options.home = confirmed.endpoint, confirmed.web_url
    identity = confirmation.identify(work_tree, confirmed, token)
    remover = client_files.make_remover(uninstall.known_endpoints(work_tree) | {endpoint})
    has_saved_token = token is not None or any(path.exists() for path in config.list_token_files(work_tree))
    client_options = client_files.InstallOptions(
        work_tree,
        Path.home(),
        endpoint,
        options.token_env,
        has_saved_token,
        options.sign_in,
        options.wake,
        options.lead or options.all_tools,
        options.force,
        remover,
        files,
    )
    selected = _select_clients(options.client, client_options)
    local_code.install(work_tree, edits, files)
    if not options.dry_run:
        connection.save_connection(work_tree, confirmed)
    _write_config(work_tree, edits, options, endpoint)
    for client in selected:
        client.configure(client_options, edits)
    if not options.no_instructions:
        for name in dict.fromkeys(client.instructions_file for client in selected):
            _write_instructions(work_tree.top / name, edits, "lead" if options.lead else "participant", files)
    if not options.no_git_hook:
        githooks.install(work_tree, edits)
    if not options.dry_run:
        githooks.remember(work_tree, is_wanted=not options.no_git_hook)
    if options.with_okf:
        _write_okf(work_tree, edits, files)
    if token is not None and not options.dry_run:
        _save_token(work_tree, token)
    print(f"LLM Bus kit {VERSION} in {one_line(work_tree.top)}{_dry_run_note(options.dry_run)}")
    print("\n".join(f"  {line}" for line in edits.messages))
    _print_left(edits)
    print(identity)
    if not options.dry_run:
        for line in seeding.seed_at_installation(work_tree, is_wanted=not options.no_seed):
            print(line)
    has_token = config.find_token(work_tree, options.token_env)[0] is not None
    print(_format_next_steps(client_options, selected, has_token))


def _uninstall(work_tree: Repo, edits: FileEdits, files: Mapping[str, str]) -> None:
    uninstall.uninstall(work_tree, edits, files)
    print(f"LLM Bus kit in {one_line(work_tree.top)}: uninstalled{_dry_run_note(edits.dry_run)}")
    print("\n".join(f"  {line}" for line in edits.messages))
    _print_left(edits)


def _print_left(edits: FileEdits) -> None:
    if edits.left:
        count = len(edits.left)
        places = "1 place was left as it is" if count == 1 else f"{count} places were left as they are"
        print(f"Partly done: {places}; see the lines with '!'. Correct what they name, and run this again.")


def _dry_run_note(dry_run: bool) -> str:
    return " (dry run: nothing was changed)" if dry_run else ""


def _select_clients(client_option: str, options: client_files.InstallOptions) -> list[clients.Client]:
    if client_option == "auto":
        return [client for client in clients.CLIENTS if client.is_present(options)]
    if client_option in ("all", "none"):
        return list(clients.CLIENTS) if client_option == "all" else []
    names = [name.strip() for name in client_option.split(",") if name.strip()]
    known = {client.name: client for client in clients.CLIENTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InstallError(f"unknown client {', '.join(unknown)}; the known clients are {', '.join(known)}")
    return [known[name] for name in names]


def _write_config(work_tree: Repo, edits: FileEdits, options: argparse.Namespace, endpoint: str) -> None:
    path = work_tree.top / config.FILE_NAME
    with edits.place(path):
        content = edits.read(path)
        if content is not None:
            text = text_files.decode(content)
        else:
            text = jsonc.set_value("", ("endpoint",), endpoint)
            text = jsonc.set_value(text, ("tokenEnv",), options.token_env)
            text = jsonc.set_value(text, ("sequences",), seeding.suggest_sequences(work_tree))
        text = jsonc.set_value(text, ("endpoint",), endpoint)
        if options.home:
            text = jsonc.set_value(text, ("home",), options.home.rstrip("/"))
        if options.token_env != config.TOKEN_VARIABLE or jsonc.read_value(text, ("tokenEnv",)) is not None:
            text = jsonc.set_value(text, ("tokenEnv",), options.token_env)
        edits.write(path, text.encode("utf-8"), uninstall.keep_all)


def _write_instructions(path: Path, edits: FileEdits, variant: str, files: Mapping[str, str]) -> None:
    with edits.place(path):
        content = edits.read(path) or b""
        if path.name == "CLAUDE.md" and b"@AGENTS.md" in content:
            # CLAUDE.md imports AGENTS.md, and the block is needed once.
            path = path.with_name("AGENTS.md")
            content = edits.read(path) or b""
        # The models of the other clients are sent the rules of the server at the start.
        suffix = "" if path.name == "AGENTS.md" else "-short"
        block = files[f"kit/blocks/{variant}{suffix}.md"]
        changed = instructions.insert_into(content, block, uninstall.block_texts(files))
        edits.write(path, changed, uninstall.remove_instructions(files))


def _write_okf(work_tree: Repo, edits: FileEdits, files: Mapping[str, str]) -> None:
    for name, text in sorted(files.items()):
        if not name.startswith("kit/okf/"):
            continue
        path = work_tree.top / _OKF_DIR / Path(name).name
        with edits.place(path):
            content = edits.read(path)
            if content is not None and not edits.is_ours(path):
                edits.messages.append(f"= {_OKF_DIR}/{path.name} already exists")
            elif content is None:
                edits.write(path, text.encode("utf-8"), uninstall.keep_all)


def _obtain_token(work_tree: Repo, options: argparse.Namespace) -> tuple[str | None, str | None]:
    """Obtain the token to save, and the endpoint that an invite names; None for each that is not given."""
    invite = options.invite or os.environ.get("LLM_BUS_INVITE")
    if invite:
        if options.dry_run:
            return None, options.endpoint
        from kit import join

        try:
            redeemed = join.redeem(work_tree, invite, options.home, options.name, allow_http=options.allow_http)
        except join.JoinError as error:
            raise InstallError(str(error)) from None
        options.home = options.home or redeemed.web_url
        print(f"You are {redeemed.participant} in project {redeemed.project}.")
        # Save it at once: the invite is used up, also if a later step fails.
        _save_token(work_tree, redeemed.token)
        return redeemed.token, redeemed.endpoint
    if options.ask_token:
        return getpass.getpass("Token (not shown): ").strip() or None, None
    if options.save_token:
        token = os.environ.get(options.token_env, "").strip()
        if not token:
            raise InstallError(f"--save-token saves the token of {options.token_env}, which is not set")
        return token, None
    return None, None


def _save_token(work_tree: Repo, token: str) -> None:
    """Write the token into this work tree's git folder, readable only by its user."""
    path = config.list_token_files(work_tree)[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as token_file:
        token_file.write(token + "\n")


def _format_next_steps(options: client_files.InstallOptions, selected: list[clients.Client], has_token: bool) -> str:
    variable = options.token_variable
    names = [client.title for client in selected]
    without_variable = [client.title for client in selected if has_token and client.reads_saved_token]
    others = [name for name in names if name not in without_variable]
    lines = []
    if options.signs_in:
        lines += [f"{client.title} signs in with: {client.sign_in}" for client in selected if client.sign_in]
        if not has_token:
            lines.append(f"The hooks need a token: set {variable}, or run this again with --ask-token.")
    elif os.environ.get(variable):
        lines.append(f"{variable} is set here; set it in every shell that starts your client.")
    else:
        if without_variable:
            lines.append(f"The hooks and {', '.join(without_variable)} use the saved token.")
        if others or not has_token:
            # Of a shell itself: the arguments of a program are visible to others.
            setting = f'$env:{variable} = "…"' if clients.is_windows() else f"export {variable}=…"
            readers = ", ".join(others) or "Hooks and clients" if has_token else "Hooks and clients"
            verb = "reads" if has_token and len(others) == 1 else "read"
            lines.append(f"{readers} {verb} {variable} from the environment: {setting}")
    if selected:
        lines.append(f"Restart {', '.join(names)}.")
    # VS Code asks for the token.
    asking = [
        client for client in selected if client.first_question and not (options.signs_in and client.name == "vscode")
    ]
    lines += [client.first_question for client in asking]
    limited = [client.title for client in selected if client.hides_rare_tools]
    if limited and not options.all_tools:
        lines.append(
            f"{' and '.join(limited)}: rarely used tools are left out; run this with --all-tools for all of them."
        )
    lines.append(f"If something does not connect: {local_code.command(options.repo, 'doctor')}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
