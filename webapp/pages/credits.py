"""An owner's credits: what is left and for how long, what it went to, every entry, and the prices."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from flask import Response, flash, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import IntegerField
from wtforms.validators import InputRequired, NumberRange

from bus.billing import credits, usage
from bus.billing import status as standing
from bus.billing.credits import CreditEntry as Line
from bus.billing.usage import BalanceForecast, Usage
from bus.db import Database
from bus.notifications import outbox
from webapp import billing, svg_charts
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OwnerBlueprint, see_other
from webapp.context import connection, database, show_refusal_on_form, transaction
from webapp.forms import PAGE_SIZE, current_url, query_int, split_page, to_csv
from webapp.svg_charts import Plot, Series

blueprint = OwnerBlueprint(
    "credits", url_prefix="/admin/credits", nav_item=NavItem("Credits", 35, is_visible=billing.viewer_has_billing)
)

_DEFAULT_DAYS = 30
# How far the picture of the balance looks ahead at most.
_MAX_FORECAST_DAYS = 30
# The last colour is for what is put together.
_MAX_NAMED_SERIES = svg_charts.MAX_SERIES - 1
_BATCH_SIZE = 1000


class ThresholdForm(FlaskForm):  # type: ignore[misc]
    """When to be told."""

    low_balance = IntegerField(
        "Tell me below",
        description="In credits. You are told once each time that the balance falls below it. 0: never.",
        validators=[
            InputRequired("A number of credits; 0 never tells."),
            NumberRange(0, credits.MAX_CREDITS, "0 to 1,000,000,000,000 credits."),
        ],
    )


@dataclass(frozen=True)
class UsageCharts:
    """What the overview draws.

    Attributes:
        used: credits used on each day, by project.
        balance: at the end of each day, and how it goes on.
        ahead: days to come with the balance at their end, at the present pace; none where nothing is foretold.
    """

    usage: Plot
    balance: Plot
    forecast: list[tuple[date, float]]


@blueprint.get("/")
def index() -> str:
    """What is left, for how long, and what it went to."""
    return _render_index()


@blueprint.post("/threshold")
def set_threshold() -> BaseResponse | tuple[str, int]:
    """Say below which balance to be told."""
    form = ThresholdForm()
    if form.validate():
        owner = current_owner()
        with show_refusal_on_form(form), transaction() as conn:
            credits.set_low_balance(conn, owner.id, form.low_balance.data, actor=owner.handle)
    if form.errors:
        return _render_index(form), 400
    flash("You are told when it falls below that." if form.low_balance.data else "You are not told.", "success")
    return see_other(".index", _anchor="zero")


@blueprint.get("/entries")
def entries() -> str:
    """Every change of the balance, newest first."""
    before, added = query_int("before"), request.args.get("only") == "added"
    owner_id = current_owner().id
    with connection() as conn:
        found = credits.list_entries(conn, owner_id, exclude_usage=added, before=before, limit=PAGE_SIZE + 1)
        rows, more = split_page(found)
        names = usage.find_project_names(conn, owner_id, {one.project_id for one in rows if one.project_id is not None})
    return render_template(
        "credits/entries.html",
        entries=rows,
        names=names,
        added=added,
        tabs=_build_tabs("entries"),
        event_labels=billing.EVENT_PLURAL_LABELS,
        older=current_url(before=str(rows[-1].id)) if more else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.get("/entries.csv")
def entries_csv() -> Response:
    """Every entry as a table, newest first; credits by type of event are JSON in its last column."""
    answer = Response(_iter_csv(database(), current_owner().id), mimetype="text/csv")
    answer.headers["Content-Disposition"] = 'attachment; filename="credits.csv"'
    return answer


@blueprint.get("/prices")
def prices() -> str:
    """What costs how much, and what will."""
    with connection() as conn:
        found, terms = billing.get_price_list(conn), standing.get_terms(conn)
    return render_template("credits/prices.html", prices=found, terms=terms, tabs=_build_tabs("prices"))


def _render_index(form: ThresholdForm | None = None) -> str:
    owner = current_owner()
    asked = query_int("days")
    days = asked if asked in usage.PERIOD_DAYS else _DEFAULT_DAYS
    with connection() as conn:
        state = standing.get_billing_status(conn, owner.id)
        balance, threshold = 0, credits.DEFAULT_LOW_BALANCE
        if state.account is not None:
            balance, threshold = state.account.balance, state.account.low_balance
        used = usage.get_usage(conn, owner.id, days)
        ahead = usage.forecast_balance(conn, owner.id, balance) if state.terms.metering_enabled else None
        hooks = outbox.list_webhooks(conn, owner.id)
    return render_template(
        "credits/index.html",
        owner=owner,
        billing=state,
        account=state.account,
        runway=_describe_runway(balance, ahead) if state.terms.metering_enabled else None,
        days=days,
        periods=[(f"{one} days", current_url(days=str(one)), one == days) for one in usage.PERIOD_DAYS],
        usage=used,
        busiest=max(used.days, key=lambda one: one.credits),
        charts=_build_charts(used, ahead),
        forecast=ahead,
        event_labels=billing.EVENT_PLURAL_LABELS,
        webhooks=len(hooks),
        top_up=billing.top_up_url(owner.handle),
        threshold=threshold,
        form=form or ThresholdForm(formdata=None, low_balance=threshold),
        tabs=_build_tabs("index"),
    )


def _build_tabs(current: str) -> list[tuple[str, str, bool]]:
    known = (("Overview", "index"), ("Entries", "entries"), ("Prices", "prices"))
    return [(label, url_for(f"credits.{view}"), view == current) for label, view in known]


def _describe_runway(balance: int, forecast: BalanceForecast | None) -> str:
    """How long the balance lasts, as a sentence."""
    if balance <= 0:
        return "Nothing is left."
    if forecast is None:
        return "How long it lasts shows after the first whole day of use."
    period = "of the last whole day" if forecast.sample_days == 1 else f"of the last {forecast.sample_days} days"
    if forecast.credits_used == 0:
        return f"Nothing was used in the last {forecast.sample_days} days, so it stays as it is."
    if forecast.exhausted_on is None:
        return f"Lasts for more than ten years at the pace {period}."
    if forecast.exhausted_on == forecast.today:
        return f"Used up within a day at the pace {period}."
    return f"Lasts until about {_format_day(forecast.exhausted_on, forecast.today)} at the pace {period}."


def _format_day(day: date, today: date) -> str:
    return f"{day:%-d %B}" if day.year == today.year else f"{day:%-d %B %Y}"


def _build_charts(used: Usage, forecast: BalanceForecast | None) -> UsageCharts:
    to_come = _project_balance(used, forecast)
    return UsageCharts(_build_usage_chart(used), _build_balance_chart(used, to_come), to_come)


def _project_balance(used: Usage, forecast: BalanceForecast | None) -> list[tuple[date, float]]:
    """The days to come until the balance reaches zero, as many as are looked back at and no more than _AHEAD_DAYS."""
    if forecast is None or forecast.exhausted_on is None:
        return []
    today, now = used.days[-1].day, used.days[-1].balance
    found: list[tuple[date, float]] = []
    for count in range(1, min(len(used.days), _MAX_FORECAST_DAYS) + 1):
        found.append((today + timedelta(days=count), max(0.0, now - forecast.credits_per_day * count)))
        if not found[-1][1]:
            break
    return found


def _build_usage_chart(used: Usage) -> Plot:
    names = [_share_label(share) for share in used.projects]
    series = [
        Series(name, [day.credits_by_project[at] for day in used.days])
        for at, name in enumerate(names[:_MAX_NAMED_SERIES])
    ]
    if len(names) > _MAX_NAMED_SERIES:
        series.append(Series("others", [sum(day.credits_by_project[_MAX_NAMED_SERIES:]) for day in used.days]))
    bins = [f"{day.day:%-d %b}" for day in used.days]
    says = f"Credits used on each of the last {len(bins)} days: {used.credits:,} in all."
    return svg_charts.column_chart(series, bins, aria_label=says)


def _build_balance_chart(used: Usage, projection: list[tuple[date, float]]) -> Plot:
    """Below zero is drawn as zero: what is used up is used up."""
    known = [float(max(0, day.balance)) for day in used.days]
    days, series = [day.day for day in used.days], [Series("balance", known)]
    if projection:
        # As many as might come, so that the days below the picture stay evenly spaced.
        room = min(len(days), _MAX_FORECAST_DAYS)
        falls = [balance for _, balance in projection]
        series = [
            Series("balance", [*known, *[None] * room]),
            Series(
                "at the present pace", [*[None] * (len(known) - 1), known[-1], *falls, *[None] * (room - len(falls))]
            ),
        ]
        days += [days[-1] + timedelta(days=count) for count in range(1, room + 1)]
    first, last = used.days[0].balance, used.days[-1].balance
    says = f"The balance at the end of each day: {first:,} credits at first, {last:,} now."
    if projection and not projection[-1][1]:
        says += f" At the present pace nothing is left on {projection[-1][0]:%-d %B}."
    return svg_charts.line_chart(series, [f"{day:%-d %b}" for day in days], aria_label=says)


def _share_label(share: usage.UsageShare) -> str:
    if share.id is None:
        return "others"
    return f"{share.name or 'a project'} (deleted)" if share.is_removed else str(share.name)


def _iter_csv(db: Database, owner_id: int) -> Iterator[str]:
    """The entries in batches, each in a look of its own, so that nothing is held up meanwhile."""
    yield "id,at,kind,amount,balance,reference,project_id,first_event,last_event,detail\r\n"
    before: int | None = None
    while True:
        with db.connection() as conn:
            found = credits.list_entries(conn, owner_id, before=before, limit=_BATCH_SIZE)
        yield to_csv(map(_to_csv_row, found))
        if len(found) < _BATCH_SIZE:
            return
        before = found[-1].id


def _to_csv_row(entry: Line) -> tuple[object, ...]:
    detail = json.dumps(entry.detail, ensure_ascii=False)
    place = (entry.project_id, entry.first_seq, entry.last_seq)
    return (entry.id, entry.at.isoformat(), entry.kind, entry.amount, entry.balance, entry.reference, *place, detail)
