"""Billing as an owner meets it: whether anything is billed, where the account stands, and what happens at zero."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from bus.billing import credits
from bus.billing.credits import CreditAccount
from bus.db import Connection
from bus.tenancy import owners


@dataclass(frozen=True, slots=True)
class BillingTerms:
    """Under which terms credits are used here.

    Attributes:
        running: whether events are billed at this moment.
        grace_hours, trial_credits: as the workers were told; None until one has said so.
    """

    metering_enabled: bool
    grace_hours: int | None
    trial_credits: int | None


@dataclass(frozen=True, slots=True)
class BillingStatus:
    """Where an owner stands.

    Attributes:
        account: None while nothing was ever billed or added.
        suspended_at: since when the owner's agents are refused.
        for_credits: they are refused for want of credits, and a credit lifts it.
        suspends_at: when the grace of a delinquent account is over.
    """

    terms: BillingTerms
    account: CreditAccount | None
    suspended_at: datetime | None
    suspended_for_credits: bool
    suspends_at: datetime | None

    @property
    def state(self) -> str:
        """What matters most.

        paused (the operator suspended the owner), suspended (for want of credits), off (nothing is billed), new (no
        account yet), comped, delinquent, low, or good.
        """
        account = self.account
        if self.suspended_at is not None:
            return "suspended" if self.suspended_for_credits else "paused"
        if not self.terms.metering_enabled:
            return "off"
        if account is None:
            return "new"
        if account.plan == "comped":
            return "comped"
        if account.delinquent_at is not None:
            return "delinquent"
        return "low" if account.balance < account.low_balance else "good"


def get_terms(conn: Connection) -> BillingTerms:
    """The terms of this service."""
    return BillingTerms(*conn.fetch_one("SELECT running, grace_hours, trial_credits FROM metering"))


def get_billing_status(conn: Connection, owner_id: int) -> BillingStatus:
    """Where an owner stands."""
    terms, account = get_terms(conn), credits.find_account(conn, owner_id)
    suspended_at, reason = conn.fetch_one("SELECT suspended_at, suspended_reason FROM owner WHERE id = %s", (owner_id,))
    due = None
    if account is not None and account.delinquent_at is not None and terms.grace_hours is not None:
        due = account.delinquent_at + timedelta(hours=terms.grace_hours)
    return BillingStatus(terms, account, suspended_at, reason == owners.CREDITS_EXHAUSTED, due)


def get_billing_flags(conn: Connection, owner_id: int | None) -> tuple[bool, bool]:
    """Whether events are billed, and whether billing concerns an owner: it is, or the owner has an account."""
    running, has_account = conn.fetch_one(
        "SELECT m.running, EXISTS (SELECT FROM credit_account a WHERE a.owner_id = %s) FROM metering m", (owner_id,)
    )
    return running, running or has_account
