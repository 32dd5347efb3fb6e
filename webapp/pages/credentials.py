"""What is shown once: a token, the code of an invite, the secret of a webhook, with how to use it."""

import json

from flask import render_template, url_for

from bus import agent_guide, client_setup
from webapp.blueprints import OwnerBlueprint, no_store
from webapp.context import addresses
from webapp.forms import take_credentials

blueprint = OwnerBlueprint("credentials", url_prefix="/admin/cards")


@blueprint.get("/<key>")
@no_store
def show(key: str) -> str:
    """The card that was made by the POST before. Looking at it uses it up; nothing is ever minted here."""
    content = take_credentials(key)
    where = addresses()
    if content["kind"] == "invite":
        return render_template(
            "credentials/invite.html",
            credentials=content,
            return_url=url_for("invites.index", project_id=content["project_id"]),
            url=client_setup.redeem_url(where, content["code"]),
            prompt=(
                client_setup.personal_invite_prompt(where, content["code"], content["project"])
                if content["email"]
                else client_setup.invite_prompt(where, content["code"], content["project"], content["participant_name"])
            ),
        )
    if content["kind"] == "webhook":
        back = url_for("project_settings.index", project_id=content["project_id"])
        return render_template("credentials/webhook.html", credentials=content, return_url=back)
    token = content["token"]
    return render_template(
        "credentials/token.html",
        credentials=content,
        clients=client_setup.build_client_setups(where, token),
        prompt=client_setup.connect_prompt(where, token, content["project"], content["actor"]),
        config=json.dumps(client_setup.mcp_json_with_token(where, token), indent=2),
        mcp_url=where.mcp_url,
        kit=client_setup.kit_install_command(where),
        rules=agent_guide.rules_summary(),
    )
