"""What an import found in the data that it read: damage, and values that had to change."""

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A kind of damage or change.

    Attributes:
        project: the project as `owner/name`; empty where it concerns an owner.
        problem: what was found, and what the import did with it.
        count: how often.
        example: the first case.
    """

    project: str
    problem: str
    count: int
    example: str


class Findings:
    """Counts findings by project and problem.

    Attributes:
        project: the project that is being imported.
        left_out: how many rows of each kind its completion leaves out.
    """

    def __init__(self) -> None:
        self.project = ""
        self.left_out: Counter[str] = Counter()
        self._findings: dict[tuple[str, str], Finding] = {}

    def add(self, problem: str, example: object, count: int = 1) -> None:
        """Count one finding of the current project."""
        key = self.project, problem
        before = self._findings.get(key)
        if before is None:
            self._findings[key] = Finding(self.project, problem, count, str(example)[:100])
        else:
            self._findings[key] = Finding(*key, before.count + count, before.example)

    def list_all(self) -> list[Finding]:
        """Return the findings in the order in which they were first made."""
        return list(self._findings.values())
