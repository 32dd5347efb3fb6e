"""Browsers for tests: Flask's client, which also submits the forms of the page that it shows."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

from flask.testing import FlaskClient
from jinja2.bccache import Bucket, BytecodeCache
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from bus.auth import login_links
from bus.config.settings import Settings
from bus.db import Connection
from bus.tenancy.owners import Owner
from tests import servers
from webapp.app import create_app
from webapp.settings import WebOptions

BASE_URL = "https://bus.example.org"


class TemplateCache(BytecodeCache):
    """Compiled templates of all applications of this process; compiling them takes half the time of a short test."""

    def __init__(self) -> None:
        self._bytecode: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if (bytecode := self._bytecode.get(f"{bucket.key} {bucket.checksum}")) is not None:
            bucket.bytecode_from_string(bytecode)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._bytecode[f"{bucket.key} {bucket.checksum}"] = bucket.bytecode_to_string()


_TEMPLATE_CACHE = TemplateCache()


def _share_url_builders() -> None:
    """Compile the function that builds the URLs of a route once per process: 90% of the time of `create_app`."""
    compile_builder = Rule._compile_builder
    builders: dict[str, Callable[..., tuple[str, str]]] = {}

    def compile_once(rule: Rule, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        key = repr((rule.rule, rule._trace, rule.defaults, append_unknown))
        if key not in builders:
            builders[key] = compile_builder(rule, append_unknown)
        return builders[key]

    Rule._compile_builder = compile_once  # type: ignore[assignment, method-assign]


_share_url_builders()


class WebApp:
    """The application, created with settings as environment variables."""

    def __init__(self, database_url: str, **env: str) -> None:
        whole = {"DATABASE_URL": servers.application_url(database_url), "PUBLIC_URL": BASE_URL, **env}
        self.settings = Settings.from_env(whole)
        self.app = create_app(self.settings, WebOptions.from_env(whole))
        self.app.jinja_env.bytecode_cache = _TEMPLATE_CACHE

    def new_browser(self, **environ: Any) -> "Browser":
        """A browser without cookies."""
        return Browser(self, environ)

    def close(self) -> None:
        self.app.extensions["bus.db"].close()


class FormParser(HTMLParser):
    """The fields of the forms of a page, by their action."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.forms: dict[str, dict[str, str]] = {}
        self._current_form: dict[str, str] | None = None
        self._current_textarea: str | None = None
        self._current_select: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "form" and attributes.get("method", "").lower() == "post":
            self._current_form = self.forms.setdefault(attributes.get("action", ""), {})
        elif self._current_form is None:
            return
        elif tag == "input" and "name" in attributes and _is_submitted(attributes):
            self._current_form[attributes["name"]] = attributes.get("value", "")
        elif tag == "textarea":
            self._current_form[attributes["name"]] = ""
            self._current_textarea = attributes["name"]
        elif tag == "select":
            self._current_select = attributes["name"]
        elif (
            tag == "option"
            and self._current_select
            and ("selected" in attributes or self._current_select not in self._current_form)
        ):
            self._current_form[self._current_select] = attributes["value"]

    def handle_data(self, data: str) -> None:
        if self._current_textarea and self._current_form is not None:
            # Browsers drop a line end right after the tag.
            self._current_form[self._current_textarea] += data.removeprefix("\r\n").removeprefix("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._current_form = None
        elif tag == "textarea":
            self._current_textarea = None
        elif tag == "select":
            self._current_select = None


def _is_submitted(attributes: dict[str, str]) -> bool:
    return attributes.get("type") not in ("checkbox", "radio") or "checked" in attributes


class Browser:
    """A browser with its cookies and its current page."""

    def __init__(self, web: WebApp, environ: dict[str, Any]) -> None:
        self.web_app = web
        self.flask_client: FlaskClient = web.app.test_client()
        self._environ = environ
        self.current_page: TestResponse | None = None

    def get(self, path: str, **options: Any) -> TestResponse:
        return self._open("GET", path, **options)

    def post(self, path: str, **options: Any) -> TestResponse:
        """Send a POST request without adding a CSRF token."""
        return self._open("POST", path, **options)

    def follow_redirects(self, response: TestResponse) -> TestResponse:
        """Follow redirects within the site."""
        for _ in range(5):
            if response.status_code not in (302, 303):
                return response
            response = self.get(urlsplit(urljoin("/", response.location)).path or "/")
        raise AssertionError("too many redirects")

    def submit(self, action: str, **fields: str) -> TestResponse:
        """Submit the form of the current page with this action, with some fields changed."""
        assert self.current_page is not None
        forms = FormParser(self.current_page.text).forms
        assert action in forms, f"{action} is not among {sorted(forms)}"
        return self._open("POST", action or self.current_page.request.path, data={**forms[action], **fields})

    def sign_in(self, conn: Connection, owner: Owner) -> "Browser":
        """Sign in with a one-time link; `conn` must not be in a transaction, so that the link is committed."""
        path = f"/sign-in/link/{login_links.create_login_link(conn, owner, actor='cli')}"
        assert self.get(path).status_code == 200
        answer = self.submit(path)
        assert answer.status_code == 303, answer.text
        return self

    def get_csrf_token(self) -> str:
        """A CSRF token that is valid in this browser."""
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.get("/account/").text)
        assert found is not None
        return found[1]

    def cookies(self) -> dict[str, str]:
        return {cookie.key: cookie.value for cookie in self.flask_client._cookies.values()}

    def _open(self, method: str, path: str, **options: Any) -> TestResponse:
        response = self.flask_client.open(
            path, method=method, base_url=BASE_URL, environ_overrides=self._environ, buffered=True, **options
        )
        if response.mimetype == "text/html":
            self.current_page = response
        return response


def normalize_page(response: TestResponse, *own: str) -> str:
    """The text of a page without what differs in every response: nonce, CSRF token, and the texts in `own`."""
    text = re.sub(r'nonce="[^"]*"|name="csrf_token" value="[^"]*"', "", response.text)
    for one in own:
        text = text.replace(one, "")
    return text
