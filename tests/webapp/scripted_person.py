"""A script in place of a person: it opens the address of a client as a browser, and consents."""

import html
import re
from urllib.parse import urljoin

import httpx2

from bus.auth import login_links
from bus.db import Database
from bus.tenancy.owners import Owner
from tests.webapp.web_client import FormParser


def consent(web_url: str, db: Database, owner: Owner, address: str, **fields: str) -> str:
    """Sign in as an owner, open an address of `/oauth/authorize`, allow it, and return where the browser is sent back.

    Args:
        fields: those of the consent page that are filled in differently.
    """
    with httpx2.Client(base_url=web_url, follow_redirects=True) as http:
        with db.transaction() as conn:
            path = f"/sign-in/link/{login_links.create_login_link(conn, owner, actor='cli')}"
        http.post(path, data=FormParser(http.get(path).text).forms[path])
        page = http.get(address)
        assert page.status_code == 200, page.text
        ((action, form),) = [entry for entry in FormParser(page.text).forms.items() if "target" in entry[1]]
        answer = http.post(urljoin(web_url, action), data={**form, "decision": "allow", **fields})
    link = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', answer.text)
    assert link is not None, answer.text
    return html.unescape(link[1])
