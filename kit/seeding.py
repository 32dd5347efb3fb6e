"""Sequences of a repository that exist before it is connected: which files they number, and how far they are."""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from kit import claims, exit_codes, git_history, mcp_client, numbering, repo
from kit.check_result import describe_error
from kit.config import Config, ConfigError, load_config
from kit.numbering import GovernedFile, NumberingRule
from kit.numbers_in_use import find_split_folders
from kit.plain_text import one_line
from kit.repo import NoRepositoryError, Repo

_TIMEOUT_SECONDS = 5.0
_MAX_SUGGESTIONS = 12
_MAX_SEQUENCE_NAME = 64
_MAX_LISTED_OUTLIERS = 3
# Names of folders whose files a sequence numbers, with the name of the sequence.
_DECISION_FOLDERS = frozenset(("adr", "adrs", "decisions", "decision-records", "madr"))
_FOLDER_SEQUENCES = {
    **dict.fromkeys(_DECISION_FOLDERS, "adr"),
    "rfc": "rfc",
    "rfcs": "rfc",
    "migrations": "migration",
    "migration": "migration",
    "migrate": "migration",
}
_DECISION_EXTENSION = "md"
_MIGRATION_EXTENSIONS = frozenset(
    ("sql", "py", "rb", "js", "ts", "php", "go", "rs", "cs", "ex", "exs", "xml", "yml", "yaml")
)
# Above a folder of migrations these say nothing about what it belongs to.
_PLAIN_FOLDERS = frozenset(("db", "src", "sql", "database", "main", "resources", "app", "docs", "doc", "architecture"))


@dataclass(frozen=True)
class History:
    """How far a sequence is in a repository.

    Attributes:
        highest: its highest number, and `path` the file that has it.
        width: the digits that all numbers are padded to; 0 if they differ.
        outliers: files whose numbers are too far above the others to be of the sequence.
    """

    sequence: str
    highest: int
    path: str
    width: int
    outliers: tuple[str, ...]


def main(arguments: Sequence[str]) -> int:
    """Run `kit seed`: tell the bus the highest number of each sequence. Returns the exit code."""
    try:
        work_tree = repo.get_repo()
        config = load_config(work_tree)
        if config.token is None:
            print(f"llm-bus: {config.token_problem}", file=sys.stderr)
            return exit_codes.FAILED
        lines, is_complete = seed(work_tree, config, dry_run="--dry-run" in arguments)
    except (NoRepositoryError, ConfigError) as error:
        print(f"llm-bus: {error}", file=sys.stderr)
        return exit_codes.FAILED
    print("\n".join(lines) or "The bus knows the numbers of this repository.")
    return exit_codes.OK if is_complete else exit_codes.FAILED


def seed_at_installation(work_tree: Repo, *, is_wanted: bool) -> list[str]:
    """Seed the sequences of a repository that is being connected, or say how. Returns lines for the user."""
    try:
        config = load_config(work_tree)
        if config.token is not None:
            return seed(work_tree, config, dry_run=not is_wanted)[0]
        return [_format_advice(history) for history in find_histories(work_tree, config)]
    except (NoRepositoryError, ConfigError):
        # The installer reports what is wrong with them.
        return []


def seed(work_tree: Repo, config: Config, *, dry_run: bool) -> tuple[list[str], bool]:
    """Tell the bus the highest number of each sequence of a repository.

    Returns:
        A line for each sequence, and whether no call failed.
    """
    histories = find_histories(work_tree, config)
    budget = mcp_client.TimeBudget(_TIMEOUT_SECONDS)
    calls = [partial(_seed, history, dry_run) for history in histories]
    answers = mcp_client.call_in_parallel(config.endpoint, config.token, calls, budget)
    lines = []
    for history, answer in zip(histories, answers):
        if isinstance(answer, Exception):
            lines.append(f"{_format_advice(history)} It was not seeded: {describe_error(answer)}")
        elif answer:
            lines.append(answer)
        left_out = ", ".join(one_line(path) for path in history.outliers[:_MAX_LISTED_OUTLIERS])
        if left_out:
            lines.append(f"{history.sequence}: left out {left_out}, far above all other numbers.")
    return lines, not any(isinstance(answer, Exception) for answer in answers)


def find_histories(work_tree: Repo, config: Config) -> list[History]:
    """Find how far each sequence is in the work tree and on the branches.

    A sequence whose folders are numbered each by itself has no number that all of them continue.

    Raises:
        NoRepositoryError: git failed.
    """
    if not config.rules:
        return []
    pathspecs = git_history.build_pathspecs(rule.glob for rule in config.rules)
    paths = git_history.list_index(work_tree, pathspecs, with_work_tree=True)
    paths += [file.path for file in git_history.list_elsewhere(work_tree, pathspecs) if file.branch]
    by_sequence: dict[str, list[GovernedFile]] = defaultdict(list)
    for governed in filter(None, map(config.find_governed, dict.fromkeys(paths))):
        by_sequence[governed.sequence].append(governed)
    histories = []
    for sequence, files in sorted(by_sequence.items()):
        if find_split_folders(file for file in files if file.number == 1):
            continue
        by_number = {file.number: file.path for file in files}
        highest = numbering.highest_number(by_number)
        widths = {file.number_end - file.number_start if file.path[file.number_start] == "0" else 0 for file in files}
        widths.discard(0)
        width = widths.pop() if len(widths) == 1 else 0
        outliers = tuple(by_number[number] for number in sorted(by_number) if number > highest)
        histories.append(History(sequence, highest, by_number[highest], width, outliers))
    return histories


def suggest_sequences(work_tree: Repo) -> dict[str, str]:
    """Suggest a sequence for each folder of the work tree whose files are numbered: globs with their sequences.

    A folder whose files are named by timestamps, dates, versions or hashes is not numbered. An empty folder for
    decisions is, since that is their custom.
    """
    try:
        paths = git_history.list_index(work_tree, [":(top)"], with_work_tree=True)
    except NoRepositoryError:
        return {}
    names_by_folder: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder.rpartition("/")[2].lower() in _FOLDER_SEQUENCES:
            names_by_folder[folder].append(name)
    numbered: list[tuple[str, str, str]] = []
    for folder, names in sorted(names_by_folder.items(), key=lambda item: (item[0].count("/"), item[0])):
        kind = _FOLDER_SEQUENCES[folder.rpartition("/")[2].lower()]
        extension = _find_numbered_extension(names, kind)
        if extension:
            numbered.append((folder, kind, extension))
    counts = Counter(kind for _, kind, _ in numbered)
    suggestions: dict[str, str] = {}
    for folder, kind, extension in numbered[:_MAX_SUGGESTIONS]:
        name = _name_sequence(folder, kind, counts[kind] == 1, set(suggestions.values()))
        suggestions[f"{folder}/*.{extension}"] = name
    return suggestions


def is_suggested(glob: str, sequence: object) -> bool:
    """Whether this version or an earlier one suggests such a rule, for some repository."""
    folder, _, pattern = glob.rpartition("/")
    kind = _FOLDER_SEQUENCES.get(folder.rpartition("/")[2].lower())
    if kind is None or not isinstance(sequence, str) or not pattern.startswith("*."):
        return False
    return sequence == kind or sequence.endswith(f"-{kind}") or re.fullmatch(rf"{kind}-[0-9]+", sequence) is not None


def _find_numbered_extension(names: Iterable[str], kind: str) -> str | None:
    """Find the extension of the numbered files of a folder; None if they are not numbered."""
    rule = NumberingRule("*", kind)
    numbered: Counter[str] = Counter()
    versioned_count = 0
    for name in names:
        extension = name.rpartition(".")[2].lower()
        if kind == "migration" and extension not in _MIGRATION_EXTENSIONS:
            continue
        if numbering.find_governed((rule,), name):
            numbered[extension] += 1
        elif numbering.find_version_scheme(name):
            versioned_count += 1
    if sum(numbered.values()) > versioned_count:
        return numbered.most_common(1)[0][0]
    return _DECISION_EXTENSION if kind == "adr" and not versioned_count else None


def _name_sequence(folder: str, kind: str, is_only: bool, used_names: set[str]) -> str:
    """Name the sequence of a folder: by its kind, among several also by the nearest folder above with its own name."""
    owners = [part.lower() for part in folder.split("/")[:-1] if part.lower() not in _PLAIN_FOLDERS]
    owner = re.sub(r"[^a-z0-9_-]+", "-", owners[-1]).strip("-") if owners else ""
    candidates = [f"{owner}-{kind}"] if owner and not is_only else []
    candidates += [kind, *(f"{kind}-{number}" for number in range(2, 100))]
    return next(name[-_MAX_SEQUENCE_NAME:] for name in candidates if name not in used_names)


def _seed(history: History, dry_run: bool, bus: mcp_client.BusClient) -> str | None:
    """Seed one sequence. Returns a line for the user; None if there is nothing to do."""
    last = claims.find_last_number(history.sequence, bus)
    if last is not None and last.number >= history.highest:
        return None
    if dry_run:
        return _format_advice(history)
    arguments = {"sequence": history.sequence, "current": history.highest}
    if last is None and history.width:
        arguments["pad"] = history.width
    bus.call("seed_sequence", **arguments)
    return (
        f"Seeded the sequence {history.sequence} with {history.highest}, the highest number here "
        f"({one_line(history.path)}); the next claim gives {history.highest + 1}."
    )


def _format_advice(history: History) -> str:
    return (
        f"{history.sequence}: the highest number here is {history.highest} ({one_line(history.path)}). Seed the "
        f'sequence before the first claim: seed_sequence(sequence="{history.sequence}", current={history.highest}).'
    )
