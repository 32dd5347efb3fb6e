"""The line that says whether an agent has connected with a token, on the page of the token and by itself."""

from typing import Any

from markupsafe import Markup, escape

from bus import agent_guide, client_setup
from bus.tenancy.tokens import TokenUse


def connection_values(use: TokenUse) -> dict[str, Any]:
    """The variables of templates/project_participants/_connection.html."""
    return {"use": use, "client_name": client_setup.client_name(use.client), "prompts": agent_guide.FIRST_PROMPTS}


def mark_secret(text: str, secret: str) -> Markup:
    """Escape a text and mark each occurrence of a secret, which the style sheet blurs until it is to be shown."""
    return Markup('<span class="secret">{}</span>').format(secret).join(escape(part) for part in text.split(secret))
