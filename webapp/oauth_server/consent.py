"""What a client may be let do: the choices of the consent page, and the consent that follows from them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask import Response, make_response, render_template
from flask_wtf import FlaskForm
from wtforms import SelectChoice, SelectField
from wtforms.validators import InputRequired

from bus import limits, scopes
from bus.db import Connection
from bus.scopes import DEFAULT_CLIENT_SCOPE, FULL_SCOPE
from bus.tenancy import client_consent, client_grants, oauth_clients, participant_queries
from bus.tenancy.client_consent import ConsentRequest
from bus.tenancy.oauth_clients import OAuthClient
from bus.tenancy.owners import Owner
from bus.tenancy.participant_queries import ConsentChoice
from webapp.context import connection
from webapp.forms import optional_text_field, scope_choices, scope_field, select_choices
from webapp.oauth_server.client_documents import is_document_url

_NEW = "new-"
_MAX_SUGGESTION_LENGTH = 40


class ConsentForm(FlaskForm):  # type: ignore[misc]
    """As whom a client acts, with which rights, and for how long."""

    target = SelectField("Acts as", validators=[InputRequired()])
    name = optional_text_field("Name, if new", limits.MAX_LABEL_LENGTH)
    lane = optional_text_field("Lane, if new", limits.MAX_LABEL_LENGTH)
    scope = scope_field(default=DEFAULT_CLIENT_SCOPE)
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


def limit_scope(form: ConsentForm, requested: str, *, is_new: bool = False) -> None:
    """Offer no wider scope than a client asks for; one that asks for none that is known leaves the choice to the owner.

    Args:
        requested: the parameter `scope` of its request.
        is_new: whether the form is shown for the first time, so that what the client asks for is preselected.
    """
    limit = scopes.find_widest(requested.split())
    form.scope.choices = scope_choices(limit or FULL_SCOPE)
    if is_new and limit is not None:
        form.scope.data = limit


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
    *,
    resource: str,
    redirect_uri: str | None = None,
    challenge: str | None = None,
    device_sha256: bytes | None = None,
) -> str:
    """Record the consent of an owner; return the authorization code.

    Args:
        redirect_uri, challenge: of the authorization request.
        device_sha256: the SHA-256 of the device code, in place of these two.
    Raises:
        BusError: as `client_consent.connect_participant` and `connect_new_participant`.
    """
    request = ConsentRequest(
        client.client_id, client.name, redirect_uri, resource, challenge, form.scope.data, device_sha256
    )
    ttl = timedelta(days=int(form.lives.data)) if form.lives.data else None
    oauth_clients.keep(conn, client)
    if not form.target.data.startswith(_NEW):
        return client_consent.connect_participant(
            conn, owner.id, int(form.target.data), request, ttl=ttl, actor=owner.handle
        )
    return client_consent.connect_new_participant(
        conn,
        owner.id,
        int(form.target.data.removeprefix(_NEW)),
        form.name.data,
        form.lane.data,
        request,
        ttl=ttl,
        actor=owner.handle,
    )


def validate(form: ConsentForm) -> bool:
    """Validate a form that was submitted: a new participant needs a name."""
    if not form.validate():
        return False
    if str(form.target.data).startswith(_NEW) and not form.name.data:
        form.name.errors = ["A new participant needs a name."]
        return False
    return True


def show(owner: Owner, client: OAuthClient, form: ConsentForm | None, requested_scope: str, **values: Any) -> Response:
    """Render the consent page.

    Args:
        form: one that was submitted and is not valid; None shows the page for the first time.
        requested_scope: the parameter `scope` of the request.
        values: `target`, where the client will be sent back, or `user_code`, which its machine shows.
    """
    with connection() as conn:
        choices = find_options(conn, owner, client)
    if form is None:
        form = ConsentForm(formdata=None, target=choices.default_target, name=choices.default_name)
        form.target.choices = list(choices.choices)
        limit_scope(form, requested_scope, is_new=True)
    page = render_template(
        "authorize/show.html",
        client=client,
        is_document=is_document_url(client.client_id),
        form=form,
        lanes=choices.lanes,
        **values,
    )
    return make_response(page)
