"""Credentials that are shown once: a token, an invite code, a webhook secret, with instructions."""

import json
from typing import Any

from flask import render_template, url_for

from bus import agent_guide, client_setup
from bus.tenancy import tokens
from webapp.blueprints import OwnerBlueprint, no_store
from webapp.context import addresses, connection
from webapp.one_time_credentials import take_credentials
from webapp.token_connection import connection_values

blueprint = OwnerBlueprint("credentials", url_prefix="/admin/cards")


@blueprint.get("/<key>")
@no_store
def show(key: str) -> str:
    """Show credentials that an earlier POST stored, and delete them."""
    credentials = take_credentials(key)
    endpoints = addresses()
    if credentials["kind"] == "invite":
        code, project = credentials["code"], credentials["project"]
        return render_template(
            "credentials/invite.html",
            credentials=credentials,
            return_url=url_for(
                "memberships.index" if credentials.get("role") else "invites.index",
                project_id=credentials["project_id"],
            ),
            url=client_setup.redeem_url(endpoints, code),
            prompt=(
                client_setup.personal_invite_prompt(endpoints, code, project)
                if credentials["email"] or credentials.get("role")
                else client_setup.invite_prompt(endpoints, code, project, credentials["participant_name"])
            ),
        )
    if credentials["kind"] == "webhook":
        return_url = url_for("project_settings.index", project_id=credentials["project_id"])
        return render_template("credentials/webhook.html", credentials=credentials, return_url=return_url)
    if credentials["kind"] == "share_link":
        url = client_setup.shared_board_url(endpoints, credentials["token"])
        return_url = url_for("share_links.index", project_id=credentials["project_id"])
        return render_template("credentials/share_link.html", credentials=credentials, url=url, return_url=return_url)
    token = credentials["token"]
    return render_template(
        "credentials/token.html",
        credentials=credentials,
        **_connection_values(credentials),
        clients=client_setup.build_client_setups(endpoints, token),
        prompt=client_setup.connect_prompt(endpoints, token, credentials["project"], credentials["actor"]),
        config=json.dumps(client_setup.mcp_json_with_token(endpoints, token), indent=2),
        mcp_url=endpoints.mcp_url,
        kit=client_setup.kit_install_command(endpoints),
        rules=agent_guide.rules_summary(),
    )


def _connection_values(credentials: dict[str, Any]) -> dict[str, Any]:
    """The variables of the line that waits for the agent; none for a token of another owner's project."""
    project_id, participation_id = credentials["project_id"], credentials.get("participation_id")
    if project_id is None or participation_id is None:
        return {}
    with connection() as conn:
        use = tokens.find_use(conn, project_id, participation_id, credentials["token_id"])
    if use is None:
        return {}
    url = url_for(
        "project_participants.connection_status",
        project_id=project_id,
        participation_id=participation_id,
        token_id=credentials["token_id"],
    )
    return {"connection_url": url, **connection_values(use)}
