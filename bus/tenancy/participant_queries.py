"""Reads of participants and participations: for tools as the caller, for owners by id."""

from dataclasses import dataclass
from datetime import datetime

from bus.ctx import Ctx
from bus.db import Connection
from bus.db.capped_count import capped_count
from bus.db.pagination import paginate
from bus.errors import NotFound
from bus.limits import MAX_INTEGER, MAX_QUALIFIED_NAME_LENGTH
from bus.rules import validation
from bus.tenancy.authentication import fetch_all_as_caller
from bus.tenancy.participation_queries import Participation

_LIVE_TOKENS = "FROM token t WHERE t.participation_id = p.id AND bus_token_is_live(t.revoked_at, t.expires_at)"
# A connected client counts once, without its access tokens.
_COUNTED_TOKENS = f"{_LIVE_TOKENS} AND t.parent_id IS NULL"

MAX_PEOPLE = 200
MAX_SUGGESTIONS = 50


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """The caller, its project and its current lane.

    Attributes:
        case_insensitive_paths: whether the paths of the project ignore case.
    """

    actor: str
    handle: str
    label: str
    project: str
    is_admin: bool
    lane: str | None
    unread: int
    case_insensitive_paths: bool


@dataclass(frozen=True, slots=True)
class ListedParticipant:
    """A participant of the caller's project; `token_active` is false where no live token exists for it."""

    name: str
    actor: str
    kind: str
    lane: str | None
    is_admin: bool
    token_active: bool
    last_seen: datetime | None


@dataclass(frozen=True, slots=True)
class ParticipantPage:
    """A page of participants, by name; `next_before` asks for the next page."""

    participants: list[ListedParticipant]
    next_before: str | None
    unread: int


@dataclass(frozen=True, slots=True)
class ParticipantSummary:
    """A participant of an owner.

    Attributes:
        label: empty for the owner's own participant, which acts under the handle.
        actor: the qualified name.
        project_count: in how many projects it is, capped at 1,000.
        last_seen: in any of them.
    """

    id: int
    label: str
    actor: str
    kind: str
    created_at: datetime
    removed_at: datetime | None
    project_count: int
    last_seen: datetime | None


@dataclass(frozen=True, slots=True)
class ParticipantProject:
    """A project that a participant is in; `lane` is the granted one."""

    participation_id: int
    project_id: int
    project: str
    is_archived: bool
    lane: str | None
    is_admin: bool
    live_token_count: int
    last_seen: datetime | None


@dataclass(frozen=True, slots=True)
class ParticipationDetail(Participation):
    """A participation as the owner sees it.

    Attributes:
        lane: the current lane: the one registered last, else `granted_lane`.
        status: the status that the participant registered last.
        is_active: whether it was seen within the project's presence window.
        live_token_count: capped at 100.
        unread_count: posts that it has not acknowledged, capped at 100.
    """

    project_id: int
    lane: str | None
    status: str
    last_seen: datetime | None
    is_active: bool
    live_token_count: int
    unread_count: int
    created_at: datetime


def whoami(conn: Connection, ctx: Ctx) -> CallerIdentity:
    """Return the caller's identity, project and lane."""
    return conn.fetch_one_as(
        CallerIdentity,
        "SELECT c.actor, o.handle, pt.label, pj.name AS project, c.is_admin, coalesce(pr.lane, c.lane) AS lane,"
        " pj.case_insensitive_paths, bus_unread(c.project_id, %(me)s) AS unread"
        " FROM bus_authenticate(%(me)s, %(token)s, false) c"
        " JOIN project pj ON pj.id = c.project_id JOIN owner o ON o.id = c.owner_id"
        " JOIN participant pt ON pt.id = c.participant_id"
        " LEFT JOIN presence pr ON pr.project_id = c.project_id AND pr.participation_id = %(me)s",
        {"me": ctx.participation_id, "token": ctx.token_id},
    )


def list_participants(conn: Connection, ctx: Ctx, *, before: str | None = None, limit: int = 200) -> ParticipantPage:
    """List the participants of the caller's project by name; `before` is the `next_before` of the page before."""
    if before is not None:
        validation.name(before, "before", MAX_QUALIFIED_NAME_LENGTH)
    validation.integer(limit, "limit", 1, 200)
    unread, rows = fetch_all_as_caller(
        conn,
        ctx,
        ListedParticipant,
        # The owner acts in the web, without a label and without a token.
        "SELECT named.name, bus_qualified_name(o.handle, pt.label) AS actor, pt.kind,"
        " coalesce(pr.lane, p.lane) AS lane, p.is_admin,"
        f" pt.label = '' OR EXISTS (SELECT {_LIVE_TOKENS}) AS token_active, pr.last_seen"
        " FROM participation p JOIN participant pt ON pt.id = p.participant_id JOIN owner o ON o.id = pt.owner_id"
        " CROSS JOIN LATERAL (SELECT bus_name_for((SELECT own.owner_id FROM participation me JOIN participant own"
        "  ON own.id = me.participant_id WHERE me.id = %(me)s), o.id, o.handle, pt.label) AS name) AS named"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE p.project_id = %(project)s AND p.removed_at IS NULL AND pt.removed_at IS NULL"
        " AND named.name > %(before)s ORDER BY named.name LIMIT %(limit)s",
        "r.name",
        before=before or "",
        limit=limit + 1,
    )
    page, has_more = paginate(rows, limit)
    return ParticipantPage(participants=list(page), next_before=page[-1].name if has_more else None, unread=unread)


_SUMMARY_SQL = """
    SELECT pt.id, pt.label, bus_qualified_name(o.handle, pt.label) AS actor, pt.kind,
           pt.created_at, pt.removed_at, joined.project_count, joined.last_seen
    FROM participant pt
    JOIN owner o ON o.id = pt.owner_id
    CROSS JOIN LATERAL (
        SELECT count(*) AS project_count, max(capped.last_seen) AS last_seen FROM (
            SELECT pr.last_seen FROM participation p
            JOIN project pj ON pj.id = p.project_id AND pj.purging_at IS NULL
            LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id
            WHERE p.participant_id = pt.id AND p.removed_at IS NULL LIMIT 1000) AS capped) AS joined
    WHERE pt.owner_id = %(owner)s
"""


def list_participant_summaries(
    conn: Connection, owner_id: int, *, before: int | None = None, limit: int = 50
) -> list[ParticipantSummary]:
    """List the participants of an owner, newest first, at most `limit`, with ids below `before`; removed ones too."""
    return conn.fetch_all_as(
        ParticipantSummary,
        f"{_SUMMARY_SQL} AND pt.id < %(before)s ORDER BY pt.id DESC LIMIT %(limit)s",
        {"owner": owner_id, "before": before or MAX_INTEGER, "limit": limit},
    )


def get_participant_summary(conn: Connection, owner_id: int, participant_id: int) -> ParticipantSummary:
    """Return one participant of an owner.

    Raises:
        BusError: `not_found` when the participant does not exist or belongs to another owner.
    """
    summary = conn.fetch_one_or_none_as(
        ParticipantSummary, f"{_SUMMARY_SQL} AND pt.id = %(id)s", {"owner": owner_id, "id": participant_id}
    )
    if summary is None:
        raise NotFound("participant")
    return summary


def list_participant_projects(
    conn: Connection, owner_id: int, participant_id: int, *, limit: int = 200
) -> list[ParticipantProject]:
    """List the projects that a participant of an owner is in, by id, at most `limit`."""
    return conn.fetch_all_as(
        ParticipantProject,
        "SELECT p.id AS participation_id, pj.id AS project_id, "
        " bus_project_name_for(pt.owner_id, pj.owner_id, pj.name) AS project,"
        " pj.archived_at IS NOT NULL AS is_archived, p.lane, p.is_admin,"
        f" (SELECT count(*) {_COUNTED_TOKENS}) AS live_token_count, pr.last_seen"
        " FROM participant pt JOIN participation p ON p.participant_id = pt.id AND p.removed_at IS NULL"
        " JOIN project pj ON pj.id = p.project_id AND pj.purging_at IS NULL"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE pt.id = %s AND pt.owner_id = %s ORDER BY pj.id LIMIT %s",
        (participant_id, owner_id, limit),
    )


def list_participants_outside_project(
    conn: Connection, owner_id: int, project_id: int, *, limit: int = 200
) -> list[tuple[int, str]]:
    """List the owner's participants that are not in a project: ids and labels, by label, at most `limit`."""
    rows = conn.fetch_all(
        "SELECT pt.id, pt.label FROM participant pt WHERE pt.owner_id = %s AND pt.removed_at IS NULL"
        " AND pt.label <> '' AND NOT EXISTS (SELECT FROM participation p WHERE p.participant_id = pt.id"
        "  AND p.project_id = %s AND p.removed_at IS NULL) ORDER BY pt.label LIMIT %s",
        (owner_id, project_id, limit),
    )
    return [(int(participant_id), str(label)) for participant_id, label in rows]


_DETAIL_SQL = f"""
    SELECT p.id, p.project_id, p.participant_id, bus_name_for(pj.owner_id, o.id, o.handle, pt.label) AS label,
           pt.owner_id, bus_qualified_name(o.handle, pt.label) AS actor, pt.kind, p.lane AS granted_lane,
           coalesce(pr.lane, p.lane) AS lane, coalesce(pr.status, '') AS status, p.is_admin, pr.last_seen,
           coalesce(pr.last_seen > clock_timestamp() - make_interval(secs => pj.presence_window_seconds), false)
               AS is_active,
           {capped_count(_COUNTED_TOKENS, 100)} AS live_token_count,
           bus_unread(p.project_id, p.id) AS unread_count, p.created_at
    FROM project pj
    JOIN participation p ON p.project_id = pj.id AND p.removed_at IS NULL
    JOIN participant pt ON pt.id = p.participant_id AND pt.removed_at IS NULL
    JOIN owner o ON o.id = pt.owner_id
    LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id
    WHERE pj.owner_id = %(owner)s AND pj.id = %(project)s AND pj.purging_at IS NULL
"""


def list_participation_details(
    conn: Connection, owner_id: int, project_id: int, *, before: int | None = None, limit: int = 50
) -> list[ParticipationDetail]:
    """List the participations of an owner's project, newest first, at most `limit`, with ids below `before`."""
    return conn.fetch_all_as(
        ParticipationDetail,
        f"{_DETAIL_SQL} AND p.id < %(before)s ORDER BY p.id DESC LIMIT %(limit)s",
        {"owner": owner_id, "project": project_id, "before": before or MAX_INTEGER, "limit": limit},
    )


def get_participation_detail(
    conn: Connection, owner_id: int, project_id: int, participation_id: int
) -> ParticipationDetail:
    """Return one participation of an owner's project.

    Raises:
        BusError: `not_found` when the participation does not exist or belongs to another owner's project.
    """
    detail = conn.fetch_one_or_none_as(
        ParticipationDetail,
        f"{_DETAIL_SQL} AND p.id = %(id)s",
        {"owner": owner_id, "project": project_id, "id": participation_id},
    )
    if detail is None:
        raise NotFound("participant in the project")
    return detail


@dataclass(frozen=True, slots=True)
class ConsentChoice:
    """A project in which a client may act, with one of its participants; `participation_id` is None if it has none."""

    project_id: int
    project: str
    participation_id: int | None
    label: str
    lane: str | None
    is_admin: bool


def list_consent_choices(conn: Connection, owner_id: int, *, limit: int = 500) -> list[ConsentChoice]:
    """List the open projects in which an owner acts with the owner's participants there, the newest projects first."""
    return conn.fetch_all_as(
        ConsentChoice,
        "SELECT pj.id AS project_id, bus_project_name_for(%(owner)s, pj.owner_id, pj.name) AS project,"
        " p.id AS participation_id, coalesce(pt.label, '') AS label, p.lane, coalesce(p.is_admin, false) AS is_admin"
        " FROM bus_projects_of(%(owner)s) mine JOIN project pj ON pj.id = mine.project_id"
        " LEFT JOIN (participation p JOIN participant pt ON pt.id = p.participant_id AND pt.removed_at IS NULL"
        "  AND pt.label <> '') ON p.project_id = pj.id AND p.removed_at IS NULL AND pt.owner_id = %(owner)s"
        " WHERE mine.role <> 'viewer' AND pj.archived_at IS NULL AND pj.purging_at IS NULL"
        " ORDER BY pj.id DESC, pt.label LIMIT %(limit)s",
        {"owner": owner_id, "limit": limit},
    )


def find_free_label(conn: Connection, owner_id: int, wanted: str) -> str:
    """Return a label that no participant of the owner has or had: the one that is wanted, or that with a number."""
    rows = conn.fetch_all(
        "SELECT label_key FROM participant_name WHERE owner_id = %s AND starts_with(label_key, %s) LIMIT 1000",
        (owner_id, validation.label_key(wanted)),
    )
    taken = {key for (key,) in rows}
    candidates = (wanted, *(f"{wanted}-{number}" for number in range(2, 1002)))
    return next((label for label in candidates if validation.label_key(label) not in taken), wanted)


def list_people(conn: Connection, project_id: int) -> list[str]:
    """List the qualified names of the participants of a project that are people; at most MAX_PEOPLE."""
    rows = conn.fetch_all(
        "SELECT bus_participation_name(p.id) FROM participation p JOIN participant pt ON pt.id = p.participant_id"
        " WHERE p.project_id = %s AND pt.kind = 'human' ORDER BY p.id LIMIT %s",
        (project_id, MAX_PEOPLE),
    )
    return [name for (name,) in rows]


@dataclass(frozen=True, slots=True)
class Suggestions:
    """What fields of forms suggest: names of participants and lanes, those that were active last first."""

    names: list[str]
    lanes: list[str]


def list_suggestions(conn: Connection, project_id: int, owner_id: int) -> Suggestions:
    """List the names and the lanes of the participants of a project, at most MAX_SUGGESTIONS of each.

    Args:
        owner_id: of the person who types: names of other owners' participants are qualified.
    """
    rows = conn.fetch_all(
        "SELECT bus_name_for(%s, o.id, o.handle, pt.label), coalesce(pr.lane, p.lane) FROM participation p"
        " JOIN participant pt ON pt.id = p.participant_id JOIN owner o ON o.id = pt.owner_id"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE p.project_id = %s AND p.removed_at IS NULL AND pt.removed_at IS NULL"
        # Who only views can neither acknowledge nor work.
        " AND bus_project_role(p.project_id, pt.owner_id) <> 'viewer'"
        " ORDER BY pr.last_seen DESC NULLS LAST, p.id LIMIT %s",
        (owner_id, project_id, MAX_SUGGESTIONS),
    )
    return Suggestions([name for name, _ in rows], list(dict.fromkeys(lane for _, lane in rows if lane)))
