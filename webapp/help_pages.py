"""The page of the documentation that explains a page, by blueprint: linked in the account menu and the footer."""

from flask import g, request, url_for

HELP_PAGES = {
    "account": ("howto/sign-in", None),
    "audit": ("howto/admin", "pages"),
    "board": ("howto/admin", "live-board"),
    "connected_clients": ("howto/connect", None),
    "credentials": ("howto/connect", None),
    "credits": ("howto/credits", "what-owners-see"),
    "handle": ("howto/admin", "names"),
    "handoffs": ("howto/admin", "reading-and-answering"),
    "inbox": ("howto/admin", "inbox"),
    "insights": ("howto/insights", None),
    "invites": ("howto/invites", None),
    "join": ("howto/invites", "redeem-an-invite"),
    "leases": ("explanation/leases", None),
    "ledger": ("explanation/ledger", None),
    "memberships": ("howto/people", None),
    "operator": ("howto/operate", None),
    "operator_audit": ("howto/operate", None),
    "operator_invites": ("howto/operate", None),
    "operator_jobs": ("howto/jobs", None),
    "operator_owners": ("howto/operate", None),
    "operator_projects": ("howto/operate", None),
    "operator_settings": ("reference/settings", None),
    "overview": ("howto/admin", "pages"),
    "participants": ("howto/admin", "names"),
    "project_participants": ("howto/connect", None),
    "project_settings": ("howto/jobs", "overdue-handoffs"),
    "projects": ("howto/admin", "pages"),
    "refs": ("howto/admin", "texts-and-references"),
    "search": ("howto/admin", "search"),
    "share_links": ("howto/admin", "sharing-a-board"),
    "sign_in": ("howto/sign-in", None),
}


def help_url() -> str | None:
    """The address of the documentation of the current page; None for pages without one.

    Error pages have none: a page that does not exist for the viewer must look like an unknown address.
    """
    if g.get("bus_is_error_page"):
        return None
    name, anchor = HELP_PAGES.get(request.blueprint or "", (None, None))
    return None if name is None else url_for("documentation.show", name=name, _anchor=anchor)
