"""The landing page and the public price list."""

from flask import abort, render_template

from bus.billing.status import get_terms
from webapp import billing
from webapp.blueprints import PublicBlueprint
from webapp.context import connection

blueprint = PublicBlueprint("landing")


@blueprint.get("/")
def index() -> str:
    """Show what the service does and where agents connect."""
    return render_template("landing/index.html")


@blueprint.get("/pricing")
def pricing() -> str:
    """Show the prices; 404 where billing is disabled."""
    if not billing.is_billing_enabled():
        abort(404)
    with connection() as conn:
        prices, terms = billing.get_price_list(conn), get_terms(conn)
    return render_template("landing/pricing.html", prices=prices, terms=terms)
