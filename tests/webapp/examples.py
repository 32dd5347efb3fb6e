"""An owner with something of everything, and the address of every page there is, for those who look at all of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from werkzeug.routing import Rule

from bus import identities, owners, projects
from bus.db import Database
from bus.identities import Claim
from bus.rules.tokens import mint_code
from tests import scenes
from tests.factories import make_owner, make_project
from tests.webapp.visits import Web
from webapp.page import Pages

# They are asked by machines.
_SKIPPED = {"static", "health.healthz", "health.readyz", "stats.index", "vouching.callback"}
# What turns features on that have pages or parts of pages.
ENV = {
    "METERING": "1",
    "TERMS_URL": "https://example.org/terms",
    "PRIVACY_URL": "https://example.org/privacy",
    "GOOGLE_CLIENT_ID": "example",
    "GOOGLE_CLIENT_SECRET": "example",
    "GITHUB_CLIENT_ID": "example",
    "GITHUB_CLIENT_SECRET": "example",
    "SIGN_IN_PER_MINUTE": "0",
}


@dataclass(frozen=True)
class Example:
    """What `fill` made."""

    owner: owners.Owner
    project: projects.Project
    scene: scenes.Scene


@dataclass(frozen=True)
class Shown:
    """A page: what to call its picture, where it is, and whether one has to be signed in."""

    name: str
    path: str
    private: bool


def fill(db: Database) -> Example:
    """Make an owner with two projects, one of them at work, and two linked sign-ins."""
    with db.write() as conn:
        owner = make_owner(conn, "ada")
        project = make_project(conn, "apollo", owner)
        scene = scenes.set_up(conn, project)
        make_project(conn, "website", owner)
        identities.link(conn, owner, Claim("https://github.com", "1815", "ada@example.org", "ada"))
        identities.link(conn, owner, Claim("https://accounts.google.com", "42", "ada@lovelace.example", "ada"))
    return Example(owner, project, scene)


def every_page(web: Web, example: Example) -> Iterator[Shown]:
    """Every page that answers a GET, found in the application itself, and the page of an error.

    Raises:
        LookupError: an address needs something that `_values` does not know yet.
    """
    with web.app.test_request_context():
        for rule in web.app.url_map.iter_rules():
            if rule.endpoint in _SKIPPED or "GET" not in (rule.methods or ()):
                continue
            built = rule.build(_values(rule, example))
            if built is None:
                raise LookupError(f"{rule.rule}: say in tests/webapp/examples.py what its address needs")
            private = isinstance(web.app.blueprints.get(rule.endpoint.partition(".")[0]), Pages)
            yield Shown(rule.endpoint.replace(".", "-").replace("_", "-"), built[1], private)
    yield Shown("error-404", "/nope", private=False)


def _values(rule: Rule, example: Example) -> dict[str, Any]:
    known: dict[str, Any] = {"project_id": example.project.id, "code": mint_code(), "token": "x" * 43}
    missing = rule.arguments - set(known)
    if missing:
        raise LookupError(f"{rule.rule}: say in tests/webapp/examples.py what {', '.join(sorted(missing))} may be")
    return {name: known[name] for name in rule.arguments}
