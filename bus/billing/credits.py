"""Credits: prepaid whole numbers, an append-only account for each owner, and what happens at zero.

Every entry carries a reference that is unique for its owner, so that what is told twice is entered once. Whoever writes
an entry locks the account first.
Source: docs/decisions/0014-metering.md
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from bus.billing.tables import CREDIT_PLANS
from bus.db import Connection
from bus.errors import BusError, InvalidArgument
from bus.notifications import outbox
from bus.rules import validation
from bus.rules.enums import EVENT_TYPES
from bus.tenancy import audit, owners

MAX_CREDITS = 10**12
DEFAULT_LOW_BALANCE = 100
"""Below it an owner is told who said nothing else."""
_TRIAL = "trial"
_SYSTEM_ACTOR = "clock"


@dataclass(frozen=True, slots=True)
class CreditAccount:
    """An owner's credits.

    Attributes:
        low_balance: below it the owner is told, once for each time.
        delinquent_at: since when the balance is used up; None while it is not, or for who is never suspended.
    """

    owner_id: int
    plan: str
    balance: int
    low_balance: int
    delinquent_at: datetime | None


@dataclass(frozen=True, slots=True)
class CreditEntry:
    """One change of a balance: `kind` is trial, grant, top_up or usage; `balance` is that after it.

    Attributes:
        first_seq, last_seq: for usage, the events of the project that were billed.
        detail: for usage, credits by type of event; else who entered it and why.
    """

    id: int
    at: datetime
    kind: str
    amount: int
    balance: int
    reference: str
    project_id: int | None
    first_seq: int | None
    last_seq: int | None
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Price:
    """What an event of a type costs from a moment on."""

    event_type: str
    credits: int
    effective_from: datetime


def get_or_create_account(conn: Connection, owner_id: int, *, trial_credits: int = 0) -> CreditAccount:
    """The owner's account, opened where there was none; locked until the transaction ends.

    Args:
        trial: granted before the first usage, once. Who paid first, or was put on a plan, has an account already and
            gets it all the same.
    Locks: the account, then the owner.
    """
    conn.execute("INSERT INTO credit_account (owner_id) VALUES (%s) ON CONFLICT DO NOTHING", (owner_id,))
    account = _lock_account(conn, owner_id)
    if trial_credits > 0 and conn.fetch_one_or_none(_TRIAL_DUE_SQL, {"owner": owner_id, "trial": _TRIAL}) is not None:
        account = _insert_entry(conn, account, _TRIAL, trial_credits, _TRIAL, {})[0]
        _lift_credit_suspension(conn, account)
    return account


def find_account(conn: Connection, owner_id: int) -> CreditAccount | None:
    """The owner's account, or None while it has none: nothing was ever metered or added."""
    row = conn.fetch_one_or_none(f"SELECT {_ACCOUNT_COLUMNS} FROM credit_account WHERE owner_id = %s", (owner_id,))
    return CreditAccount(*row) if row else None


def list_entries(
    conn: Connection, owner_id: int, *, exclude_usage: bool = False, before: int | None = None, limit: int = 50
) -> list[CreditEntry]:
    """Entries of an account, newest first, with ids below `before`.

    Args:
        added: only those that added credits, among which usage would bury them.
    """
    validation.integer(limit, "limit", 1, 1000)
    # Said in the words of the partial index, and not as a parameter.
    only = " AND kind <> 'usage'" if exclude_usage else ""
    rows = conn.fetch_all(
        f"SELECT {_ENTRY_COLUMNS} FROM credit_entry WHERE owner_id = %(owner)s{only}"
        " AND (%(before)s::bigint IS NULL OR id < %(before)s) ORDER BY id DESC LIMIT %(limit)s",
        {"owner": owner_id, "before": before, "limit": limit},
    )
    return [CreditEntry(*row) for row in rows]


def add_credits(
    conn: Connection,
    owner_id: int,
    amount: int,
    *,
    reference: str,
    kind: str = "top_up",
    reason: str = "",
    actor: str,
) -> CreditEntry:
    """Add credits; what suspended the owner for want of them is lifted in the same transaction.

    Args:
        amount: 1 to 10^12.
        reference: says which payment or grant this is; the same again changes nothing and gives the first entry.
        kind: `top_up` or `grant`.
    Raises:
        BusError: `conflict` when the reference stands for another amount.
    Locks: the switch of metering (shared), the account, then the owner.
    """
    validation.integer(amount, "amount", 1, MAX_CREDITS)
    wanted = validation.name(reference, "ref", 200)
    validation.free_text(reason, "reason", 500, 0)
    _lock_metering_shared(conn)
    account = get_or_create_account(conn, owner_id)
    known = conn.fetch_one_or_none(
        f"SELECT {_ENTRY_COLUMNS} FROM credit_entry WHERE owner_id = %s AND reference = %s", (owner_id, wanted)
    )
    if known is not None:
        entry = CreditEntry(*known)
        if (entry.amount, entry.kind) != (amount, kind):
            raise BusError(
                "conflict", f"Reference {wanted} stands for {entry.kind} of {entry.amount} credits; use a new one."
            )
        return entry
    account, entry = _insert_entry(conn, account, kind, amount, wanted, {"by": actor, "reason": reason})
    audit.record(conn, owner_id, actor, "credit.add", wanted, amount=amount, kind=kind, reason=reason)
    _lift_credit_suspension(conn, account)
    return entry


def set_plan(conn: Connection, owner_id: int, plan: str, *, actor: str) -> CreditAccount:
    """Put an owner on a plan: free, team, or comped, which is metered and never suspended.

    Locks: the switch of metering (shared), the account, then the owner.
    """
    if plan not in CREDIT_PLANS:
        raise InvalidArgument(f"plan must be one of: {', '.join(CREDIT_PLANS)}.")
    _lock_metering_shared(conn)
    account = get_or_create_account(conn, owner_id)
    if account.plan != plan:
        conn.execute("UPDATE credit_account SET plan = %s WHERE owner_id = %s", (plan, owner_id))
        audit.record(conn, owner_id, actor, "credit.plan", plan, before=account.plan)
        account = _update_delinquency(conn, owner_id)
        _lift_credit_suspension(conn, account)
    return account


def set_low_balance(conn: Connection, owner_id: int, threshold: int, *, actor: str) -> CreditAccount:
    """Tell the owner when the balance falls below this; 0 never tells.

    Locks: the account.
    """
    validation.integer(threshold, "low_balance", 0, MAX_CREDITS)
    get_or_create_account(conn, owner_id)
    conn.execute(
        "UPDATE credit_account SET low_balance = %s, low_told = balance < %s WHERE owner_id = %s",
        (threshold, threshold, owner_id),
    )
    audit.record(conn, owner_id, actor, "credit.low_balance", str(threshold))
    return _lock_account(conn, owner_id)


def debit(
    conn: Connection,
    account: CreditAccount,
    amount: int,
    *,
    project_id: int,
    first_seq: int,
    last_seq: int,
    detail: dict[str, Any],
) -> CreditAccount:
    """Take credits for the events `first` to `last` of a project. The account is locked by the caller.

    The caller writes their usage to `credit_usage` in the same transaction.

    Below the threshold the owner is told, once; at zero the account is delinquent.
    """
    account, _ = _insert_entry(
        conn,
        account,
        "usage",
        -amount,
        f"meter:{project_id}:{last_seq}",
        detail,
        project_id=project_id,
        seq_range=(first_seq, last_seq),
    )
    (low,) = conn.fetch_one(
        "UPDATE credit_account a SET low_told = a.balance < a.low_balance AND a.plan <> 'comped' FROM"
        " (SELECT low_told FROM credit_account WHERE owner_id = %(owner)s) AS before"
        " WHERE a.owner_id = %(owner)s RETURNING a.low_told AND NOT before.low_told",
        {"owner": account.owner_id},
    )
    if low:
        _notify_owner(conn, account, "low_balance")
    return _update_delinquency(conn, account.owner_id)


def list_delinquent_owners(conn: Connection, grace_hours: int, limit: int = 200) -> list[int]:
    """Owners whose credits are used up for longer than the grace and who are not suspended."""
    rows = conn.fetch_all(
        "SELECT a.owner_id FROM credit_account a JOIN owner o ON o.id = a.owner_id"
        " WHERE a.delinquent_at <= statement_timestamp() - make_interval(hours => %s) AND o.suspended_at IS NULL"
        " ORDER BY a.owner_id LIMIT %s",
        (grace_hours, limit),
    )
    return [owner_id for (owner_id,) in rows]


def suspend_delinquent_owner(conn: Connection, owner_id: int, grace_hours: int) -> bool:
    """Suspend an owner whose grace is over; a credit that came meanwhile is seen. Returns whether it was suspended.

    Locks: the account, then the owner.
    """
    account = _lock_account(conn, owner_id)
    over = conn.fetch_one_or_none(
        "SELECT 1 FROM credit_account WHERE owner_id = %s"
        " AND delinquent_at <= clock_timestamp() - make_interval(hours => %s)",
        (owner_id, grace_hours),
    )
    if over is None or not owners.suspend(conn, owner_id, reason=owners.CREDITS_EXHAUSTED, actor=_SYSTEM_ACTOR):
        return False
    _notify_owner(conn, account, "suspended")
    return True


def clear_delinquencies(conn: Connection) -> int:
    """Lift every suspension for want of credits: metering was switched off. Returns how many.

    Locks: the accounts, by ascending owner; then the owners.
    """
    rows = conn.fetch_all(
        "SELECT owner_id FROM credit_account WHERE delinquent_at IS NOT NULL ORDER BY owner_id FOR NO KEY UPDATE"
    )
    for (owner_id,) in rows:
        conn.execute("UPDATE credit_account SET delinquent_at = NULL WHERE owner_id = %s", (owner_id,))
        _lift_credit_suspension(conn, _lock_account(conn, owner_id))
    return len(rows)


def list_prices(conn: Connection) -> list[Price]:
    """The price of each type of event that holds now, and those that will; by type and moment."""
    rows = conn.fetch_all(
        "SELECT p.event_type, p.credits, p.effective_from FROM price p WHERE p.effective_from >= ("
        "  SELECT max(held.effective_from) FROM price held"
        "  WHERE held.event_type = p.event_type AND held.effective_from <= clock_timestamp())"
        " ORDER BY p.event_type, p.effective_from"
    )
    return [Price(*row) for row in rows]


def set_price(
    conn: Connection, event_type: str, amount: int, *, effective_from: datetime | None = None, actor: str
) -> Price:
    """Set what an event of a type costs from now on, or from a moment to come. The past keeps its prices.

    It is written to the audit log as an act of the service, which is in no owner's affairs.

    Args:
        amount: 0 to 1,000,000 credits.
    Locks: the switch of metering, so that no debit that is under way prices by what held before.
    """
    if event_type not in EVENT_TYPES:
        raise InvalidArgument(f"The type must be one of: {', '.join(EVENT_TYPES)}.")
    validation.integer(amount, "credits", 0, 1_000_000)
    lock_metering_exclusive(conn)
    row = conn.fetch_one_or_none(
        "INSERT INTO price (event_type, effective_from, credits)"
        " SELECT %(type)s, t.at, %(credits)s FROM (SELECT coalesce(%(at)s::timestamptz, clock_timestamp()) AS at) AS t"
        " WHERE %(at)s::timestamptz IS NULL OR t.at > clock_timestamp()"
        " ON CONFLICT ON CONSTRAINT price_pkey DO UPDATE SET credits = excluded.credits"
        " RETURNING event_type, credits, effective_from",
        {"type": event_type, "credits": amount, "at": effective_from},
    )
    if row is None:
        raise InvalidArgument("A price holds from now on or from a moment to come; events of the past keep theirs.")
    set_to = Price(*row)
    audit.record(
        conn, None, actor, "credit.price", event_type, credits=amount, effective_from=set_to.effective_from.isoformat()
    )
    return set_to


def lock_metering_exclusive(conn: Connection) -> None:
    """Keep every debit away until the transaction ends; first of all locks.

    The table and not its row: who waits for a table comes before those who ask later, where debits that follow each
    other closely would share the row for ever.
    """
    conn.raw.execute("LOCK TABLE metering IN EXCLUSIVE MODE")


# What a project was billed that is being deleted, or is gone, was billed without a look at the trial.
_TRIAL_DUE_SQL = (
    "SELECT 1 WHERE NOT EXISTS ("
    " SELECT FROM credit_entry e WHERE e.owner_id = %(owner)s AND e.reference = %(trial)s)"
    " AND NOT EXISTS (SELECT FROM credit_entry e JOIN project pj ON pj.id = e.project_id"
    "  WHERE e.owner_id = %(owner)s AND e.kind = 'usage' AND pj.purging_at IS NULL)"
)
_ACCOUNT_COLUMNS = "owner_id, plan, balance, low_balance, delinquent_at"
_ENTRY_COLUMNS = "id, at, kind, amount, balance, reference, project_id, first_seq, last_seq, detail"


def _lock_account(conn: Connection, owner_id: int) -> CreditAccount:
    row = conn.fetch_one(
        f"SELECT {_ACCOUNT_COLUMNS} FROM credit_account WHERE owner_id = %s FOR NO KEY UPDATE", (owner_id,)
    )
    return CreditAccount(*row)


def _insert_entry(
    conn: Connection,
    account: CreditAccount,
    kind: str,
    amount: int,
    reference: str,
    detail: dict[str, Any],
    *,
    project_id: int | None = None,
    seq_range: tuple[int | None, int | None] = (None, None),
) -> tuple[CreditAccount, CreditEntry]:
    """Write an entry and move the balance of a locked account."""
    (balance,) = conn.fetch_one(
        "UPDATE credit_account SET balance = balance + %s WHERE owner_id = %s RETURNING balance",
        (amount, account.owner_id),
    )
    entry = conn.fetch_one(
        "INSERT INTO credit_entry (owner_id, kind, amount, balance, reference, project_id, first_seq, last_seq, detail,"
        f" itemised) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING {_ENTRY_COLUMNS}",
        (account.owner_id, kind, amount, balance, reference, project_id, *seq_range, Jsonb(detail), kind == "usage"),
    )
    if amount > 0:
        conn.execute(
            "UPDATE credit_account SET low_told = low_told AND balance < low_balance WHERE owner_id = %s",
            (account.owner_id,),
        )
    return _update_delinquency(conn, account.owner_id), CreditEntry(*entry)


def _update_delinquency(conn: Connection, owner_id: int) -> CreditAccount:
    """Say whether the account is delinquent; the first moment stands.

    Only credits that were used can be used up: an account that is opened at zero owes nothing, and while metering is
    off nobody does. The caller holds the switch.
    """
    before = _lock_account(conn, owner_id)
    conn.execute(
        "UPDATE credit_account a SET delinquent_at = CASE WHEN now.used_up THEN clock_timestamp() END FROM ("
        "  SELECT owner_id, balance <= 0 AND plan <> 'comped' AND (delinquent_at IS NOT NULL"
        "   OR EXISTS (SELECT FROM metering WHERE running) AND EXISTS ("
        "    SELECT FROM credit_entry e WHERE e.owner_id = %(owner)s AND e.kind = 'usage')) AS used_up"
        "  FROM credit_account WHERE owner_id = %(owner)s) AS now"
        " WHERE a.owner_id = now.owner_id AND (a.delinquent_at IS NULL) = now.used_up",
        {"owner": owner_id},
    )
    after = _lock_account(conn, owner_id)
    if before.delinquent_at is None and after.delinquent_at is not None:
        _notify_owner(conn, after, "delinquent")
    return after


def _lock_metering_shared(conn: Connection) -> None:
    """Keep metering on or off until the transaction ends; taken before the account, as by every debit."""
    conn.execute("SELECT 1 FROM metering FOR SHARE")


def _lift_credit_suspension(conn: Connection, account: CreditAccount) -> None:
    if account.delinquent_at is None:
        owners.lift_suspension(conn, account.owner_id, actor=_SYSTEM_ACTOR, only_reason=owners.CREDITS_EXHAUSTED)


def _notify_owner(conn: Connection, account: CreditAccount, kind: str) -> None:
    (email,) = conn.fetch_one("SELECT email FROM owner WHERE id = %s", (account.owner_id,))
    outbox.enqueue(conn, kind, owner_id=account.owner_id, email=email, balance=account.balance, plan=account.plan)
