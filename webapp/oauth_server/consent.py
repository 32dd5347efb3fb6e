"""What a client may be let do: the choices of the consent page, and the consent that follows from them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from flask_wtf import FlaskForm
from wtforms import SelectChoice, SelectField
from wtforms.validators import InputRequired

from bus import limits
from bus.db import Connection
from bus.tenancy import client_grants, oauth_clients, participant_queries
from bus.tenancy.client_grants import ConsentRequest
from bus.tenancy.oauth_clients import OAuthClient
from bus.tenancy.owners import Owner
from bus.tenancy.participant_queries import ConsentChoice
from webapp.forms import optional_text_field, select_choices

_NEW = "new-"
_MAX_SUGGESTION_LENGTH = 40


class ConsentForm(FlaskForm):  # type: ignore[misc]
    """As whom a client acts, and for how long."""

    target = SelectField("Acts as", validators=[InputRequired()])
    name = optional_text_field("Name, if new", limits.MAX_LABEL_LENGTH)
    lane = optional_text_field("Lane, if new", limits.MAX_LABEL_LENGTH)
    lives = SelectField(
        "Access ends",
        choices=select_choices(
            ("", "after 30 days without use"),
            ("1", "after 1 day"),
            ("7", "after 7 days"),
            ("30", "after 30 days"),
            ("90", "after 90 days"),
        ),
        default="",
    )


@dataclass(frozen=True)
class ConsentOptions:
    """The choices of an owner.

    Attributes:
        lanes: of the participants, for suggestions.
    """

    choices: Sequence[SelectChoice]
    default_target: str
    default_name: str
    lanes: Sequence[str]


def find_options(conn: Connection, owner: Owner, client: OAuthClient) -> ConsentOptions:
    """Return the choices of an owner; the participant as which the client acted before is preselected."""
    rows = participant_queries.list_consent_choices(conn, owner.id)
    connected = client_grants.list_connected(conn, owner.id)
    before = next((str(known.participation_id) for known in connected if known.client_id == client.client_id), None)
    choices = list(_build_choices(rows))
    values = [choice.value for choice in choices]
    return ConsentOptions(
        choices,
        before if before is not None and before in values else next(iter(values), ""),
        participant_queries.find_free_label(conn, owner.id, _suggest_label(client.name)),
        sorted({row.lane for row in rows if row.lane}),
    )


def _build_choices(rows: Sequence[ConsentChoice]) -> Sequence[SelectChoice]:
    choices: list[SelectChoice] = []
    seen: set[int] = set()
    for row in rows:
        if row.project_id not in seen:
            seen.add(row.project_id)
            choices.append(SelectChoice(f"{_NEW}{row.project_id}", f"a new participant in {row.project}"))
        if row.participation_id is not None:
            facts = (f"lane {row.lane}" if row.lane else "", "project-admin" if row.is_admin else "")
            described = ", ".join((f"{row.label} in {row.project}", *filter(None, facts)))
            choices.append(SelectChoice(str(row.participation_id), described))
    return choices


def _suggest_label(client_name: str) -> str:
    words = re.findall(r"[a-z0-9]+", client_name.lower())
    return "-".join(words)[:_MAX_SUGGESTION_LENGTH].strip("-") or "agent"


def record(
    conn: Connection,
    owner: Owner,
    client: OAuthClient,
    form: ConsentForm,
    redirect_uri: str,
    resource: str,
    challenge: str,
) -> str:
    """Record the consent of an owner; return the authorization code.

    Raises:
        BusError: as `client_grants.connect_participant` and `connect_new_participant`.
    """
    request = ConsentRequest(client.client_id, client.name, redirect_uri, resource, challenge)
    ttl = timedelta(days=int(form.lives.data)) if form.lives.data else None
    oauth_clients.keep(conn, client)
    if not form.target.data.startswith(_NEW):
        return client_grants.connect_participant(
            conn, owner.id, int(form.target.data), request, ttl=ttl, actor=owner.handle
        )
    return client_grants.connect_new_participant(
        conn,
        owner.id,
        int(form.target.data.removeprefix(_NEW)),
        form.name.data,
        form.lane.data,
        request,
        ttl=ttl,
        actor=owner.handle,
    )


def names_new_participant(form: ConsentForm) -> bool:
    """Whether the client is to act as a new participant."""
    return str(form.target.data).startswith(_NEW)
