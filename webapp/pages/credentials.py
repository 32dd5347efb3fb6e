"""What is shown once: a token, the code of an invite, the secret of a webhook, with how to use it."""

import json

from flask import render_template, url_for

from bus import agent_guide, client_setup
from webapp.blueprints import Pages, no_store
from webapp.context import addresses
from webapp.forms import take_card

pages = Pages("cards", prefix="/admin/cards")


@pages.get("/<key>")
@no_store
def show(key: str) -> str:
    """The card that was made by the POST before. Looking at it uses it up; nothing is ever minted here."""
    content = take_card(key)
    where = addresses()
    if content["kind"] == "invite":
        return render_template(
            "cards/invite.html",
            card=content,
            back=url_for("invites.index", project_id=content["project_id"]),
            url=client_setup.redeem_url(where, content["code"]),
            prompt=(
                client_setup.mail_prompt(where, content["code"], content["project"])
                if content["email"]
                else client_setup.invite_prompt(where, content["code"], content["project"], content["participant_name"])
            ),
        )
    if content["kind"] == "webhook":
        back = url_for("project_settings.index", project_id=content["project_id"])
        return render_template("cards/webhook.html", card=content, back=back)
    token = content["token"]
    return render_template(
        "cards/token.html",
        card=content,
        clients=client_setup.clients(where, token),
        prompt=client_setup.connect_prompt(where, token, content["project"], content["actor"]),
        config=json.dumps(client_setup.token_json(where, token), indent=2),
        mcp_url=where.mcp,
        kit=client_setup.kit_command(where),
        rules=agent_guide.summary(),
    )
