"""References between objects of a project: what a text can link to, and which references recent posts have."""

import re
from dataclasses import dataclass
from datetime import datetime

from bus import limits
from bus.db import Connection
from bus.rules import ref_patterns
from bus.rules.ref_patterns import RefPattern

MAX_PREFIXES = 200
_MAX_RECENT_POSTS = 1_000
# The digits at the end, found in time that is linear in the length.
_NUMBER = re.compile(r"(?P<prefix>.*\D)0*(?P<number>\d+)", re.DOTALL)
_MAX_DIGITS = 16


@dataclass(frozen=True, slots=True)
class SequencePrefix:
    """The prefix of a sequence's numbers, and its last number."""

    sequence: str
    prefix: str
    last_number: int


@dataclass(frozen=True, slots=True)
class LinkTargets:
    """What the texts of a project can link to.

    Attributes:
        patterns: its patterns of references.
        prefixes: the sequences that have a prefix, at most MAX_PREFIXES.
        last_event, last_task: the highest number of an event and of a task.
    """

    patterns: tuple[RefPattern, ...] = ()
    prefixes: tuple[SequencePrefix, ...] = ()
    last_event: int = 0
    last_task: int = 0

    def find_number(self, text: str) -> tuple[str, int] | None:
        """Return sequence and number that a text such as `ADR-49` or `ADR-0049` names, or None."""
        match = _NUMBER.fullmatch(text)
        if match is None or len(match["number"]) > _MAX_DIGITS:
            return None
        number = int(match["number"])
        for known in self.prefixes:
            if known.prefix == match["prefix"] and 0 < number <= known.last_number:
                return known.sequence, number
        return None

    def find_address(self, ref: str) -> str | None:
        """Return the address of a reference; see bus/rules/ref_patterns.py."""
        return ref_patterns.resolve(self.patterns, ref)


@dataclass(frozen=True, slots=True)
class RecentRef:
    """A reference of recent posts, how many of them have it, and the time of the last one."""

    ref: str
    post_count: int
    last_at: datetime


def get_link_targets(conn: Connection, project_id: int) -> LinkTargets:
    """Return what the texts of a project can link to."""
    row = conn.fetch_one_or_none(
        "SELECT p.ref_patterns, c.last_seq, c.last_task,"
        " ARRAY(SELECT jsonb_build_array(s.name, s.prefix, s.current) FROM sequence s"
        "       WHERE s.project_id = p.id AND s.prefix <> '' ORDER BY s.name LIMIT %(limit)s)"
        " FROM project p JOIN project_clock c ON c.project_id = p.id WHERE p.id = %(project)s",
        {"project": project_id, "limit": MAX_PREFIXES},
    )
    if row is None:
        return LinkTargets()
    patterns, last_event, last_task, prefixes = row
    return LinkTargets(
        patterns=tuple(RefPattern(pattern, address) for pattern, address in patterns),
        prefixes=tuple(SequencePrefix(name, prefix, current) for name, prefix, current in prefixes),
        last_event=last_event,
        last_task=last_task,
    )


def list_recent_refs(conn: Connection, project_id: int) -> list[RecentRef]:
    """List the references of the newest 1,000 posts, the last used first; at most 50."""
    return conn.fetch_all_as(
        RecentRef,
        "SELECT recent.ref, count(*) AS post_count, max(recent.created_at) AS last_at"
        " FROM (SELECT o.id, o.ref, o.created_at FROM post o WHERE o.project_id = %s"
        "  ORDER BY o.id DESC LIMIT %s) AS recent"
        " WHERE recent.ref IS NOT NULL GROUP BY recent.ref ORDER BY max(recent.id) DESC LIMIT 50",
        (project_id, _MAX_RECENT_POSTS),
    )


def is_path(text: str) -> bool:
    """Whether a reference can be a path of the repository, which leases may cover."""
    return (
        "/" in text
        and "://" not in text
        and not any(character.isspace() for character in text)
        and len(text) <= (limits.MAX_SURFACE_LENGTH)
    )
