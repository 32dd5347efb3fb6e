"""An owner's credits: balance and forecast, usage, entries, prices."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from flask import Response, flash, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import IntegerField
from wtforms.validators import InputRequired, NumberRange

from bus.billing import credits, status, usage
from bus.billing.credits import CreditEntry
from bus.billing.usage import BalanceForecast, Usage, UsageShare
from bus.db.pagination import paginate
from bus.notifications import outbox
from webapp import billing, svg_charts
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OwnerBlueprint, see_other
from webapp.context import connection, database, show_refusal_on_form, transaction
from webapp.csv_export import BATCH_SIZE, export_rows
from webapp.event_labels import EVENT_PLURALS
from webapp.pagination import PAGE_SIZE, current_url, query_int
from webapp.suspension import allowed_while_suspended
from webapp.svg_charts import Plot, Series

blueprint = OwnerBlueprint(
    "credits",
    url_prefix="/admin/credits",
    nav_item=NavItem("Credits", 35, "receipt", is_secondary=True, is_visible=billing.viewer_has_billing),
)

_DEFAULT_DAYS = 30
_MAX_FORECAST_DAYS = 30
# The last colour is for all further projects together.
_MAX_NAMED_SERIES = svg_charts.MAX_SERIES - 1
_EXPORT_COLUMNS = (
    "id",
    "at",
    "kind",
    "amount",
    "balance",
    "reference",
    "project_id",
    "first_event",
    "last_event",
    "detail",
)


class ThresholdForm(FlaskForm):  # type: ignore[misc]
    """The balance below which to alert the owner."""

    low_balance = IntegerField(
        "Alert me below",
        description="In credits. One alert each time that the balance falls below it. 0: never.",
        validators=[
            InputRequired("Enter a number of credits; 0 turns the alert off."),
            NumberRange(0, credits.MAX_CREDITS, "0 to 1,000,000,000,000 credits."),
        ],
    )


@dataclass(frozen=True)
class UsageCharts:
    """The charts of the overview.

    Attributes:
        usage: credits used on each day, by project.
        balance: the balance at the end of each day, and its forecast.
        forecast: future days with the balance at their end; empty without a forecast.
    """

    usage: Plot
    balance: Plot
    forecast: list[tuple[date, float]]


@blueprint.get("/")
def index() -> str:
    """Show the balance, its forecast and the usage."""
    return _render_index()


@blueprint.post("/threshold")
@allowed_while_suspended
def set_threshold() -> BaseResponse | tuple[str, int]:
    """Set the low-balance alert."""
    form = ThresholdForm()
    if form.validate():
        owner = current_owner()
        with show_refusal_on_form(form), transaction() as conn:
            credits.set_low_balance(conn, owner.id, form.low_balance.data, actor=owner.handle)
    if form.errors:
        return _render_index(form), 400
    flash("Alert saved." if form.low_balance.data else "Alert turned off.", "success")
    return see_other(".index", _anchor="zero")


@blueprint.get("/entries")
def entries() -> str:
    """List every change of the balance, newest first."""
    before, added_only = query_int("before"), request.args.get("only") == "added"
    owner_id = current_owner().id
    with connection() as conn:
        rows = credits.list_entries(conn, owner_id, exclude_usage=added_only, before=before, limit=PAGE_SIZE + 1)
        page, has_more = paginate(rows, PAGE_SIZE)
        project_ids = {entry.project_id for entry in page if entry.project_id is not None}
        names = usage.find_project_names(conn, owner_id, project_ids)
    return render_template(
        "credits/entries.html",
        entries=page,
        names=names,
        added=added_only,
        tabs=_build_tabs("entries"),
        event_labels=EVENT_PLURALS,
        older=current_url(before=str(page[-1].id)) if has_more else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.get("/entries.csv")
def entries_csv() -> Response:
    """Export every entry, newest first, with the credits by type of event as JSON."""
    db, owner_id = database(), current_owner().id

    def fetch_batch(before: int | None) -> Sequence[CreditEntry]:
        with db.connection() as conn:
            return credits.list_entries(conn, owner_id, before=before, limit=BATCH_SIZE)

    return export_rows(fetch_batch, _to_values, columns=_EXPORT_COLUMNS, name="credits", file_format="csv")


@blueprint.get("/prices")
def prices() -> str:
    """Show current and upcoming prices."""
    with connection() as conn:
        price_list, terms = billing.get_price_list(conn), status.get_terms(conn)
    return render_template("credits/prices.html", prices=price_list, terms=terms, tabs=_build_tabs("prices"))


def _render_index(form: ThresholdForm | None = None) -> str:
    owner = current_owner()
    requested_days = query_int("days")
    days = requested_days if requested_days in usage.PERIOD_DAYS else _DEFAULT_DAYS
    with connection() as conn:
        billing_status = status.get_billing_status(conn, owner.id)
        account = billing_status.account
        balance = 0 if account is None else account.balance
        threshold = credits.DEFAULT_LOW_BALANCE if account is None else account.low_balance
        is_metered = billing_status.terms.metering_enabled
        period_usage = usage.get_usage(conn, owner.id, days)
        forecast = usage.forecast_balance(conn, owner.id, balance) if is_metered else None
        webhooks = outbox.list_webhooks(conn, owner.id)
    return render_template(
        "credits/index.html",
        owner=owner,
        billing=billing_status,
        account=account,
        runway=_describe_runway(balance, forecast) if is_metered else None,
        days=days,
        periods=[(f"{count} days", current_url(days=str(count)), count == days) for count in usage.PERIOD_DAYS],
        usage=period_usage,
        busiest=max(period_usage.days, key=lambda day: day.credits),
        charts=_build_charts(period_usage, forecast),
        forecast=forecast,
        event_labels=EVENT_PLURALS,
        webhooks=len(webhooks),
        top_up=billing.top_up_url(owner.handle),
        threshold=threshold,
        form=form or ThresholdForm(formdata=None, low_balance=threshold),
        tabs=_build_tabs("index"),
    )


def _build_tabs(current: str) -> list[tuple[str, str, bool]]:
    tabs = (("Overview", "index"), ("Entries", "entries"), ("Prices", "prices"))
    return [(label, url_for(f"credits.{view}"), view == current) for label, view in tabs]


def _describe_runway(balance: int, forecast: BalanceForecast | None) -> str:
    """How long the balance lasts, as a sentence."""
    if balance <= 0:
        return "No credits left."
    if forecast is None:
        return "A forecast appears after the first full day of usage."
    if forecast.credits_used == 0:
        return f"No usage in the last {forecast.sample_days} days."
    period = "of the last full day" if forecast.sample_days == 1 else f"of the last {forecast.sample_days} days"
    if forecast.exhausted_on is None:
        return f"Lasts for more than ten years at the rate {period}."
    if forecast.exhausted_on == forecast.today:
        return f"Runs out within a day at the rate {period}."
    return f"Lasts until about {_format_day(forecast.exhausted_on, forecast.today)} at the rate {period}."


def _format_day(day: date, today: date) -> str:
    return f"{day:%-d %B}" if day.year == today.year else f"{day:%-d %B %Y}"


def _build_charts(period_usage: Usage, forecast: BalanceForecast | None) -> UsageCharts:
    projection = _project_balance(period_usage, forecast)
    return UsageCharts(_build_usage_chart(period_usage), _build_balance_chart(period_usage, projection), projection)


def _project_balance(period_usage: Usage, forecast: BalanceForecast | None) -> list[tuple[date, float]]:
    """Future days until the balance reaches zero: at most as many as the period has, and at most 30."""
    if forecast is None or forecast.exhausted_on is None:
        return []
    today = period_usage.days[-1]
    projection: list[tuple[date, float]] = []
    for count in range(1, min(len(period_usage.days), _MAX_FORECAST_DAYS) + 1):
        balance = max(0.0, today.balance - forecast.credits_per_day * count)
        projection.append((today.day + timedelta(days=count), balance))
        if not balance:
            break
    return projection


def _build_usage_chart(period_usage: Usage) -> Plot:
    days = period_usage.days
    series = [
        Series(_share_label(share), [day.credits_by_project[index] for day in days])
        for index, share in enumerate(period_usage.projects[:_MAX_NAMED_SERIES])
    ]
    if len(period_usage.projects) > _MAX_NAMED_SERIES:
        series.append(Series("others", [sum(day.credits_by_project[_MAX_NAMED_SERIES:]) for day in days]))
    bin_labels = [f"{day.day:%-d %b}" for day in days]
    aria_label = f"Credits used on each of the last {len(days)} days: {period_usage.credits:,} in total."
    return svg_charts.column_chart(series, bin_labels, aria_label=aria_label)


def _build_balance_chart(period_usage: Usage, projection: list[tuple[date, float]]) -> Plot:
    """The balance and its projection; a negative balance is drawn as zero."""
    balances = [float(max(0, day.balance)) for day in period_usage.days]
    days, series = [day.day for day in period_usage.days], [Series("balance", balances, is_stepped=True)]
    if projection:
        # All possible forecast days have a place, so that the labels below the chart stay evenly spaced.
        future_count = min(len(days), _MAX_FORECAST_DAYS)
        projected = [balance for _, balance in projection]
        series = [
            Series("balance", [*balances, *[None] * future_count], is_stepped=True),
            Series(
                "at the current rate",
                [*[None] * (len(balances) - 1), balances[-1], *projected, *[None] * (future_count - len(projected))],
                is_forecast=True,
            ),
        ]
        days += [days[-1] + timedelta(days=count) for count in range(1, future_count + 1)]
    first, last = period_usage.days[0].balance, period_usage.days[-1].balance
    aria_label = f"Balance at the end of each day: {first:,} credits at first, {last:,} now."
    if projection and not projection[-1][1]:
        aria_label += f" At the current rate credits run out on {projection[-1][0]:%-d %B}."
    return svg_charts.line_chart(series, [f"{day:%-d %b}" for day in days], aria_label=aria_label)


def _share_label(share: UsageShare) -> str:
    if share.id is None:
        return "others"
    return f"{share.name or 'a project'} (deleted)" if share.is_removed else str(share.name)


def _to_values(entry: CreditEntry) -> tuple[object, ...]:
    return (
        entry.id,
        entry.at.isoformat(),
        entry.kind,
        entry.amount,
        entry.balance,
        entry.reference,
        entry.project_id,
        entry.first_seq,
        entry.last_seq,
        dict(entry.detail),
    )
