"""Sign-in in a real browser through the certified OpenID provider `oidc-provider`."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey
from playwright.sync_api import Browser, Page, expect

from bus.db import Database
from tests.node import Node, find_or_install_node
from tests.servers import free_port
from tests.webapp import nginx
from tests.webapp.browser import open_page
from tests.webapp.live_server import running_live_server

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

_FOLDER = Path(__file__).with_name("oidc_provider")
# Characters that RFC 6749, 2.3.1 requires to be encoded.
_CLIENT_ID, _CLIENT_SECRET = "the bus: 1", "s+e/c%r=e:t&~"
_KEY = ECKey.generate_key("P-256", parameters={"kid": "bus"})


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Node, Path]:
    """Node, and the folder with the packages of the lock file."""
    node, folder = find_or_install_node(), tmp_path_factory.mktemp("oidc-provider")
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(_FOLDER / name, folder / name)
    command = [*node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=folder, env={**os.environ, "PATH": node.path}, check=True)
    return node, folder


@contextmanager
def _running_provider(
    packages: tuple[Node, Path], port: int, web_url: str, claims: dict[str, Any], **client: Any
) -> Iterator[None]:
    node, folder = packages
    config = {
        "port": port,
        "claims": claims,
        "client": {
            "client_id": _CLIENT_ID,
            "redirect_uris": [f"{web_url}/sign-in/oidc/callback"],
            "response_types": ["code"],
            "grant_types": ["authorization_code"],
            **client,
        },
    }
    executable = shutil.which("node", path=node.path)
    assert executable is not None
    with subprocess.Popen(
        [executable, str(_FOLDER / "server.mjs")],
        env={"PATH": node.path, "CONFIG": json.dumps(config), "PACKAGES": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.terminate()


def _block_fonts(page: Page) -> None:
    """The provider's pages import a font; without the internet they would wait for it."""
    page.route("https://fonts.googleapis.com/**", lambda route: route.abort())


def _sign_in_at_provider(page: Page, login: str) -> None:
    page.get_by_role("button", name="Continue with Single sign-on").click()
    page.locator("input[name=login]").fill(login)
    page.locator("input[name=password]").fill("any")
    page.locator("button[type=submit]").click()
    page.get_by_role("button", name="Continue").click()


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
def test_a_person_signs_up_and_in_through_the_certified_provider(
    packages: tuple[Node, Path], chromium: Browser, database_url: str, method: str
) -> None:
    port = free_port()
    has_key = method == "private_key_jwt"
    env = {
        "OIDC_ISSUER": f"http://127.0.0.1:{port}",
        "OIDC_CLIENT_ID": _CLIENT_ID,
        "PROVIDER_SECONDS": "20",
        **(
            {"OIDC_CLIENT_KEY": _KEY.as_pem(private=True).decode()}
            if has_key
            else {"OIDC_CLIENT_SECRET": _CLIENT_SECRET}
        ),
    }
    public_key = {**_KEY.as_dict(private=False), "alg": "ES256", "use": "sig"}
    client: dict[str, Any] = (
        {"jwks": {"keys": [public_key]}, "token_endpoint_auth_signing_alg": "ES256"}
        if has_key
        else {"client_secret": _CLIENT_SECRET}
    )
    with running_live_server(database_url, **env) as url:
        claims = {"email_verified": True}
        with (
            _running_provider(packages, port, url, claims, token_endpoint_auth_method=method, **client),
            open_page(chromium) as page,
        ):
            _block_fonts(page)
            page.goto(f"{url}/sign-in")
            _sign_in_at_provider(page, "ada")
            page.get_by_label("Handle").wait_for()
            page.get_by_role("button").last.click()
            page.wait_for_url(f"{url}/admin/**")
            page.goto(f"{url}/account/")
            expect(page.get_by_role("main")).to_contain_text("ada@example.org")
            # Again, in a browser that the provider knows and the bus does not.
            page.context.clear_cookies(name="llm-bus")
            page.goto(f"{url}/sign-in")
            page.get_by_role("button", name="Continue with Single sign-on").click()
            page.wait_for_url(f"{url}/admin/**")
            # Cancelled consent.
            page.context.clear_cookies()
            page.goto(f"{url}/sign-in")
            page.get_by_role("button", name="Continue with Single sign-on").click()
            page.get_by_text("Cancel").click()
            expect(page.get_by_text("You declined to sign in with Single sign-on")).to_be_visible()
    with closing(Database(database_url, pool_size=1)) as db, db.connection() as conn:
        assert conn.fetch_all("SELECT subject, email FROM identity") == [("ada", "ada@example.org")]


@pytest.mark.parametrize("trusted", [False, True])
def test_an_address_that_the_certified_provider_does_not_verify(
    packages: tuple[Node, Path], chromium: Browser, database_url: str, trusted: bool
) -> None:
    port = free_port()
    env = {
        "OIDC_ISSUER": f"http://127.0.0.1:{port}",
        "OIDC_CLIENT_ID": _CLIENT_ID,
        "OIDC_CLIENT_SECRET": _CLIENT_SECRET,
        "OIDC_TRUST_EMAIL": "1" if trusted else "0",
        "PROVIDER_SECONDS": "20",
    }
    client = {"client_secret": _CLIENT_SECRET, "token_endpoint_auth_method": "client_secret_basic"}
    with (
        running_live_server(database_url, **env) as url,
        _running_provider(packages, port, url, {}, **client),
        open_page(chromium) as page,
    ):
        _block_fonts(page)
        page.goto(f"{url}/sign-in")
        _sign_in_at_provider(page, "ada")
        if trusted:
            page.get_by_label("Handle").wait_for()
            return
        expect(page.get_by_role("alert")).to_contain_text("verified")
        # The other account is chosen there: no loop.
        page.get_by_role("button", name="Continue with Single sign-on").click()
        expect(page.locator("input[name=login]")).to_be_visible()


@pytest.mark.skipif(nginx.find_nginx() is None, reason=nginx.SKIP_REASON)
def test_a_person_signs_up_and_in_behind_nginx(
    packages: tuple[Node, Path], chromium: Browser, database_url: str, tmp_path: Path
) -> None:
    """With the configuration of deploy/: TLS ends at nginx, and the log has nothing of the callback but its path."""
    provider_port, port = free_port(), free_port()
    public_url = f"https://localhost:{port}"
    env = {
        "PUBLIC_URL": public_url,
        # nginx passes the host without the port, which is 443 where it is deployed.
        "ALLOWED_HOSTS": "localhost",
        "PROXY_HOPS": "1",
        "OIDC_ISSUER": f"http://127.0.0.1:{provider_port}",
        "OIDC_CLIENT_ID": _CLIENT_ID,
        "OIDC_CLIENT_SECRET": _CLIENT_SECRET,
        "PROVIDER_SECONDS": "20",
    }
    client = {"client_secret": _CLIENT_SECRET, "token_endpoint_auth_method": "client_secret_basic"}
    with (
        running_live_server(database_url, **env) as web_url,
        nginx.running_nginx(tmp_path, port, web_url) as log,
        _running_provider(packages, provider_port, public_url, {"email_verified": True}, **client),
        open_page(chromium, ignore_https_errors=True) as page,
    ):
        _block_fonts(page)
        page.goto(f"{public_url}/sign-in")
        _sign_in_at_provider(page, "ada")
        page.get_by_label("Handle").wait_for()
        page.get_by_role("button").last.click()
        page.wait_for_url(f"{public_url}/admin/**")
        # The name of the cookie binds it to this host and to TLS, which browsers enforce.
        cookies = {cookie["name"]: cookie for cookie in page.context.cookies(public_url)}
        assert (cookies["__Host-llm-bus"]["secure"], cookies["__Host-llm-bus"]["httpOnly"]) == (True, True)
        page.goto(f"{public_url}/account/")
        expect(page.get_by_role("main")).to_contain_text("ada@example.org")
        page.context.clear_cookies(name="__Host-llm-bus")
        page.goto(f"{public_url}/sign-in")
        page.get_by_role("button", name="Continue with Single sign-on").click()
        page.wait_for_url(f"{public_url}/admin/**")
        # A header of a client names no address: nginx replaces it.
        forged = page.request.get(f"{public_url}/account/", headers={"X-Forwarded-For": "192.0.2.1"})
        assert forged.ok
        assert "192.0.2.1" not in forged.text()
    logged = log.read_text()
    assert '"GET /sign-in/oidc/callback" 303' in logged
    assert "code=" not in logged
