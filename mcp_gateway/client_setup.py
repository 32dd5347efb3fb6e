"""Tool results that contain URLs or a token: issued participations and invites."""

from collections.abc import Callable, Mapping
from typing import Any

from bus import client_setup
from bus.client_setup import Endpoints
from bus.tenancy.invites import CreatedInvite
from bus.tenancy.participations import IssuedParticipation
from mcp_gateway.render import format_time


def render_setup(endpoints: Endpoints, issued: IssuedParticipation) -> dict[str, Any]:
    """Render the result of admin_provision and admin_rotate."""
    return {
        "project": issued.project,
        "participant": issued.participant,
        "kind": issued.kind,
        "lane": issued.lane,
        "is_admin": issued.is_admin,
        "token": issued.token,
        "setup": client_setup.build_setup(endpoints, issued.token),
    }


def render_invite(endpoints: Endpoints, created: CreatedInvite) -> dict[str, Any]:
    """Render the result of create_invite."""
    return {
        "code": created.code,
        "expires_at": format_time(created.expires_at),
        "redeem_url": client_setup.redeem_url(endpoints, created.code),
        "invite_prompt": client_setup.invite_prompt(endpoints, created.code, created.project, created.participant_name),
    }


RESULT_RENDERERS: Mapping[type, Callable[[Endpoints, Any], dict[str, Any]]] = {
    IssuedParticipation: render_setup,
    CreatedInvite: render_invite,
}
