"""Expected results of the tools of sequences, leases, identity and administration."""

from typing import Any

from bus.rules.surfaces import modes_contend, overlaps
from tests.proof.isolation.model import (
    Caller,
    Invite,
    Lease,
    Participant,
    Participation,
    Project,
    Refused,
    Sequence,
    Tenant,
    Token,
)

Content = dict[str, Any]


def claim(
    project: Project, caller: Caller, sequence: str, note: str | None = None, idempotency_key: str | None = None
) -> Content:
    me = project.authenticate(caller, is_write=True)
    stored = project.find_result(me, idempotency_key, ("claim", sequence, note))
    if stored is not None:
        return stored
    row = project.sequences.setdefault(sequence, Sequence(0))
    row.current += 1
    row.claimed = (row.current, row.format(row.current), me.actor)
    content = {"sequence": sequence, "number": row.current, "formatted": row.claimed[1], "note": note}
    project.record(me, "claim", **content)
    project.store_result(me, idempotency_key, ("claim", sequence, note), content)
    return content


def seed_sequence(
    project: Project, caller: Caller, sequence: str, current: int, prefix: str | None = None, pad: int | None = None
) -> Content:
    me = project.authenticate(caller, is_write=True)
    row = project.sequences.get(sequence)
    if row is not None and current < row.current:
        raise Refused("conflict")
    new_prefix = prefix if prefix is not None else row.prefix if row else ""
    new_pad = pad if pad is not None else row.pad if row else 0
    content = {"sequence": sequence, "current": current, "prefix": new_prefix, "pad": new_pad}
    if row is not None:
        if (current, new_prefix, new_pad) == (row.current, row.prefix, row.pad):
            return content
        if not me.is_admin:
            raise Refused("forbidden")
    row = project.sequences.setdefault(sequence, Sequence(0))
    row.current, row.prefix, row.pad = current, new_prefix, new_pad
    project.record(me, "seed", **content)
    return content


def latest_claims(project: Project, caller: Caller, before: str | None = None) -> Content:
    project.authenticate(caller)
    return {
        "sequences": [
            {"sequence": name, "number": row.claimed[0], "formatted": row.claimed[1], "by": row.claimed[2]}
            for name, row in sorted(project.sequences.items())
            if row.claimed and name > (before or "")
        ],
        "next_before": None,
    }


def list_sequences(project: Project, caller: Caller, before: str | None = None) -> Content:
    project.authenticate(caller)
    return {
        "sequences": [
            {
                "name": name,
                "prefix": row.prefix,
                "pad": row.pad,
                "last_used": row.current,
                "next": row.current + 1,
                "next_formatted": row.format(row.current + 1),
            }
            for name, row in sorted(project.sequences.items())
            if name > (before or "")
        ],
        "next_before": None,
    }


def lease(project: Project, caller: Caller, surface: str, note: str | None = None, mode: str = "exclusive") -> Content:
    me = project.authenticate(caller, is_write=True)
    others = sorted(
        (
            held
            for held in project.leases.values()
            if held.holder is not me and modes_contend(mode, held.mode) and overlaps(surface, held.surface)
        ),
        key=lambda held: held.fence,
    )
    mine = project.leases.get((me, surface))
    is_renewed = mine is not None and mine.mode == mode
    if mine is not None and is_renewed:
        mine.note = note or mine.note
    else:
        if mine is not None:
            project.record(me, "release", surface=surface)
        fence = len(project.events) + 1
        project.fences.add(fence)
        project.record(me, "lease", surface=surface, ttl_seconds=1800, mode=mode, fence=fence, contended=len(others))
        mine = project.leases[me, surface] = Lease(me, me.actor, surface, mode, note, fence)
    return {
        "lease_id": mine.fence,
        "surface": surface,
        "fence": mine.fence,
        "renewed": is_renewed,
        "others": [
            {"actor": held.actor, "surface": held.surface} | ({"note": held.note} if held.note else {})
            for held in others
        ],
    }


def release(project: Project, caller: Caller, surface: str) -> Content:
    me = project.authenticate(caller, is_write=True)
    held = [each for each in project.leases.values() if each.holder is me and surface in ("*", each.surface)]
    for each in sorted(held, key=lambda each: each.fence):
        del project.leases[me, each.surface]
        project.record(me, "release", surface=each.surface)
    return {"released": len(held)}


def who_holds(project: Project, caller: Caller, surface: str | None = None, before: int | None = None) -> Content:
    project.authenticate(caller)
    return {
        "leases": [
            {"surface": held.surface, "actor": held.actor, "note": held.note, "fence": held.fence}
            | ({} if held.mode == "exclusive" else {"mode": held.mode})
            for held in sorted(project.leases.values(), key=lambda held: -held.fence)
            if (surface is None or overlaps(surface, held.surface)) and (before is None or held.fence < before)
        ],
        "next_before": None,
    }


def whoami(project: Project, caller: Caller) -> Content:
    me = project.authenticate(caller)
    content = {
        "actor": me.actor,
        "handle": me.owner.handle,
        "label": me.participant.label,
        "project": project.name,
        "is_admin": me.is_admin,
        "lane": me.lane,
        "unread": project.unread(me),
    }
    return content | {"case_insensitive_paths": True} if project.ignores_case else content


def list_participants(project: Project, caller: Caller, before: str | None = None) -> Content:
    viewer = project.authenticate(caller).owner
    present = sorted(
        (each for each in project.participations if each.is_present), key=lambda each: each.name_for(viewer)
    )
    return {
        "participants": [
            {
                "name": each.name_for(viewer),
                "actor": each.actor,
                "kind": each.participant.kind,
                "lane": each.lane,
                "is_admin": each.is_admin,
                "token_active": each.participant.label == "" or each.has_live_token,
            }
            for each in present
            if each.name_for(viewer) > (before or "")
        ],
        "next_before": None,
    }


def admin_provision(
    project: Project,
    caller: Caller,
    participant_name: str,
    kind: str | None = None,
    lane: str | None = None,
    is_admin: bool = False,
) -> Content:
    authorize_admin(project, caller)
    joined = join(project, participant_name, kind=kind, lane=lane, is_admin=is_admin)
    return render_issued(joined)


def admin_rotate(project: Project, caller: Caller, participant_name: str) -> Content:
    authorize_admin(project, caller)
    participation = get_token_holder(project, participant_name)
    if participation.owner is not project.tenant:
        raise Refused("forbidden")
    return render_issued(rotate(project, participation))


def admin_revoke(project: Project, caller: Caller, participant_name: str) -> Content:
    authorize_admin(project, caller)
    participation = get_token_holder(project, participant_name)
    count = revoke_all(project, participation)
    return {"project": project.name, "participant": participation.name_for(project.tenant), "revoked": count}


def create_invite(
    project: Project,
    caller: Caller,
    participant_name: str | None = None,
    lane: str | None = None,
    is_admin: bool = False,
    uses: int = 1,
) -> Content:
    authorize_admin(project, caller)
    check_invite(project, participant_name, uses)
    project.invites[0] = Invite(0, "", participant_name, None, lane, is_admin, "agent", uses, caller)
    return {}


def authorize_admin(project: Project, caller: Caller) -> None:
    """Refuse callers that are not project-admin."""
    if not project.authenticate(caller, is_write=True).is_admin:
        raise Refused("forbidden")


def check_invite(project: Project, participant_name: str | None, uses: int) -> None:
    """Refuse an invite for one name with several uses, or for a name that is taken."""
    if participant_name is not None and uses != 1:
        raise Refused("invalid_argument")
    is_taken = participant_name is not None and project.tenant.find_participant(participant_name) is not None
    if is_taken or (participant_name is not None and is_handle_of_person(project, participant_name)):
        raise Refused("conflict")


def get_token_holder(project: Project, name: str) -> Participation:
    """As find_present, but refuse the owner's own participation."""
    participation = project.find_present(name, project.tenant)
    if participation.participant.label == "":
        raise Refused("forbidden")
    return participation


def is_handle_of_person(project: Project, label: str) -> bool:
    """Whether a label is the handle of an owner that has or had a role in the project."""
    return label in (project.tenant.handle, *(tenant.handle for tenant in project.former_people))


def join(
    project: Project,
    name: str,
    *,
    host: Tenant | None = None,
    kind: str | None = None,
    lane: str | None = None,
    is_admin: bool = False,
    require_new: bool = False,
) -> Participation:
    """Add a participant, new or existing; its token and ids are learned from the answer.

    Args:
        host: whose participant it is; the project's owner by default.
    """
    host = host or project.tenant
    handle, _, label = name.rpartition("/")
    if handle not in ("", host.handle):
        raise Refused("invalid_argument")
    if label == host.handle:
        raise Refused("conflict")
    participant = host.find_participant(label)
    if participant is None:
        participant = Participant(host, 0, label, kind or "agent", names={label})
    else:
        is_taken = participant.is_removed or participant.label != label or require_new
        if is_taken or find_participation(project, participant, is_present=True) is not None:
            raise Refused("conflict")
    if is_admin and host is not project.tenant:
        raise Refused("forbidden")
    refuse_handle(project, participant)
    if participant not in host.participants:
        host.participants.append(participant)
    return add_participant(project, participant, lane, is_admin)


def refuse_handle(project: Project, participant: Participant) -> None:
    """Refuse a participant whose label is the handle of a person in the project."""
    if is_handle_of_person(project, participant.label):
        raise Refused("conflict")


def add_participant(project: Project, participant: Participant, lane: str | None, is_admin: bool) -> Participation:
    """Add a participant that is not in the project, and issue a token."""
    refuse_handle(project, participant)
    participation = find_participation(project, participant)
    if participation is None:
        participation = Participation(0, project, participant)
        project.participations.append(participation)
    participation.is_removed = False
    participation.granted_lane, participation.is_admin = lane, is_admin
    return issue_token(project, participation)


def find_participation(project: Project, participant: Participant, *, is_present: bool = False) -> Participation | None:
    """Return the participation of a participant, also a removed one unless `is_present`."""
    matches = (each for each in project.participations if each.participant is participant)
    return next((each for each in matches if each.is_present or not is_present), None)


def issue_token(project: Project, participation: Participation) -> Participation:
    """Add a live token, whose text is learned from the answer; the participation is in its lane again."""
    token = Token(participation, "", 0)
    participation.tokens.append(token)
    participation.owner.tokens.append(token)
    project.join_lane(participation, participation.lane)
    return participation


def rotate(project: Project, participation: Participation) -> Participation:
    """Replace all tokens by a new one."""
    for token in participation.tokens:
        token.is_live = False
    issue_token(project, participation)
    project.end_unauthorized_invites(participation)
    return participation


def revoke_all(project: Project, participation: Participation) -> int:
    """Revoke all tokens; return how many were live."""
    count = sum(token.is_live for token in participation.tokens)
    for token in participation.tokens:
        token.is_live = False
    if count:
        project.end_unauthorized_invites(participation)
    return count


def render_issued(participation: Participation) -> Content:
    """Render the result of admin_provision and admin_rotate, without its secrets."""
    return {
        "project": participation.project.name,
        "participant": participation.participant.label,
        "kind": participation.participant.kind,
        "lane": participation.granted_lane,
        "is_admin": participation.is_admin,
    }
