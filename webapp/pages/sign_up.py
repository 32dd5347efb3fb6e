"""The first visit: somebody for whom a provider vouched chooses a handle, and has an account."""

from flask import flash, redirect, render_template, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response
from wtforms import StringField
from wtforms.validators import InputRequired

from bus.auth import identities
from bus.tenancy import owners
from webapp import login
from webapp.blueprints import PublicBlueprint
from webapp.context import connection, options, show_refusal_on_form, transaction
from webapp.ratelimit import client_address, enforce_rate_limit

blueprint = PublicBlueprint("sign_up")


class HandleForm(FlaskForm):  # type: ignore[misc]
    """What people will call you."""

    handle = StringField(
        "Handle",
        description="Lower-case letters, digits and single hyphens. Others see it on everything that you and your "
        "agents do. It stays yours for good.",
        validators=[InputRequired("Choose a handle.")],
    )


@blueprint.route("/welcome", methods=["GET", "POST"])
def index() -> str | Response | tuple[str, int]:
    """Ask for the handle; create the account."""
    under_way = login.find_pending_sign_up()
    if under_way is None:
        return redirect(url_for("sign_in.index"), 303)
    token, method = under_way
    with connection() as conn:
        claim = identities.find_sign_up(conn, token)
        if claim is None or claim.email is None:
            flash("That took too long. Sign in again; nothing was created.", "error")
            return redirect(url_for("sign_in.index"), 303)
        suggested = owners.suggest_handle(conn, f"{claim.login}@" if claim.login else claim.email)
    form = HandleForm(handle=suggested)
    if form.validate_on_submit():
        enforce_rate_limit("sign-up", client_address(), options().sign_in_per_minute)
        after = login.pending_redirect_target()
        with show_refusal_on_form(form, default_field="handle"), transaction() as conn:
            login.finish_sign_up(conn, token, form.handle.data, method)
        if not form.errors:
            flash("Welcome. Your account is ready.", "success")
            return redirect(after, 303)
    page = render_template("sign_up/index.html", form=form, claim=claim)
    return (page, 422) if form.errors else page
