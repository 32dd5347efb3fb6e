"""Expected results of what owners with a role do with the people and the participants of a project."""

from tests.proof.isolation import model_acts, model_tools
from tests.proof.isolation.model import Participation, PersonInvite, Project, Refused, Tenant

_ROLES = ("viewer", "member", "lead")
_MANAGED_ROLES = {"owner": ("viewer", "member", "lead"), "lead": ("viewer", "member")}


def managed_roles(project: Project, tenant: Tenant) -> tuple[str, ...]:
    """The roles that an owner gives, changes and takes away in a project."""
    return _MANAGED_ROLES.get(project.role(tenant) or "", ())


def lock_as_member(project: Project, acting: Tenant) -> None:
    """Refuse a grant to an owner without a role that acts, and as `model_acts.lock` does."""
    role = project.role(acting)
    if role is None:
        raise Refused("not_found")
    if role == "viewer":
        raise Refused("forbidden")
    model_acts.require_active(acting)
    model_acts.lock(project)


def create_invite(project: Project, role: str, acting: Tenant) -> None:
    lock_as_member(project, acting)
    if role not in managed_roles(project, acting):
        raise Refused("forbidden")


def revoke_invite(project: Project, invite_id: int, acting: Tenant) -> bool:
    invite = project.person_invites.get(invite_id)
    if invite is None or project.role(acting) is None:
        raise Refused("not_found")
    if invite.role not in managed_roles(project, acting):
        raise Refused("forbidden")
    _refuse_suspended_lead(project, acting)
    changed = not invite.is_revoked
    invite.is_revoked = True
    return changed


def accept(project: Project, invite: PersonInvite | None, acceptor: Tenant, email: str) -> int:
    if invite is None or invite.is_revoked:
        raise Refused("not_found")
    if invite.email not in (None, email):
        raise Refused("forbidden")
    if project.role(acceptor) is not None:
        return project.id
    if project.tenant.is_suspended:
        raise Refused("forbidden")
    if invite.is_used:
        raise Refused("wrong_state")
    if not project.is_invite_authorized(invite):
        raise Refused("not_found")
    model_acts.require_active(acceptor)
    if project.is_archived:
        raise Refused("forbidden")
    if any(each.is_present and acceptor.handle in each.participant.names for each in project.participations):
        raise Refused("conflict")
    invite.is_used = True
    project.roles[acceptor] = invite.role
    project.former_people.add(acceptor)
    if project not in acceptor.joined_projects:
        acceptor.joined_projects.append(project)
    person = next(each for each in acceptor.participants if each.label == "")
    own = model_tools.find_participation(project, person)
    if own is None:
        own = Participation(0, project, person)
        project.participations.append(own)
    own.is_removed, own.is_admin = False, invite.role == "lead"
    return project.id


def set_role(project: Project, of: Tenant, role: str, acting: Tenant) -> bool:
    present = _require_managed(project, of, acting)
    if role not in managed_roles(project, acting):
        raise Refused("forbidden")
    if role == present:
        return False
    if _ROLES.index(role) > _ROLES.index(present):
        model_acts.require_active(of)
        model_acts.lock(project)
    project.roles[of] = role
    own, agents = _list_participations(project, of)
    if role == "viewer":
        model_acts.give_back(project, [own])
        for each in agents:
            model_acts.end_participation(project, each)
    own.is_admin = role == "lead"
    project.end_unauthorized_person_invites(of)
    return True


def remove(project: Project, of: Tenant, acting: Tenant) -> None:
    _require_managed(project, of, acting)
    own, agents = _list_participations(project, of)
    del project.roles[of]
    for each in (*agents, own):
        model_acts.end_participation(project, each)
    project.end_unauthorized_person_invites(of)


def require_authority(project: Project, participation: Participation, acting: Tenant) -> None:
    """Refuse an act on a participant unless it is of the acting owner, or of an owner whose role it manages."""
    if project.role(acting) is None:
        raise Refused("not_found")
    if participation.owner is acting or acting is project.tenant:
        return
    if project.role(participation.owner) not in managed_roles(project, acting):
        raise Refused("forbidden")
    _refuse_suspended_lead(project, acting)


def get_own_agent(project: Project, participation: Participation | None, acting: Tenant) -> Participation:
    """Return a participation to which the acting owner may give tokens."""
    lock_as_member(project, acting)
    holder = model_acts.get_token_holder(project, participation, grants=False)
    if holder.owner is not acting:
        raise Refused("forbidden")
    return holder


def _require_managed(project: Project, of: Tenant, acting: Tenant) -> str:
    role = project.role(of)
    if project.role(acting) is None or role is None:
        raise Refused("not_found")
    if role == "owner":
        raise Refused("forbidden")
    if of is not acting:
        if role not in managed_roles(project, acting):
            raise Refused("forbidden")
        _refuse_suspended_lead(project, acting)
    return role


def _refuse_suspended_lead(project: Project, acting: Tenant) -> None:
    if acting is not project.tenant and acting.is_suspended:
        raise Refused("suspended")


def _list_participations(project: Project, tenant: Tenant) -> tuple[Participation, list[Participation]]:
    """The own participation of a member, and those of its agents in a project."""
    present = [each for each in project.participations if each.owner is tenant and each.is_present]
    own = project.own_participation(tenant)
    return own, [each for each in present if each is not own]
