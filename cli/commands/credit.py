"""`llm-bus credit`: balances, top-ups, plans and prices."""

import dataclasses
from datetime import datetime
from pathlib import Path

import click

from cli.options import data_option, emit, format_table, json_option


@click.group("credit", short_help="Credits of owners: add, show, plan; prices.")
def command() -> None:
    """Prepaid credits. They are billed only while METERING is on; otherwise no call is refused for lack of credits.

    OWNER is a handle or an e-mail address.
    """


@command.command("add")
@click.argument("owner")
@click.argument("amount", type=click.IntRange(1))
@click.option("--ref", "reference", required=True, help="The payment or grant; a repeated reference adds nothing.")
@click.option("--grant", is_flag=True, help="A grant of the operator, not a payment.")
@click.option("--reason", default="", help="The reason, for the record.")
@data_option
@json_option
def add_credits(
    owner: str, amount: int, reference: str, grant: bool, reason: str, data: Path | None, as_json: bool
) -> None:
    """Add AMOUNT credits to OWNER. This lifts a suspension for lack of credits at once."""
    from bus.billing import credits
    from bus.tenancy import owners
    from cli.database import transaction

    with transaction(data) as conn:
        payer = owners.get(conn, owner)
        entry = credits.add_credits(
            conn, payer.id, amount, reference=reference, kind="grant" if grant else "top_up", reason=reason, actor="cli"
        )
        account = credits.find_account(conn, payer.id)
    assert account is not None
    emit(
        {"owner": payer.handle, "entry": dataclasses.asdict(entry), "balance": account.balance},
        f"{payer.handle} has {account.balance} credits ({entry.kind} {entry.reference} of {entry.amount}).",
        as_json=as_json,
    )


@command.command("show")
@click.argument("owner")
@click.option("--before", type=click.IntRange(1), help="List older entries: those with a smaller id.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="The number of entries.")
@data_option
@json_option
def show_account(owner: str, before: int | None, limit: int, data: Path | None, as_json: bool) -> None:
    """Show the balance and the entries of OWNER."""
    from bus.billing import credits
    from bus.tenancy import owners
    from cli.database import transaction

    with transaction(data) as conn:
        payer = owners.get(conn, owner)
        account = credits.find_account(conn, payer.id)
        entries = credits.list_entries(conn, payer.id, before=before, limit=limit)
    if account is None:
        text = f"{payer.handle} has no account yet: no credits have been metered or added."
    else:
        state = f", used up since {account.delinquent_at:%Y-%m-%d %H:%M}" if account.delinquent_at else ""
        rows = [
            (entry.id, f"{entry.at:%Y-%m-%d %H:%M}", entry.kind, entry.amount, entry.balance, entry.reference)
            for entry in entries
        ]
        text = (
            f"{payer.handle}: {account.balance} credits, plan {account.plan}{state}\n\n"
            f"{format_table(('ID', 'AT', 'KIND', 'AMOUNT', 'BALANCE', 'REFERENCE'), rows)}"
        )
    emit(
        {
            "owner": payer.handle,
            "account": None if account is None else dataclasses.asdict(account),
            "entries": [dataclasses.asdict(entry) for entry in entries],
        },
        text,
        as_json=as_json,
    )


@command.command("plan")
@click.argument("owner")
@click.argument("plan", type=click.Choice(["free", "team", "comped"]))
@data_option
@json_option
def set_plan(owner: str, plan: str, data: Path | None, as_json: bool) -> None:
    """Set the plan of OWNER.

    A comped owner is metered but never suspended.
    """
    from bus.billing import credits
    from bus.tenancy import owners
    from cli.database import transaction

    with transaction(data) as conn:
        payer = owners.get(conn, owner)
        account = credits.set_plan(conn, payer.id, plan, actor="cli")
    emit(dataclasses.asdict(account), f"{payer.handle} is on plan {account.plan}.", as_json=as_json)


@command.command("prices")
@data_option
@json_option
def list_prices(data: Path | None, as_json: bool) -> None:
    """List present and future prices of event types."""
    from bus.billing import prices
    from cli.database import transaction

    with transaction(data) as conn:
        listed = prices.list_prices(conn)
    rows = [(price.event_type, price.credits, f"{price.effective_from:%Y-%m-%d %H:%M}") for price in listed]
    emit(
        {"prices": [dataclasses.asdict(price) for price in listed]},
        format_table(("EVENT", "CREDITS", "FROM"), rows),
        as_json=as_json,
    )


@command.command("price")
@click.argument("event")
@click.argument("amount", type=click.IntRange(0, 1_000_000))
@click.option("--from", "start", type=click.DateTime(), help="A future time (UTC); default: now.")
@data_option
@json_option
def set_price(event: str, amount: int, start: datetime | None, data: Path | None, as_json: bool) -> None:
    """Set the price of an EVENT type.

    Earlier events keep their price.
    """
    from datetime import UTC

    from bus.billing import prices
    from cli.database import transaction

    with transaction(data) as conn:
        price = prices.set_price(conn, event, amount, effective_from=start and start.replace(tzinfo=UTC), actor="cli")
    emit(
        dataclasses.asdict(price),
        f"{price.event_type} costs {price.credits} from {price.effective_from:%Y-%m-%d %H:%M} UTC.",
        as_json=as_json,
    )
