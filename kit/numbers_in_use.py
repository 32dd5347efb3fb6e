"""The numbers of a repository: which ones a commit adds, and which ones the tree and the other branches have."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from kit import git_history, numbering
from kit.config import Config
from kit.git_history import KnownFile, StagedChange
from kit.numbering import GovernedFile
from kit.repo import Repo

# The search for files in the whole history, which a long one makes slow.
_HISTORY_SECONDS = 0.5
_YEAR_NEIGHBORHOOD = 100
_MAX_FOLDER_ENTRIES = 20_000
# Every folder that is numbered by itself may have one of these as its first file.
_INITIAL_TITLES = frozenset(("initial", "init", "setup", "baseline"))


@dataclass(frozen=True)
class AddedFile:
    """A governed file that HEAD has not.

    Attributes:
        keeps_number: whether the same change deletes or renames the file that had the number.
    """

    governed: GovernedFile
    blob: str
    keeps_number: bool = False


@dataclass(frozen=True)
class Twin:
    """Another file with the number of a file; `branch` is empty if it is in the tree of the commit."""

    path: str
    branch: str


@dataclass
class NumberedGroup:
    """New files of one number that belong together, such as `0007_a.up.sql` and `0007_a.down.sql`.

    Attributes:
        twins: files that have the number and do not belong to the group.
    """

    files: list[AddedFile]
    twins: list[Twin] = field(default_factory=list)

    @property
    def first(self) -> GovernedFile:
        """The first file, which stands for the group in messages."""
        return self.files[0].governed

    @property
    def sequence(self) -> str:
        """The sequence of the number."""
        return self.first.sequence

    @property
    def number(self) -> int:
        """The number of the files."""
        return self.first.number


def find_added_files(config: Config, changes: Sequence[StagedChange]) -> list[AddedFile]:
    """Find the governed files that a commit adds."""
    removed_paths = [change.path for change in changes if change.is_deleted]
    removed_paths += [change.old_path for change in changes if change.old_path]
    added: list[AddedFile] = []
    kept_numbers: set[tuple[str, int]] | None = None
    for change in changes:
        governed = config.find_governed(change.path) if change.is_new else None
        if governed is None:
            continue
        if kept_numbers is None:
            removed = [config.find_governed(path) for path in removed_paths]
            kept_numbers = {(file.sequence, file.number) for file in removed if file}
        added.append(AddedFile(governed, change.blob, (governed.sequence, governed.number) in kept_numbers))
    return added


def find_split_folders(first_files: Iterable[GovernedFile]) -> tuple[str, str] | None:
    """Find two folders that are numbered each by itself, as those of Django's applications are: both begin with 1.

    Folders with the same titles belong together, as those of the migrations for two databases do.

    Args:
        first_files: the files of a sequence that have the number 1.
    """
    titles = {file.folder: file.title for file in first_files}
    for (first, title), (second, other) in combinations(titles.items(), 2):
        if title != other or title in _INITIAL_TITLES:
            return first, second
    return None


class _KnownFiles:
    """Files of other commits, by path and by content under a number."""

    def __init__(self, config: Config, files: Iterable[KnownFile]) -> None:
        self._paths: set[str] = set()
        self._contents: set[tuple[str, int, str]] = set()
        self.governed: list[tuple[GovernedFile, str]] = []
        for file in files:
            governed = config.find_governed(file.path)
            if governed:
                self._paths.add(file.path)
                self._contents.add((governed.sequence, governed.number, file.blob))
                self.governed.append((governed, file.branch))

    def have(self, file: AddedFile) -> bool:
        """Whether a commit has the path, or the content under the same number."""
        governed = file.governed
        return governed.path in self._paths or (governed.sequence, governed.number, file.blob) in self._contents


class NumbersInUse:
    """The numbers that the tree of a commit and the other branches have, beside those of its new files.

    Attributes:
        groups: the new files by number and title, in the order of their paths.
        merged_twins: files from another ref, each with a file of the tree that has the number too.
        split_sequences: two folders of each sequence whose folders are numbered each by itself.
    """

    def __init__(self, repo: Repo, config: Config, added: Sequence[AddedFile]) -> None:
        """Read the index and the refs.

        Raises:
            NoRepositoryError: git failed.
        """
        self._repo = repo
        self._config = config
        sequences = {file.governed.sequence for file in added}
        self._pathspecs = git_history.build_pathspecs(rule.glob for rule in config.rules if rule.sequence in sequences)
        added_paths = {file.governed.path for file in added}
        paths = git_history.list_index(repo, self._pathspecs)
        self._tree = self._govern(path for path in paths if path not in added_paths)
        elsewhere = _KnownFiles(config, git_history.list_elsewhere(repo, self._pathspecs))
        self._on_branches = [(file, branch) for file, branch in elsewhere.governed if branch]
        self._taken = {(file.sequence, file.number) for file, _ in elsewhere.governed}
        new = [file for file in added if not file.keeps_number and not elsewhere.have(file)]
        self._index_twins()
        new_paths = {file.governed.path for file in new}
        brought = [file.governed for file in added if file.governed.path not in new_paths]
        self.merged_twins = [(governed, twins[0]) for governed in brought if (twins := self._find_tree_twins(governed))]
        self._tree += brought
        self._taken |= {(file.sequence, file.number) for file in self._tree}
        self._index_twins()
        self.split_sequences = self._find_split_sequences(sequences, new)
        self.groups = self._group([file for file in new if not self._is_year(file.governed)])

    def is_taken(self, number: int, group: NumberedGroup) -> bool:
        """Whether a file other than those of the group has the number, also one that is not committed yet."""
        key = (group.sequence, number)
        if key in self._taken or any(
            (other.sequence, other.number) == key for other in self.groups if other is not group
        ):
            return True
        own_paths = {file.governed.path for file in group.files}
        uncommitted = self._govern(_list_folder(self._repo, group.first.folder))
        return any((file.sequence, file.number) == key for file in uncommitted if file.path not in own_paths)

    def find_highest(self, sequence: str) -> tuple[int, str]:
        """Return the highest number that the tree or a branch has, and its file; 0 if there is none."""
        files = [*(file for file, _ in self._on_branches), *self._tree]
        paths = {file.number: file.path for file in files if file.sequence == sequence}
        number = numbering.highest_number(paths)
        return number, paths.get(number, "")

    def drop_known(self, groups: Sequence[NumberedGroup]) -> list[NumberedGroup]:
        """Return the groups without the files that an earlier commit of any ref has added."""
        if not groups:
            return []
        history = _KnownFiles(self._config, git_history.list_history(self._repo, self._pathspecs, _HISTORY_SECONDS))
        remaining = []
        for group in groups:
            group.files = [file for file in group.files if not history.have(file)]
            if group.files:
                remaining.append(group)
        return remaining

    def _govern(self, paths: Iterable[str]) -> list[GovernedFile]:
        return [governed for governed in map(self._config.find_governed, paths) if governed]

    def _index_twins(self) -> None:
        self._by_number: dict[tuple[str, int], list[GovernedFile]] = defaultdict(list)
        for file in self._tree:
            self._by_number[file.sequence, file.number].append(file)

    def _is_year(self, governed: GovernedFile) -> bool:
        """Whether a number such as 2024 is a year, since the sequence has no number near it."""
        return governed.may_be_year and not any(
            sequence == governed.sequence and abs(number - governed.number) <= _YEAR_NEIGHBORHOOD
            for sequence, number in self._taken
        )

    def _find_split_sequences(self, sequences: Iterable[str], new: Sequence[AddedFile]) -> dict[str, tuple[str, str]]:
        split: dict[str, tuple[str, str]] = {}
        for sequence in sequences:
            initial = [file.governed for file in new if (file.governed.sequence, file.governed.number) == (sequence, 1)]
            initial = [governed for governed in initial if governed.title in _INITIAL_TITLES]
            folders = find_split_folders([*self._by_number[sequence, 1], *initial])
            if folders:
                split[sequence] = folders
        return split

    def _group(self, files: Sequence[AddedFile]) -> list[NumberedGroup]:
        groups: dict[tuple[str, int, str, str], NumberedGroup] = {}
        by_number: dict[tuple[str, int], list[NumberedGroup]] = defaultdict(list)
        for file in files:
            governed = file.governed
            key = (governed.sequence, governed.number, governed.folder, governed.title)
            if governed.sequence in self.split_sequences:
                continue
            if key in groups:
                groups[key].files.append(file)
                continue
            group = groups[key] = NumberedGroup([file], self._find_twins(governed))
            earlier_groups = by_number[governed.sequence, governed.number]
            group.twins += [
                Twin(other.first.path, "") for other in earlier_groups if other.first.title != governed.title
            ]
            earlier_groups.append(group)
        return list(groups.values())

    def _find_tree_twins(self, governed: GovernedFile) -> list[Twin]:
        same_number = self._by_number[governed.sequence, governed.number]
        return [Twin(file.path, "") for file in same_number if file.title != governed.title]

    def _find_twins(self, governed: GovernedFile) -> list[Twin]:
        key, title = (governed.sequence, governed.number), governed.title
        others = [
            Twin(file.path, branch)
            for file, branch in self._on_branches
            if (file.sequence, file.number) == key and file.title != title
        ]
        if others:
            # Before its last amend a branch may have had the number under another title, and its upstream still has.
            own_branches = git_history.list_own_branches(self._repo)
            others = [twin for twin in others if not twin.branch.endswith(own_branches)]
        return self._find_tree_twins(governed) + others


def _list_folder(repo: Repo, folder: str) -> list[str]:
    try:
        names = os.listdir(os.path.join(repo.top, folder))
    except OSError:
        return []
    return [folder + name for name in names[:_MAX_FOLDER_ENTRIES]]
