"""Answers that name an address or show a token: grants and invites."""

from collections.abc import Callable, Mapping
from typing import Any

from bus import client_setup
from bus.client_setup import Endpoints
from bus.tenancy.invites import CreatedInvite
from bus.tenancy.participations import IssuedParticipation
from mcp_gateway.render import format_time


def render_setup(addresses: Endpoints, grant: IssuedParticipation) -> dict[str, Any]:
    """The answer of admin_provision and admin_rotate."""
    return {
        "project": grant.project,
        "participant": grant.participant,
        "kind": grant.kind,
        "lane": grant.lane,
        "is_admin": grant.is_admin,
        "token": grant.token,
        "setup": client_setup.build_setup(addresses, grant.token),
    }


def render_invite(addresses: Endpoints, created: CreatedInvite) -> dict[str, Any]:
    """The answer of create_invite."""
    return {
        "code": created.code,
        "expires_at": format_time(created.expires_at),
        "redeem_url": client_setup.redeem_url(addresses, created.code),
        "invite_prompt": client_setup.invite_prompt(addresses, created.code, created.project, created.participant_name),
    }


RESULT_RENDERERS: Mapping[type, Callable[[Endpoints, Any], dict[str, Any]]] = {
    IssuedParticipation: render_setup,
    CreatedInvite: render_invite,
}
