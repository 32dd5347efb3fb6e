"""Billing status of an owner: whether events are billed, the state of the account, and a coming suspension."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from bus.billing import credits
from bus.billing.credits import CreditAccount
from bus.db import Connection
from bus.tenancy import owners


@dataclass(frozen=True, slots=True)
class BillingTerms:
    """Billing terms of the service.

    Attributes:
        metering_enabled: whether events are billed now.
        grace_hours, trial_credits: settings of the workers (`metering.record_terms`); None until a worker has run.
    """

    metering_enabled: bool
    grace_hours: int | None
    trial_credits: int | None


@dataclass(frozen=True, slots=True)
class BillingStatus:
    """Billing status of an owner.

    Attributes:
        account: None while nothing was ever billed or added.
        suspended_at: since when calls of the owner's tokens are refused.
        suspended_for_credits: credits are exhausted, and adding some lifts the suspension.
        suspends_at: end of the grace period of a delinquent account.
    """

    terms: BillingTerms
    account: CreditAccount | None
    suspended_at: datetime | None
    suspended_for_credits: bool
    suspends_at: datetime | None

    @property
    def state(self) -> str:
        """The most important fact, as one word.

        paused (the operator suspended the owner), suspended (credits are exhausted), off (nothing is billed), new (no
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
    """Return the billing terms of the service."""
    return conn.fetch_one_as(
        BillingTerms, "SELECT running AS metering_enabled, grace_hours, trial_credits FROM metering"
    )


def get_billing_status(conn: Connection, owner_id: int) -> BillingStatus:
    """Return the billing status of an owner."""
    terms, account = get_terms(conn), credits.find_account(conn, owner_id)
    suspended_at, reason = conn.fetch_one("SELECT suspended_at, suspended_reason FROM owner WHERE id = %s", (owner_id,))
    suspends_at = None
    if account is not None and account.delinquent_at is not None and terms.grace_hours is not None:
        suspends_at = account.delinquent_at + timedelta(hours=terms.grace_hours)
    return BillingStatus(
        terms=terms,
        account=account,
        suspended_at=suspended_at,
        suspended_for_credits=reason == owners.CREDITS_EXHAUSTED,
        suspends_at=suspends_at,
    )


def get_billing_flags(conn: Connection, owner_id: int | None) -> tuple[bool, bool]:
    """Return whether events are billed, and whether to show billing to an owner: if so, or if there is an account."""
    metering_enabled, has_account = conn.fetch_one(
        "SELECT m.running, EXISTS (SELECT FROM credit_account a WHERE a.owner_id = %s) FROM metering m", (owner_id,)
    )
    return metering_enabled, metering_enabled or has_account
