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
from bus.billing.credits import Entry as Line
from bus.billing.usage import Forecast, Usage
from bus.db import Database
from bus.notifications import outbox
from webapp import billing, svg_charts
from webapp.auth import current_owner
from webapp.blueprints import Entry, Pages, see_other
from webapp.context import database, reading, refused_on, writing
from webapp.forms import PER_PAGE, asked_number, csv_text, split, this_page
from webapp.svg_charts import Plot, Series

pages = Pages("credits", prefix="/admin/credits", entry=Entry("Credits", 35, when=billing.concerns_viewer))

_USUAL_DAYS = 30
# How far the picture of the balance looks ahead at most.
_AHEAD_DAYS = 30
# The last colour is for what is put together.
_SERIES = svg_charts.COLOURS - 1
_BATCH = 1000


class ThresholdForm(FlaskForm):  # type: ignore[misc]
    """When to be told."""

    low_balance = IntegerField(
        "Tell me below",
        description="In credits. You are told once each time that the balance falls below it. 0: never.",
        validators=[
            InputRequired("A number of credits; 0 never tells."),
            NumberRange(0, credits.MOST, "0 to 1,000,000,000,000 credits."),
        ],
    )


@dataclass(frozen=True)
class Pictures:
    """What the overview draws.

    Attributes:
        used: credits used on each day, by project.
        balance: at the end of each day, and how it goes on.
        ahead: days to come with the balance at their end, at the present pace; none where nothing is foretold.
    """

    used: Plot
    balance: Plot
    ahead: list[tuple[date, float]]


@pages.get("/")
def index() -> str:
    """What is left, for how long, and what it went to."""
    return _index()


@pages.post("/threshold")
def set_threshold() -> BaseResponse | tuple[str, int]:
    """Say below which balance to be told."""
    form = ThresholdForm()
    if form.validate():
        owner = current_owner()
        with refused_on(form), writing() as conn:
            credits.set_low_balance(conn, owner.id, form.low_balance.data, actor=owner.handle)
    if form.errors:
        return _index(form), 400
    flash("You are told when it falls below that." if form.low_balance.data else "You are not told.", "success")
    return see_other(".index", _anchor="zero")


@pages.get("/entries")
def entries() -> str:
    """Every change of the balance, newest first."""
    before, added = asked_number("before"), request.args.get("only") == "added"
    owner_id = current_owner().id
    with reading() as conn:
        found = credits.list_entries(conn, owner_id, added=added, before=before, limit=PER_PAGE + 1)
        rows, more = split(found)
        names = usage.name_projects(conn, owner_id, {one.project_id for one in rows if one.project_id is not None})
    return render_template(
        "credits/entries.html",
        entries=rows,
        names=names,
        added=added,
        shown=_tabs("entries"),
        kinds=billing.MANY,
        older=this_page(before=str(rows[-1].id)) if more else None,
        newest=this_page(before=None) if before else None,
    )


@pages.get("/entries.csv")
def entries_csv() -> Response:
    """Every entry as a table, newest first; credits by type of event are JSON in its last column."""
    answer = Response(_lines(database(), current_owner().id), mimetype="text/csv")
    answer.headers["Content-Disposition"] = 'attachment; filename="credits.csv"'
    return answer


@pages.get("/prices")
def prices() -> str:
    """What costs how much, and what will."""
    with reading() as conn:
        found, terms = billing.list_prices(conn), standing.terms_of(conn)
    return render_template("credits/prices.html", prices=found, terms=terms, shown=_tabs("prices"))


def _index(form: ThresholdForm | None = None) -> str:
    owner = current_owner()
    asked = asked_number("days")
    days = asked if asked in usage.PERIODS else _USUAL_DAYS
    with reading() as conn:
        state = standing.get(conn, owner.id)
        balance, threshold = 0, credits.USUAL_LOW_BALANCE
        if state.account is not None:
            balance, threshold = state.account.balance, state.account.low_balance
        used = usage.get(conn, owner.id, days)
        ahead = usage.forecast(conn, owner.id, balance) if state.terms.running else None
        hooks = outbox.list_webhooks(conn, owner.id)
    return render_template(
        "credits/index.html",
        owner=owner,
        billing=state,
        account=state.account,
        lasts=_lasts(balance, ahead) if state.terms.running else None,
        days=days,
        periods=[(f"{one} days", this_page(days=str(one)), one == days) for one in usage.PERIODS],
        used=used,
        busiest=max(used.days, key=lambda one: one.credits),
        plots=_draw(used, ahead),
        ahead=ahead,
        kinds=billing.MANY,
        webhooks=len(hooks),
        top_up=billing.top_up_url(owner.handle),
        threshold=threshold,
        form=form or ThresholdForm(formdata=None, low_balance=threshold),
        shown=_tabs("index"),
    )


def _tabs(here: str) -> list[tuple[str, str, bool]]:
    known = (("Overview", "index"), ("Entries", "entries"), ("Prices", "prices"))
    return [(label, url_for(f"credits.{view}"), view == here) for label, view in known]


def _lasts(balance: int, ahead: Forecast | None) -> str:
    """How long the balance lasts, as a sentence."""
    if balance <= 0:
        return "Nothing is left."
    if ahead is None:
        return "How long it lasts shows after the first whole day of use."
    period = "of the last whole day" if ahead.days == 1 else f"of the last {ahead.days} days"
    if ahead.credits == 0:
        return f"Nothing was used in the last {ahead.days} days, so it stays as it is."
    if ahead.until is None:
        return f"Lasts for more than ten years at the pace {period}."
    if ahead.until == ahead.today:
        return f"Used up within a day at the pace {period}."
    return f"Lasts until about {_day(ahead.until, ahead.today)} at the pace {period}."


def _day(day: date, today: date) -> str:
    return f"{day:%-d %B}" if day.year == today.year else f"{day:%-d %B %Y}"


def _draw(used: Usage, ahead: Forecast | None) -> Pictures:
    to_come = _ahead(used, ahead)
    return Pictures(_draw_used(used), _draw_balance(used, to_come), to_come)


def _ahead(used: Usage, ahead: Forecast | None) -> list[tuple[date, float]]:
    """The days to come until the balance reaches zero, as many as are looked back at and no more than _AHEAD_DAYS."""
    if ahead is None or ahead.until is None:
        return []
    today, now = used.days[-1].day, used.days[-1].balance
    found: list[tuple[date, float]] = []
    for count in range(1, min(len(used.days), _AHEAD_DAYS) + 1):
        found.append((today + timedelta(days=count), max(0.0, now - ahead.a_day * count)))
        if not found[-1][1]:
            break
    return found


def _draw_used(used: Usage) -> Plot:
    names = [_name(share) for share in used.projects]
    series = [Series(name, [day.by_project[at] for day in used.days]) for at, name in enumerate(names[:_SERIES])]
    if len(names) > _SERIES:
        series.append(Series("others", [sum(day.by_project[_SERIES:]) for day in used.days]))
    bins = [f"{day.day:%-d %b}" for day in used.days]
    says = f"Credits used on each of the last {len(bins)} days: {used.credits:,} in all."
    return svg_charts.columns(series, bins, says=says)


def _draw_balance(used: Usage, to_come: list[tuple[date, float]]) -> Plot:
    """Below zero is drawn as zero: what is used up is used up."""
    known = [float(max(0, day.balance)) for day in used.days]
    days, series = [day.day for day in used.days], [Series("balance", known)]
    if to_come:
        # As many as might come, so that the days below the picture stay evenly spaced.
        room = min(len(days), _AHEAD_DAYS)
        falls = [balance for _, balance in to_come]
        series = [
            Series("balance", [*known, *[None] * room]),
            Series(
                "at the present pace", [*[None] * (len(known) - 1), known[-1], *falls, *[None] * (room - len(falls))]
            ),
        ]
        days += [days[-1] + timedelta(days=count) for count in range(1, room + 1)]
    first, last = used.days[0].balance, used.days[-1].balance
    says = f"The balance at the end of each day: {first:,} credits at first, {last:,} now."
    if to_come and not to_come[-1][1]:
        says += f" At the present pace nothing is left on {to_come[-1][0]:%-d %B}."
    return svg_charts.lines(series, [f"{day:%-d %b}" for day in days], says=says)


def _name(share: usage.Share) -> str:
    if share.id is None:
        return "others"
    return f"{share.name or 'a project'} (deleted)" if share.gone else str(share.name)


def _lines(db: Database, owner_id: int) -> Iterator[str]:
    """The entries in batches, each in a look of its own, so that nothing is held up meanwhile."""
    yield "id,at,kind,amount,balance,reference,project_id,first_event,last_event,detail\r\n"
    before: int | None = None
    while True:
        with db.call() as conn:
            found = credits.list_entries(conn, owner_id, before=before, limit=_BATCH)
        yield csv_text(map(_row, found))
        if len(found) < _BATCH:
            return
        before = found[-1].id


def _row(one: Line) -> tuple[object, ...]:
    detail = json.dumps(one.detail, ensure_ascii=False)
    place = (one.project_id, one.first_seq, one.last_seq)
    return (one.id, one.at.isoformat(), one.kind, one.amount, one.balance, one.reference, *place, detail)
