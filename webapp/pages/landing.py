"""The landing page and the public price list."""

from contextlib import suppress

import psycopg
from flask import abort, render_template

from bus import client_setup
from bus.analytics import service_totals
from bus.billing.status import get_terms
from bus.errors import BusError
from webapp import billing
from webapp.blueprints import PublicBlueprint
from webapp.context import addresses, connection, options, transaction

blueprint = PublicBlueprint("landing")

_TOKEN_PLACEHOLDER = "lbus_TOKEN"  # noqa: S105 - stands for a token


@blueprint.get("/")
def index() -> str:
    """Show what the service does, how to start, and where PUBLIC_STATS is set its totals, a minute old at most."""
    stats = None
    if options().public_stats:
        # The totals are decoration here; the page must not fail with the database.
        with suppress(BusError, psycopg.Error), transaction() as conn:
            stats = service_totals.get_stats(conn)
    clients = client_setup.build_client_setups(addresses(), _TOKEN_PLACEHOLDER)
    return render_template("landing/index.html", clients=clients, stats=stats)


@blueprint.get("/pricing")
def pricing() -> str:
    """Show the prices; 404 where billing is disabled."""
    if not billing.is_billing_enabled():
        abort(404)
    with connection() as conn:
        prices, terms = billing.get_price_list(conn), get_terms(conn)
    return render_template("landing/pricing.html", prices=prices, terms=terms)
