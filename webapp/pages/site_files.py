"""Files that browsers and crawlers request by fixed addresses."""

from flask import Response, current_app

from webapp.blueprints import PublicBlueprint

blueprint = PublicBlueprint("site_files")

# Pages behind the sign-in answer with a redirect anyway; an address of an invite is a secret.
_ROBOTS = """User-agent: *
Disallow: /admin/
Disallow: /operator
Disallow: /account/
Disallow: /join/
Disallow: /shared/
Disallow: /sign-in/
Allow: /
"""


@blueprint.get("/favicon.ico")
def favicon() -> Response:
    """Send the icon of the site."""
    return current_app.send_static_file("favicon.ico")


@blueprint.get("/apple-touch-icon.png")
def apple_touch_icon() -> Response:
    """Send the icon for the home screen of a phone."""
    return current_app.send_static_file("apple-touch-icon.png")


@blueprint.get("/robots.txt")
def robots() -> Response:
    """Keep crawlers out of pages that are not public."""
    return Response(_ROBOTS, mimetype="text/plain")
