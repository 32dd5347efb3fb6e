"""Answers that name an address or show a token: grants and invites."""

from collections.abc import Callable, Mapping
from typing import Any

from bus import client_setup
from bus.client_setup import Addresses
from bus.tenancy.invites import Created
from bus.tenancy.participations import Grant
from mcp_gateway.render import iso


def setup_card(addresses: Addresses, grant: Grant) -> dict[str, Any]:
    """The answer of admin_provision and admin_rotate."""
    return {
        "project": grant.project,
        "participant": grant.participant,
        "kind": grant.kind,
        "lane": grant.lane,
        "is_admin": grant.is_admin,
        "token": grant.token,
        "setup": client_setup.setup(addresses, grant.token),
    }


def invite_card(addresses: Addresses, created: Created) -> dict[str, Any]:
    """The answer of create_invite."""
    return {
        "code": created.code,
        "expires_at": iso(created.expires_at),
        "redeem_url": client_setup.redeem_url(addresses, created.code),
        "invite_prompt": client_setup.invite_prompt(addresses, created.code, created.project, created.participant_name),
    }


RENDERERS: Mapping[type, Callable[[Addresses, Any], dict[str, Any]]] = {
    Grant: setup_card,
    Created: invite_card,
}
