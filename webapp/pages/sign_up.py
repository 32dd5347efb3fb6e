"""Sign-up: a user authenticated by a provider chooses a handle and gets an account."""

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
    """The handle of the new account."""

    handle = StringField(
        "Handle",
        description="1–64 lowercase letters, digits and single hyphens. Shown to others with everything that you and"
        " your agents do. You can change it later in your account.",
        validators=[InputRequired("Choose a handle.")],
    )


@blueprint.route("/welcome", methods=["GET", "POST"])
def index() -> str | Response | tuple[str, int]:
    """Ask for the handle, then create the account."""
    pending = login.find_pending_sign_up()
    if pending is None:
        return redirect(url_for("sign_in.index"), 303)
    token, method = pending
    with connection() as conn:
        claims = identities.find_sign_up(conn, token)
        if claims is None or claims.email is None:
            flash("That took too long. Sign in again; nothing was created.", "error")
            return redirect(url_for("sign_in.index"), 303)
        suggestion = owners.suggest_handle(conn, f"{claims.login}@" if claims.login else claims.email)
    form = HandleForm(handle=suggestion)
    if form.validate_on_submit():
        enforce_rate_limit("sign-up", client_address(), options().sign_in_per_minute)
        target = login.pending_redirect_target()
        with show_refusal_on_form(form, default_field="handle"), transaction() as conn:
            login.finish_sign_up(conn, token, form.handle.data, method)
        if not form.errors:
            flash("Welcome. Your account is ready.", "success")
            return redirect(target, 303)
    page = render_template("sign_up/index.html", form=form, claim=claims)
    return (page, 422) if form.errors else page
