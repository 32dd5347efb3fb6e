"""Expected results of what owners and operators do in the web."""

from tests.proof.isolation import model_tools
from tests.proof.isolation.model import Invite, Participant, Participation, Project, Refused, Tenant


def list_projects(tenant: Tenant) -> list[Project]:
    """The projects in which an owner has or had participants."""
    return tenant.open_projects + [each for each in tenant.joined_projects if not each.is_purged]


def require_active(tenant: Tenant) -> None:
    """Refuse what costs or grants while the owner is suspended."""
    if tenant.is_suspended:
        raise Refused("suspended")


def lock(project: Project, *, grants: bool = True) -> None:
    """Refuse a grant in a project that is archived, or of an owner that is suspended."""
    if grants:
        require_active(project.tenant)
        if project.is_archived:
            raise Refused("forbidden")


def add_project(tenant: Tenant, name: str) -> None:
    require_active(tenant)
    if any(project.name == name for project in tenant.open_projects):
        raise Refused("conflict")


def rename_project(project: Project, name: str) -> bool:
    if project.name == name:
        return False
    if any(each.name == name for each in project.tenant.open_projects):
        raise Refused("conflict")
    project.name = name
    return True


def archive(project: Project) -> bool:
    changed = not project.is_archived
    project.is_archived = True
    if changed:
        project.share_links = dict.fromkeys(project.share_links, False)
    return changed


def reopen(project: Project) -> bool:
    require_active(project.tenant)
    changed = project.is_archived
    project.is_archived = False
    if changed:
        gone = [
            each for each in project.participations if each.is_removed or project.role(each.owner) in (None, "viewer")
        ]
        give_back(project, gone)
    return changed


def delete_project(project: Project) -> None:
    project.bill()
    project.is_purged = True
    project.tenant.webhooks -= project.webhooks


def create_participant(tenant: Tenant, label: str) -> Participant:
    require_active(tenant)
    if label == tenant.handle or tenant.find_participant(label) is not None:
        raise Refused("conflict")
    participant = Participant(tenant, 0, label, "agent", names={label})
    tenant.participants.append(participant)
    return participant


def rename_participant(tenant: Tenant, participant: Participant | None, label: str) -> bool:
    if participant is None or participant.is_removed or participant.label == "":
        raise Refused("not_found")
    if participant.label == label:
        return False
    holder = tenant.find_participant(label)
    if label == tenant.handle or holder not in (None, participant):
        raise Refused("conflict")
    for project in list_projects(tenant):
        is_there = model_tools.find_participation(project, participant, is_present=True) is not None
        if is_there and model_tools.is_handle_of_person(project, label):
            raise Refused("conflict")
    participant.label = label
    participant.names.add(label)
    return True


def remove_participant(tenant: Tenant, participant: Participant | None) -> None:
    if participant is None or participant.is_removed or participant.label == "":
        raise Refused("not_found")
    for project in list_projects(tenant):
        participation = model_tools.find_participation(project, participant, is_present=True)
        if participation is not None:
            remove_participation(project, participation)
    participant.is_removed = True


def get_token_holder(project: Project, participation: Participation | None, *, grants: bool = True) -> Participation:
    """Return a participation of the project that may have tokens."""
    lock(project, grants=grants)
    if participation is None or participation.project is not project or not participation.is_present:
        raise Refused("not_found")
    if participation.participant.label == "":
        raise Refused("forbidden")
    return participation


def remove_participation(project: Project, participation: Participation | None) -> None:
    end_participation(project, get_token_holder(project, participation, grants=False))


def end_participation(project: Project, removed: Participation) -> None:
    """Remove a participation, also the own one of a person."""
    give_back(project, [removed])
    for token in removed.tokens:
        token.is_live = False
    project.leave_lane(removed, removed.lane)
    removed.registered = None
    removed.is_removed = True
    project.end_unauthorized_invites(removed)


def get_own_token_holder(project: Project, participation: Participation | None) -> Participation:
    """As `get_token_holder`, but refuse participants of other owners, who alone give them tokens."""
    holder = get_token_holder(project, participation)
    if holder.owner is not project.tenant:
        raise Refused("forbidden")
    return holder


def set_admin(project: Project, participation: Participation | None, is_admin: bool) -> None:
    changed = get_token_holder(project, participation, grants=is_admin)
    if is_admin and changed.owner is not project.tenant:
        raise Refused("forbidden")
    changed.is_admin = is_admin
    project.end_unauthorized_invites(changed)


def give_back(project: Project, given: list[Participation]) -> None:
    """End the leases of participations and return their unfinished tasks, in an open project."""
    if project.is_archived:
        return
    for lease in sorted(project.leases.values(), key=lambda lease: lease.fence):
        if lease.holder in given:
            del project.leases[lease.holder, lease.surface]
            project.record_as(lease.holder, lease.actor, "release", surface=lease.surface)
    for task in project.tasks.values():
        if task.assignee in given and task.status in ("assigned", "in_progress", "blocked"):
            holder, name = task.assignee, task.owner
            task.status, task.assignee, task.owner, task.is_offered = "open", None, None, False
            project.record_as(holder, name or "", "task_requeue", task_id=task.id, owner=name)


def set_lane(project: Project, participation: Participation | None, lane: str | None) -> None:
    changed = get_token_holder(project, participation)
    if changed.granted_lane == lane:
        return
    if changed.registered is None:
        project.leave_lane(changed, changed.granted_lane)
    changed.granted_lane = lane
    if changed.registered is None:
        project.join_lane(changed, lane)


def revoke_token(project: Project, token_id: int) -> bool:
    found = (token for each in project.participations for token in each.tokens if token.id == token_id)
    if (token := next(found, None)) is None:
        raise Refused("not_found")
    changed = token.is_live
    token.is_live = False
    if changed:
        project.end_unauthorized_invites(token.participation)
    return changed


def create_invite(
    project: Project, name: str | None, participant: Participant | None, has_participant: bool, uses: int
) -> Invite:
    """An invite of the owner; `has_participant` says that an id was sent, of which the owner may have none."""
    if has_participant and (name is not None or uses != 1):
        raise Refused("invalid_argument")
    if name is not None and uses != 1:
        raise Refused("invalid_argument")
    if project.is_archived:
        raise Refused("forbidden")
    require_active(project.tenant)
    model_tools.check_invite(project, name, uses)
    kind = "agent"
    if has_participant:
        if participant is None or participant.is_removed or participant.label == "":
            raise Refused("not_found")
        name, kind = participant.label, participant.kind
    return Invite(0, "", name, participant, None, False, kind, uses, None)


def revoke_invite(project: Project, invite_id: int) -> bool:
    invite = project.invites.get(invite_id)
    if invite is None:
        raise Refused("not_found")
    changed = not invite.is_revoked
    invite.is_revoked = True
    return changed


def redeem(project: Project, invite: Invite, name: str) -> Participation:
    if project.is_purged or invite.is_revoked:
        raise Refused("not_found")
    if project.tenant.is_suspended:
        raise Refused("forbidden")
    if invite.used >= invite.uses:
        raise Refused("wrong_state")
    if not invite.is_authorized:
        raise Refused("not_found")
    lock(project)
    if invite.participant is None:
        joined = model_tools.join(
            project,
            invite.participant_name or name,
            kind=invite.kind,
            lane=invite.lane,
            is_admin=invite.is_admin,
            require_new=True,
        )
    else:
        if invite.participant.is_removed:
            raise Refused("not_found")
        present = model_tools.find_participation(project, invite.participant, is_present=True)
        if present is not None:
            joined = model_tools.issue_token(project, present)
        else:
            joined = model_tools.add_participant(project, invite.participant, invite.lane, invite.is_admin)
    invite.used += 1
    return joined


def add_credits(tenant: Tenant, amount: int, reference: str) -> None:
    if tenant.payments.setdefault(reference, amount) != amount:
        raise Refused("conflict")


def force_release(project: Project, owner: Participation, fence: int) -> bool:
    if fence not in project.fences:
        raise Refused("not_found")
    lease = next((each for each in project.leases.values() if each.fence == fence), None)
    if lease is None:
        return False
    del project.leases[lease.holder, lease.surface]
    project.record(owner, "release", surface=lease.surface, held_by=lease.actor, fence=fence)
    return True
