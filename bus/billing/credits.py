"""Credits: one account of prepaid whole numbers per owner, its append-only entries, and suspension at zero.

Every entry has a reference that is unique per owner, so that a repeated request adds one entry. Writers of an entry
lock the account first.
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
from bus.tenancy import audit, owners

MAX_CREDITS = 10**12
DEFAULT_LOW_BALANCE = 100
"""Balance below which an owner is notified by default."""
_TRIAL = "trial"
_SYSTEM_ACTOR = "clock"


@dataclass(frozen=True, slots=True)
class CreditAccount:
    """An owner's credits.

    Attributes:
        plan: one of CREDIT_PLANS.
        low_balance: the owner is notified each time that the balance falls below it.
        delinquent_at: since when the balance is exhausted; None while it is not, and for plans that are not suspended.
    """

    owner_id: int
    plan: str
    balance: int
    low_balance: int
    delinquent_at: datetime | None


@dataclass(frozen=True, slots=True)
class CreditEntry:
    """One change of a balance.

    Attributes:
        kind: trial, grant, top_up or usage.
        amount: credits added; negative for usage.
        balance: balance after the entry.
        first_seq, last_seq: for usage, the billed events of the project.
        detail: for usage, `[events, credits]` by event type; otherwise `by` and `reason`.
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


def get_or_create_account(conn: Connection, owner_id: int, *, trial_credits: int = 0) -> CreditAccount:
    """Return the owner's account, which is created if necessary and locked until the transaction ends.

    Args:
        trial_credits: granted once, before the first usage; also to an account that a payment or a plan has created.
    Locks: the account, then the owner.
    """
    conn.execute("INSERT INTO credit_account (owner_id) VALUES (%s) ON CONFLICT DO NOTHING", (owner_id,))
    account = _lock_account(conn, owner_id)
    if trial_credits > 0 and conn.fetch_one_or_none(_TRIAL_DUE_SQL, {"owner": owner_id, "trial": _TRIAL}) is not None:
        account = _insert_entry(conn, account, _TRIAL, trial_credits, _TRIAL, {})[0]
        _lift_credit_suspension(conn, account)
    return account


def find_account(conn: Connection, owner_id: int) -> CreditAccount | None:
    """Return the owner's account, or None if nothing was ever billed or added."""
    return conn.fetch_one_or_none_as(
        CreditAccount, f"SELECT {_ACCOUNT_COLUMNS} FROM credit_account WHERE owner_id = %s", (owner_id,)
    )


def list_entries(
    conn: Connection, owner_id: int, *, exclude_usage: bool = False, before: int | None = None, limit: int = 50
) -> list[CreditEntry]:
    """Return entries of an account with ids below `before`, newest first.

    Args:
        exclude_usage: only entries that added credits; usage has many more.
    """
    validation.integer(limit, "limit", 1, 1000)
    # A literal, not a parameter, so that the planner uses the partial index.
    kind_condition = " AND kind <> 'usage'" if exclude_usage else ""
    return conn.fetch_all_as(
        CreditEntry,
        f"SELECT {_ENTRY_COLUMNS} FROM credit_entry WHERE owner_id = %(owner)s{kind_condition}"
        " AND (%(before)s::bigint IS NULL OR id < %(before)s) ORDER BY id DESC LIMIT %(limit)s",
        {"owner": owner_id, "before": before, "limit": limit},
    )


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
    """Add credits; the same transaction lifts a suspension for exhausted credits.

    Args:
        amount: 1 to 10^12.
        reference: identifies the payment or grant; repeating it changes nothing and returns the first entry.
        kind: `top_up` or `grant`.
    Raises:
        BusError: `conflict` if the reference was used for another kind or amount.
    Locks: the row of `metering` (shared), the account, then the owner.
    """
    validation.integer(amount, "amount", 1, MAX_CREDITS)
    valid_reference = validation.name(reference, "ref", 200)
    validation.free_text(reason, "reason", 500, 0)
    _lock_metering_shared(conn)
    account = get_or_create_account(conn, owner_id)
    existing = conn.fetch_one_or_none_as(
        CreditEntry,
        f"SELECT {_ENTRY_COLUMNS} FROM credit_entry WHERE owner_id = %s AND reference = %s",
        (owner_id, valid_reference),
    )
    if existing is not None:
        if (existing.amount, existing.kind) != (amount, kind):
            raise BusError(
                "conflict",
                f"Reference {valid_reference} was used for {existing.kind} of {existing.amount} credits;"
                " use a new one.",
            )
        return existing
    account, entry = _insert_entry(conn, account, kind, amount, valid_reference, {"by": actor, "reason": reason})
    audit.record(conn, owner_id, actor, "credit.add", valid_reference, amount=amount, kind=kind, reason=reason)
    _lift_credit_suspension(conn, account)
    return entry


def set_plan(conn: Connection, owner_id: int, plan: str, *, actor: str) -> CreditAccount:
    """Put an owner on a plan: free, team, or comped, which is metered and never suspended.

    Locks: the row of `metering` (shared), the account, then the owner.
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
    """Notify the owner when the balance falls below `threshold`; 0 switches the notification off.

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
    """Debit an account for the events `first_seq` to `last_seq` of a project.

    The caller has locked the account and writes the usage to `credit_usage` in the same transaction. When the balance
    falls below the threshold, the owner is notified once; at zero the account becomes delinquent.

    Args:
        amount: credits, positive.
        detail: `[events, credits]` by event type.
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
    (fell_below_threshold,) = conn.fetch_one(
        "UPDATE credit_account a SET low_told = a.balance < a.low_balance AND a.plan <> 'comped' FROM"
        " (SELECT low_told FROM credit_account WHERE owner_id = %(owner)s) AS before"
        " WHERE a.owner_id = %(owner)s RETURNING a.low_told AND NOT before.low_told",
        {"owner": account.owner_id},
    )
    if fell_below_threshold:
        _notify_owner(conn, account, "low_balance")
    return _update_delinquency(conn, account.owner_id)


def list_delinquent_owners(conn: Connection, grace_hours: int, limit: int = 200) -> list[int]:
    """Return the ids of owners whose grace period is over and who are not suspended yet."""
    rows = conn.fetch_all(
        "SELECT a.owner_id FROM credit_account a JOIN owner o ON o.id = a.owner_id"
        " WHERE a.delinquent_at <= statement_timestamp() - make_interval(hours => %s) AND o.suspended_at IS NULL"
        " ORDER BY a.owner_id LIMIT %s",
        (grace_hours, limit),
    )
    return [owner_id for (owner_id,) in rows]


def suspend_delinquent_owner(conn: Connection, owner_id: int, grace_hours: int) -> bool:
    """Suspend an owner whose grace period is over; returns whether it did.

    Credits that were added since `list_delinquent_owners` prevent the suspension.

    Locks: the account, then the owner.
    """
    account = _lock_account(conn, owner_id)
    overdue = conn.fetch_one_or_none(
        "SELECT 1 FROM credit_account WHERE owner_id = %s"
        " AND delinquent_at <= clock_timestamp() - make_interval(hours => %s)",
        (owner_id, grace_hours),
    )
    if overdue is None or not owners.suspend(conn, owner_id, reason=owners.CREDITS_EXHAUSTED, actor=_SYSTEM_ACTOR):
        return False
    _notify_owner(conn, account, "suspended")
    return True


def clear_delinquencies(conn: Connection) -> int:
    """Clear every delinquency and lift its suspension, as metering was switched off; returns the number of accounts.

    Locks: the accounts, by ascending owner; then the owners.
    """
    rows = conn.fetch_all(
        "SELECT owner_id FROM credit_account WHERE delinquent_at IS NOT NULL ORDER BY owner_id FOR NO KEY UPDATE"
    )
    for (owner_id,) in rows:
        conn.execute("UPDATE credit_account SET delinquent_at = NULL WHERE owner_id = %s", (owner_id,))
        _lift_credit_suspension(conn, _lock_account(conn, owner_id))
    return len(rows)


def lock_metering_exclusive(conn: Connection) -> None:
    """Block all debits until the transaction ends; taken before all other locks.

    Locks the table, not its row: requests for a table lock queue in order, while a steady stream of debits would share
    the row lock forever.
    """
    conn.execute("LOCK TABLE metering IN EXCLUSIVE MODE")


# The purge bills a project without granting the trial, so usage of purged projects does not count here.
_TRIAL_DUE_SQL = (
    "SELECT 1 WHERE NOT EXISTS ("
    " SELECT FROM credit_entry e WHERE e.owner_id = %(owner)s AND e.reference = %(trial)s)"
    " AND NOT EXISTS (SELECT FROM credit_entry e JOIN project pj ON pj.id = e.project_id"
    "  WHERE e.owner_id = %(owner)s AND e.kind = 'usage' AND pj.purging_at IS NULL)"
)
_ACCOUNT_COLUMNS = "owner_id, plan, balance, low_balance, delinquent_at"
_ENTRY_COLUMNS = "id, at, kind, amount, balance, reference, project_id, first_seq, last_seq, detail"


def _lock_account(conn: Connection, owner_id: int) -> CreditAccount:
    return conn.fetch_one_as(
        CreditAccount,
        f"SELECT {_ACCOUNT_COLUMNS} FROM credit_account WHERE owner_id = %s FOR NO KEY UPDATE",
        (owner_id,),
    )


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
    """Write an entry and update the balance of a locked account."""
    (balance,) = conn.fetch_one(
        "UPDATE credit_account SET balance = balance + %s WHERE owner_id = %s RETURNING balance",
        (amount, account.owner_id),
    )
    entry = conn.fetch_one_as(
        CreditEntry,
        "INSERT INTO credit_entry (owner_id, kind, amount, balance, reference, project_id, first_seq, last_seq, detail,"
        f" itemised) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING {_ENTRY_COLUMNS}",
        (account.owner_id, kind, amount, balance, reference, project_id, *seq_range, Jsonb(detail), kind == "usage"),
    )
    if amount > 0:
        conn.execute(
            "UPDATE credit_account SET low_told = low_told AND balance < low_balance WHERE owner_id = %s",
            (account.owner_id,),
        )
    return _update_delinquency(conn, account.owner_id), entry


def _update_delinquency(conn: Connection, owner_id: int) -> CreditAccount:
    """Set or clear `delinquent_at` by the balance; an earlier time stays.

    An account becomes delinquent only after usage and only while metering is on: an account that is opened at zero owes
    nothing. The caller has locked `metering`.
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
    """Prevent switching metering until the transaction ends; taken before the account, as in every debit."""
    conn.execute("SELECT 1 FROM metering FOR SHARE")


def _lift_credit_suspension(conn: Connection, account: CreditAccount) -> None:
    if account.delinquent_at is None:
        owners.lift_suspension(conn, account.owner_id, actor=_SYSTEM_ACTOR, only_reason=owners.CREDITS_EXHAUSTED)


def _notify_owner(conn: Connection, account: CreditAccount, kind: str) -> None:
    (email,) = conn.fetch_one("SELECT email FROM owner WHERE id = %s", (account.owner_id,))
    outbox.enqueue(conn, kind, owner_id=account.owner_id, email=email, balance=account.balance, plan=account.plan)
