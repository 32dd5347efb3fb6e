"""`llm-bus credit`: balances, top-ups, plans and prices."""

import dataclasses
from datetime import datetime
from pathlib import Path

import click

from cli.options import data_option, emit, format_table, json_option


@click.group("credit", short_help="Credits of owners: add, show, plan; prices.")
def command() -> None:
    """Prepaid credits. They count only where METERING is on; without it nothing is ever refused.

    OWNER is a handle or an e-mail address.
    """


@command.command("add")
@click.argument("owner")
@click.argument("amount", type=click.IntRange(1))
@click.option("--ref", "reference", required=True, help="Which payment or grant this is; the same again adds nothing.")
@click.option("--grant", is_flag=True, help="It is a gift of the operator, not a payment.")
@click.option("--reason", default="", help="Why, for the record.")
@data_option
@json_option
def add_credits(
    owner: str, amount: int, reference: str, grant: bool, reason: str, data: Path | None, as_json: bool
) -> None:
    """Add AMOUNT credits to OWNER. Whoever was suspended for want of credits is let in again at once."""
    from bus.billing import credits
    from bus.tenancy import owners
    from cli.database import transaction

    with transaction(data) as conn:
        found = owners.get(conn, owner)
        entry = credits.add_credits(
            conn, found.id, amount, reference=reference, kind="grant" if grant else "top_up", reason=reason, actor="cli"
        )
        account = credits.find_account(conn, found.id)
    assert account is not None
    emit(
        {"owner": found.handle, "entry": dataclasses.asdict(entry), "balance": account.balance},
        f"{found.handle} has {account.balance} credits ({entry.kind} {entry.reference} of {entry.amount}).",
        as_json=as_json,
    )


@command.command("show")
@click.argument("owner")
@click.option("--before", type=click.IntRange(1), help="List older entries: those with a smaller id.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="The most to list.")
@data_option
@json_option
def show_account(owner: str, before: int | None, limit: int, data: Path | None, as_json: bool) -> None:
    """The balance of OWNER and its entries, newest first."""
    from bus.billing import credits
    from bus.tenancy import owners
    from cli.database import transaction

    with transaction(data) as conn:
        found = owners.get(conn, owner)
        account = credits.find_account(conn, found.id)
        entries = credits.list_entries(conn, found.id, before=before, limit=limit)
    if account is None:
        said = f"{found.handle} has no account yet: nothing was metered or added."
    else:
        state = f", used up since {account.delinquent_at:%Y-%m-%d %H:%M}" if account.delinquent_at else ""
        rows = [
            (one.id, f"{one.at:%Y-%m-%d %H:%M}", one.kind, one.amount, one.balance, one.reference) for one in entries
        ]
        said = (
            f"{found.handle}: {account.balance} credits, plan {account.plan}{state}\n\n"
            f"{format_table(('ID', 'AT', 'KIND', 'AMOUNT', 'BALANCE', 'REFERENCE'), rows)}"
        )
    emit(
        {
            "owner": found.handle,
            "account": None if account is None else dataclasses.asdict(account),
            "entries": [dataclasses.asdict(one) for one in entries],
        },
        said,
        as_json=as_json,
    )


@command.command("plan")
@click.argument("owner")
@click.argument("plan", type=click.Choice(["free", "team", "comped"]))
@data_option
@json_option
def set_plan(owner: str, plan: str, data: Path | None, as_json: bool) -> None:
    """Put OWNER on a plan; who is comped is metered and never suspended."""
    from bus.billing import credits
    from bus.tenancy import owners
    from cli.database import transaction

    with transaction(data) as conn:
        found = owners.get(conn, owner)
        account = credits.set_plan(conn, found.id, plan, actor="cli")
    emit(dataclasses.asdict(account), f"{found.handle} is on plan {account.plan}.", as_json=as_json)


@command.command("prices")
@data_option
@json_option
def list_prices(data: Path | None, as_json: bool) -> None:
    """What each type of event costs now, and what is set for later."""
    from bus.billing import credits
    from cli.database import transaction

    with transaction(data) as conn:
        found = credits.list_prices(conn)
    rows = [(one.event_type, one.credits, f"{one.effective_from:%Y-%m-%d %H:%M}") for one in found]
    emit(
        {"prices": [dataclasses.asdict(one) for one in found]},
        format_table(("EVENT", "CREDITS", "FROM"), rows),
        as_json=as_json,
    )


@command.command("price")
@click.argument("event")
@click.argument("amount", type=click.IntRange(0, 1_000_000))
@click.option("--from", "start", type=click.DateTime(), help="A moment to come (UTC); default: now.")
@data_option
@json_option
def set_price(event: str, amount: int, start: datetime | None, data: Path | None, as_json: bool) -> None:
    """Set what an EVENT costs from now on; what was written before keeps its price."""
    from datetime import UTC

    from bus.billing import credits
    from cli.database import transaction

    with transaction(data) as conn:
        one = credits.set_price(conn, event, amount, effective_from=start and start.replace(tzinfo=UTC), actor="cli")
    emit(
        dataclasses.asdict(one),
        f"{one.event_type} costs {one.credits} from {one.effective_from:%Y-%m-%d %H:%M} UTC.",
        as_json=as_json,
    )
