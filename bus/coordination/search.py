"""Search over all that an owner may see: names, numbers, references, and the texts of posts and tasks.

Each kind of match is read by an index, or from the owner's own rows, and is limited; so is the number of projects.
"""

import dataclasses
import re
from dataclasses import dataclass

from bus import limits
from bus.coordination import text_search
from bus.coordination.post_titles import TITLE_SQL
from bus.db import Connection
from bus.errors import InvalidArgument
from bus.rules import sequence_format, validation

MAX_PROJECTS = 50
MAX_HITS = 8
"""The largest number of matches of one kind."""
_MAX_EXCERPT_SOURCE = 2_000
_NUMBER_WITH_PREFIX = re.compile(r"(?P<prefix>.*?\D)0*(?P<number>\d{1,16})", re.DOTALL)
_TASK = re.compile(r"task\s*#?\s*(?P<number>\d{1,16})", re.IGNORECASE)
_EVENT = re.compile(r"#?(?P<number>\d{1,16})")


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A match.

    Attributes:
        kind: `project`, `participant`, `sequence`, `number`, `ref`, `event`, `task` or `post`.
        project_id, project_name: None for a participant, who may be in several.
        id: of the project, participant, event, task or post; None for the other kinds, whose name is the title.
        text: the beginning of a post or of a task's detail.
    """

    kind: str
    project_id: int | None
    project_name: str | None
    id: int | None
    title: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class SearchResults:
    """The matches: those by name or number, posts, and tasks; `error` says why a text was not searched."""

    named: list[SearchHit]
    posts: list[SearchHit]
    tasks: list[SearchHit]
    error: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing matches."""
        return not (self.named or self.posts or self.tasks)


def search(conn: Connection, owner_id: int, text: str, *, project_id: int | None = None) -> SearchResults:
    """Search the projects in which the owner has a role, the MAX_PROJECTS most recently active ones.

    Args:
        text: words, a part in quotes as a phrase; or a number, a reference, a name.
        project_id: only this project, and the owner's participants; one in which it has no role has no matches.
    """
    text = text.strip()
    try:
        validation.free_text(text, "text", limits.MAX_SEARCH_LENGTH)
    except InvalidArgument as refusal:
        return SearchResults([], [], [], refusal.message)
    projects = conn.fetch_all(
        "SELECT p.id, bus_project_name_for(%(owner)s, p.owner_id, p.name)"
        " FROM bus_projects_of(%(owner)s) mine JOIN project p ON p.id = mine.project_id"
        " JOIN project_clock c ON c.project_id = p.id WHERE p.purging_at IS NULL"
        " AND (%(project)s::bigint IS NULL OR p.id = %(project)s)"
        " ORDER BY c.last_at DESC, p.id DESC LIMIT %(limit)s",
        {"owner": owner_id, "project": project_id, "limit": MAX_PROJECTS},
    )
    # Names of other owners' projects are qualified, since two owners may have a project of one name.
    names = {int(id_): str(name) for id_, name in projects}
    ids = list(names)
    named = [
        *_qualify(_find_numbers(conn, ids, text), names),
        *_qualify(_find_refs(conn, ids, text), names),
        *_qualify(_find_by_id(conn, ids, text), names),
        *_qualify(_find_names(conn, owner_id, ids, text), names),
    ]
    try:
        text_search.validate(text)
    except InvalidArgument:
        # Signs without a word, such as a tag "!": only names can match.
        return SearchResults(named, [], [])
    return SearchResults(
        named,
        _qualify(_find_texts(conn, ids, text, "post", f"{TITLE_SQL}, o.body"), names),
        _qualify(_find_texts(conn, ids, text, "task", "o.title, coalesce(o.detail, '')"), names),
    )


def _qualify(hits: list[SearchHit], names: dict[int, str]) -> list[SearchHit]:
    return [
        hit if hit.project_id is None else dataclasses.replace(hit, project_name=names[hit.project_id]) for hit in hits
    ]


def _find_numbers(conn: Connection, project_ids: list[int], text: str) -> list[SearchHit]:
    """Claimed numbers such as `ADR-49`, `adr-0049`, or `adr 49` by the sequence's name."""
    match = _NUMBER_WITH_PREFIX.fullmatch(text)
    if match is None:
        return []
    number = int(match["number"])
    rows = conn.fetch_all(
        "SELECT s.project_id, p.name, s.prefix, s.pad FROM unnest(%(projects)s::bigint[]) AS own (id)"
        " JOIN sequence s ON s.project_id = own.id JOIN project p ON p.id = s.project_id"
        " WHERE s.prefix <> '' AND (lower(s.prefix) = lower(%(prefix)s) OR s.name = lower(btrim(%(prefix)s)))"
        " AND %(number)s BETWEEN 1 AND s.current ORDER BY s.project_id, s.name LIMIT %(limit)s",
        {"projects": project_ids, "prefix": match["prefix"], "number": number, "limit": MAX_HITS},
    )
    return [
        SearchHit("number", project_id, project, None, sequence_format.format_number(prefix, pad, number))
        for project_id, project, prefix, pad in rows
    ]


def _find_refs(conn: Connection, project_ids: list[int], text: str) -> list[SearchHit]:
    rows = conn.fetch_all(
        "SELECT p.id, p.name FROM unnest(%(projects)s::bigint[]) AS own (id) JOIN project p ON p.id = own.id"
        " WHERE EXISTS (SELECT FROM post o WHERE o.project_id = p.id AND o.ref = %(ref)s)"
        " OR EXISTS (SELECT FROM event e WHERE e.project_id = p.id AND e.type = 'task_ship'"
        "            AND e.payload ->> 'ref' = %(ref)s) LIMIT %(limit)s",
        {"projects": project_ids, "ref": text, "limit": MAX_HITS},
    )
    return [SearchHit("ref", project_id, project, None, text) for project_id, project in rows]


def _find_by_id(conn: Connection, project_ids: list[int], text: str) -> list[SearchHit]:
    """Tasks by `task 17`, events by `#184`; a bare number can be either."""
    hits = []
    task, event = _TASK.fullmatch(text), _EVENT.fullmatch(text)
    if task is not None or (event is not None and not text.startswith("#")):
        rows = conn.fetch_all(
            "SELECT t.project_id, p.name, t.id, t.title"
            " FROM unnest(%(projects)s::bigint[]) WITH ORDINALITY AS own (id, n)"
            " JOIN task t ON t.project_id = own.id AND t.id = %(id)s JOIN project p ON p.id = t.project_id"
            " ORDER BY own.n LIMIT %(limit)s",
            {"projects": project_ids, "id": int((task or event)["number"]), "limit": MAX_HITS},  # type: ignore[index]
        )
        hits += [SearchHit("task", project_id, project, id_, title) for project_id, project, id_, title in rows]
    if event is not None:
        rows = conn.fetch_all(
            "SELECT e.project_id, p.name, e.seq, e.type, o.id IS NOT NULL,"
            f" CASE WHEN o.id IS NOT NULL THEN {TITLE_SQL} END"
            " FROM unnest(%(projects)s::bigint[]) WITH ORDINALITY AS own (id, n)"
            " JOIN event e ON e.project_id = own.id AND e.seq = %(id)s JOIN project p ON p.id = e.project_id"
            " LEFT JOIN post o ON o.project_id = e.project_id AND o.id = e.seq ORDER BY own.n LIMIT %(limit)s",
            {"projects": project_ids, "id": int(event["number"]), "limit": MAX_HITS},
        )
        hits += [
            SearchHit("post" if is_post else "event", project_id, project, seq, title if is_post else type_)
            for project_id, project, seq, type_, is_post, title in rows
        ]
    return hits


def _find_names(conn: Connection, owner_id: int, project_ids: list[int], text: str) -> list[SearchHit]:
    """Projects, participants and sequences whose names contain the text."""
    params = {"owner": owner_id, "projects": project_ids, "text": text.lower(), "limit": MAX_HITS}
    projects = conn.fetch_all(
        "SELECT p.id, bus_project_name_for(%(owner)s, p.owner_id, p.name)"
        " FROM unnest(%(projects)s::bigint[]) WITH ORDINALITY AS own (id, n)"
        " JOIN project p ON p.id = own.id WHERE position(%(text)s IN lower(p.name)) > 0 ORDER BY own.n LIMIT %(limit)s",
        params,
    )
    participants = conn.fetch_all(
        "SELECT pt.id, pt.label FROM participant pt WHERE pt.owner_id = %(owner)s AND pt.removed_at IS NULL"
        " AND pt.label <> '' AND position(%(text)s IN lower(pt.label)) > 0 ORDER BY pt.label LIMIT %(limit)s",
        params,
    )
    sequences = conn.fetch_all(
        "SELECT s.project_id, p.name, s.name FROM unnest(%(projects)s::bigint[]) WITH ORDINALITY AS own (id, n)"
        " JOIN sequence s ON s.project_id = own.id JOIN project p ON p.id = own.id"
        " WHERE position(%(text)s IN s.name) > 0 ORDER BY own.n, s.name LIMIT %(limit)s",
        params,
    )
    return [
        *(SearchHit("project", id_, name, id_, name) for id_, name in projects),
        *(SearchHit("participant", None, None, id_, label) for id_, label in participants),
        *(SearchHit("sequence", project_id, project, None, name) for project_id, project, name in sequences),
    ]


def _find_texts(conn: Connection, project_ids: list[int], text: str, kind: str, columns: str) -> list[SearchHit]:
    rows = conn.fetch_all(
        f"SELECT m.project_id, p.name, m.id, {columns} FROM ("
        "  SELECT own.id AS project_id, s.id, s.rank FROM unnest(%(projects)s::bigint[]) AS own (id)"
        "  CROSS JOIN LATERAL bus_search_ranked(own.id, %(kind)s, %(text)s, %(limit)s) s"
        "  ORDER BY s.rank DESC, s.id DESC LIMIT %(limit)s) AS m"
        f" JOIN project p ON p.id = m.project_id JOIN {kind} o ON o.project_id = m.project_id AND o.id = m.id"
        " ORDER BY m.rank DESC, m.id DESC",
        {"projects": project_ids, "kind": kind, "text": text, "limit": MAX_HITS},
    )
    return [
        SearchHit(kind, project_id, project, id_, title, body[:_MAX_EXCERPT_SOURCE])
        for project_id, project, id_, title, body in rows
    ]
