"""Proxy identities, rate limits, host names, error pages, metrics and logs."""

import json
import logging
from collections.abc import Callable

import httpx2
import psycopg
import pytest
import redis

from bus.auth import login_links
from bus.billing import metering
from bus.config.settings import SettingError
from bus.db import Database
from bus.operations.logs import log_context
from tests import servers
from tests.factories import make_owner
from tests.log_capture import capture_logs
from tests.metrics_scrape import METRICS_TOKEN, parse
from tests.webapp.live_server import running_live_server
from tests.webapp.web_client import BASE_URL, Browser, WebApp

SECRET = "a secret of the proxy"


def _sso(**env: str) -> dict[str, str]:
    return {"SSO_HEADER": "X-Email", "SSO_PROXY_SECRET": SECRET, **env}


def _as(browser: Browser, email: str, path: str = "/sign-in", secret: str = SECRET, method: str = "GET", **options):  # type: ignore[no-untyped-def]
    headers = {"X-Email": email, "X-LLM-Bus-Proxy-Secret": secret}
    return browser._open(method, path, headers=headers, **options)


def test_a_proxy_identity_signs_up_and_in(make_web: Callable[..., WebApp]) -> None:
    browser = make_web(**_sso()).new_browser()
    assert _as(browser, "Ada@example.org").location == "/welcome"
    page = _as(browser, "Ada@example.org", "/welcome")
    token = page.text.partition('name="csrf_token" value="')[2].partition('"')[0]
    sent = {"csrf_token": token, "handle": "ada"}
    assert _as(browser, "Ada@example.org", "/welcome", method="POST", data=sent).location == "/admin/"
    assert ">ada<" in _as(browser, "ada@example.org", "/account/").text
    # Without the proxy, or with another user, the session is not valid.
    assert browser.get("/account/").status_code == 303
    assert _as(browser, "bob@example.org", "/account/").status_code == 303
    assert _as(browser, "ada@example.org", "/account/", secret="wrong").status_code == 303
    assert _as(browser, "ada@example.org", "/account/").status_code == 200


@pytest.mark.parametrize("secret", ["", "wrong", SECRET + "x", SECRET[:-1], "\u00e4"])
def test_the_proxy_header_without_its_secret_is_ignored(
    make_web: Callable[..., WebApp], db: Database, secret: str
) -> None:
    browser = make_web(**_sso()).new_browser()
    secret = secret.encode().decode("latin-1")
    assert _as(browser, "ada@example.org", secret=secret).status_code == 200
    assert _as(browser, "ada@example.org", "/account/", secret=secret).status_code == 303
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM sign_up") == (0,)


def test_lookalikes_of_the_proxy_header_are_ignored(database_url: str) -> None:
    """WSGI does not distinguish X_Email from X-Email, and joins repeated headers; a proxy may strip only one."""
    proved = ("X-LLM-Bus-Proxy-Secret", SECRET)
    with running_live_server(database_url, **_sso()) as url:
        for headers in (
            [proved, ("X_Email", "ada@example.org")],
            [proved, ("X-Email", "ada@example.org"), ("X-Email", "bob@example.org")],
            [proved, ("X-Email", "ada@example.org,bob@example.org")],
            [("X_LLM_Bus_Proxy_Secret", SECRET), ("X-Email", "ada@example.org")],
        ):
            assert httpx2.get(f"{url}/sign-in", headers=headers).status_code == 200
        assert httpx2.get(f"{url}/sign-in", headers=[proved, ("X-Email", "ada@example.org")]).status_code == 303


def test_the_proxy_header_is_ignored_unless_configured(site: WebApp, db: Database) -> None:
    assert _as(site.new_browser(), "ada@example.org").status_code == 200
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM sign_up") == (0,)


def test_a_proxy_identity_takes_over_no_account(make_web: Callable[..., WebApp], db: Database) -> None:
    with db.transaction() as conn:
        ada = make_owner(conn, "ada")
    web = make_web(**_sso())
    refused = _as(web.new_browser(), "ada@example.org")
    assert refused.status_code == 200
    assert "already" in refused.text
    assert web.new_browser().get("/admin/").status_code == 303
    # The owner links it, and it works from then on.
    browser = web.new_browser()
    with db.connection() as conn:
        browser.sign_in(conn, ada)
    page = _as(browser, "ada@example.org", "/account/").text
    assert "Link ada@example.org of the single sign-on proxy" in page
    sent = {"csrf_token": browser.get_csrf_token()}
    assert _as(browser, "ada@example.org", "/account/ways/proxy", method="POST", data=sent).status_code == 303
    assert _as(web.new_browser(), "ada@example.org").location == "/admin/"


def _tries(browser: Browser, count: int) -> list[int]:
    path = "/sign-in/link/" + "x" * 43
    answers = []
    for _ in range(count):
        browser.get(path)
        answers.append(browser.submit(path))
    assert all(answer.headers["Retry-After"].isdigit() for answer in answers if answer.status_code == 429)
    return [answer.status_code for answer in answers]


def test_attempts_are_limited_for_each_address(make_web: Callable[..., WebApp], redis_url: str) -> None:
    env = {"SIGN_IN_PER_MINUTE": "5", "REDIS_URL": redis_url}
    # Two processes count together.
    one, two = make_web(**env), make_web(**env)
    statuses = _tries(one.new_browser(), 3) + _tries(two.new_browser(), 5)
    # A new minute may have begun in between; then there are ten at most.
    assert statuses.count(303) in range(5, 8)
    assert statuses[-1] == 429
    assert _tries(one.new_browser(REMOTE_ADDR="192.0.2.7"), 1) == [303]
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter("llm-bus:tries:*"):
            assert 0 < client.ttl(key) <= 120
            assert b"127.0.0.1" not in key


@pytest.mark.parametrize("url", [None, "redis://127.0.0.1:1/0"])
def test_without_redis_each_process_counts_by_itself(make_web: Callable[..., WebApp], url: str | None) -> None:
    env = {"SIGN_IN_PER_MINUTE": "5"} | ({"REDIS_URL": url} if url else {})
    statuses = _tries(make_web(**env).new_browser(), 11)
    assert 429 in statuses
    assert statuses.count(303) >= 5


def test_addresses_of_one_ipv6_network_share_a_limit(make_web: Callable[..., WebApp]) -> None:
    web = make_web(SIGN_IN_PER_MINUTE="2")
    statuses = [
        status
        for host in ("2001:db8::1", "2001:db8::2", "2001:db8::3:4:5:6", "2001:db8::9", "2001:db8::a")
        for status in _tries(web.new_browser(REMOTE_ADDR=host), 1)
    ]
    assert 429 in statuses
    assert _tries(web.new_browser(REMOTE_ADDR="2001:db8:1::1"), 1) == [303]


def test_forwarded_headers_do_not_bypass_a_limit(make_web: Callable[..., WebApp]) -> None:
    web = make_web(SIGN_IN_PER_MINUTE="3")
    path = "/sign-in/link/" + "x" * 43
    browser = web.new_browser()
    statuses = []
    for number in range(8):
        browser.get(path)
        token = (
            browser.current_page.text.partition('name="csrf_token" value="')[2].partition('"')[0]
            if browser.current_page
            else ""
        )
        headers = {"X-Forwarded-For": f"192.0.2.{number}", "Forwarded": f"for=192.0.2.{number}", "X-Real-IP": "1.2.3.4"}
        statuses.append(browser.post(path, data={"csrf_token": token}, headers=headers).status_code)
    assert statuses[-1] == 429


def test_trusted_proxies_report_the_client_address(make_web: Callable[..., WebApp], db: Database) -> None:
    """With one trusted hop, the address added by the last proxy counts; those before it are ignored."""
    with db.transaction() as conn:
        ada = make_owner(conn, "ada")
    web = make_web(PROXY_HOPS="1")
    with db.connection() as conn:
        path = f"/sign-in/link/{login_links.create_login_link(conn, ada, actor='cli')}"
    browser = web.new_browser()
    browser.get(path)
    token = (
        browser.current_page.text.partition('name="csrf_token" value="')[2].partition('"')[0]
        if browser.current_page
        else ""
    )
    headers = {"X-Forwarded-For": "198.51.100.1, 203.0.113.9"}
    assert browser.post(path, data={"csrf_token": token}, headers=headers).location == "/admin/"
    with db.connection() as conn:
        assert conn.fetch_one("SELECT address FROM session") == ("203.0.113.9",)


@pytest.mark.parametrize("host", ["Ãû", "a b", "a/b", "[::1", "a:99999999", "", "9" * 300, "a..b"])
@pytest.mark.parametrize("path", ["/", "/admin/", "/healthz", "/join"])
def test_a_malformed_host_name_is_no_error_of_the_service(site: WebApp, host: str, path: str) -> None:
    for method in ("GET", "POST", "TRACE"):
        with capture_logs(logging.ERROR) as entries:
            response = site.new_browser()._open(method, path, headers={"Host": host})
        assert entries == []
        assert response.status_code in (200, 400, 405, 421)
        assert path == "/healthz" or response.status_code != 200
        assert "Traceback" not in response.text


def test_an_unknown_host_name_is_refused(site: WebApp) -> None:
    client = site.app.test_client()
    answer = client.get("/", base_url="https://evil.example")
    assert answer.status_code == 421
    assert client.get("/healthz", base_url="http://10.0.0.7:8787").status_code == 200
    assert client.get("/", base_url="http://localhost:8787").status_code == 200


@pytest.mark.parametrize("site_said", ["cross-site", "same-site"])
def test_a_form_from_another_site_is_refused_despite_its_csrf_token(site: WebApp, db: Database, site_said: str) -> None:
    with db.transaction() as conn:
        ada = make_owner(conn, "ada")
    browser = site.new_browser()
    with db.connection() as conn:
        browser.sign_in(conn, ada)
    data = {"csrf_token": browser.get_csrf_token()}
    refused = browser.post("/sign-out", data=data, headers={"Sec-Fetch-Site": site_said})
    assert refused.status_code == 403
    assert browser.get("/account/", headers={"Sec-Fetch-Site": site_said}).status_code == 200
    assert browser.post("/sign-out", data=data, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303


def test_an_oversized_body_gets_an_error_page(make_web: Callable[..., WebApp]) -> None:
    web = make_web(MAX_BODY_BYTES="2048")
    browser = web.new_browser()
    answer = browser.post("/sign-out", data={"csrf_token": "x" * 4096})
    assert answer.status_code == 413
    assert "too large" in answer.text
    answer = browser.post("/join", data=b"x" * 4096)
    assert (answer.status_code, answer.get_json()["ok"]) == (413, False)


def test_a_database_outage_gets_an_error_page_and_ends(
    make_web: Callable[..., WebApp], database_url: str, db: Database
) -> None:
    with db.transaction() as conn:
        ada = make_owner(conn, "ada")
    web = make_web()
    browser = web.new_browser()
    with db.connection() as conn:
        browser.sign_in(conn, ada)
    db.close()
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    maintenance = servers.maintenance_url()
    with psycopg.connect(maintenance, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        try:
            for path in ("/account/", "/admin/"):
                answer = browser.get(path)
                assert answer.status_code == 503
                assert answer.headers["Retry-After"] == "5"
                assert "The database does not answer" in answer.text
                assert "Traceback" not in answer.text
            assert browser.get("/healthz").status_code == 200
            assert browser.get("/readyz").status_code == 503
            answer = browser.post("/join", json={"code": "inv_x"})
            assert (answer.status_code, answer.get_json()["error"]) == (503, "unavailable")
            # A process that has never reached the database answers the same.
            fresh = make_web().new_browser()
            assert fresh.get("/sign-in").status_code == 503
            assert fresh.get("/static/bus.css").status_code == 200
        finally:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert browser.get("/account/").status_code == 200
    assert fresh.get("/sign-in").status_code == 200


def test_an_unexpected_error_is_logged_and_shows_no_traceback(site: WebApp, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> str:
        raise RuntimeError("the secret of the defect")

    site.app.view_functions["landing.index"] = broken
    with caplog.at_level(logging.ERROR, "webapp.error"):
        answer = site.new_browser().get("/")
    assert answer.status_code == 500
    assert "secret of the defect" not in answer.text
    assert "Traceback" not in answer.text
    assert "secret of the defect" in str(caplog.records[0].exc_info)


def test_the_request_id_of_an_error_page_finds_its_log_entry(site: WebApp) -> None:
    def broken() -> str:
        raise RuntimeError("a defect")

    site.app.view_functions["landing.index"] = broken
    with capture_logs() as lines:
        answer = site.new_browser().get("/", headers={"X-Request-Id": "mine-1"})
        fine = site.new_browser().get("/sign-in", headers={"X-Request-Id": "not <a> valid id"})
    assert answer.headers["X-Request-Id"] == "mine-1"
    assert "mine-1" in answer.text
    assert [(line["message"], line["request_id"]) for line in lines if line["logger"].startswith("webapp.")] == [
        ("a page failed", "mine-1"),
        ("request", "mine-1"),
        ("request", fine.headers["X-Request-Id"]),
    ]
    made = fine.headers["X-Request-Id"]
    assert "<" not in made
    # Errors of the client show no request id.
    assert made not in fine.text
    assert log_context.get() is None


def test_metrics_require_the_token(make_web: Callable[..., WebApp], site: WebApp) -> None:
    without_token, unknown = site.new_browser().get("/metrics"), site.new_browser().get("/nowhere")
    assert without_token.status_code == unknown.status_code == 404
    web = make_web(METRICS_TOKEN=METRICS_TOKEN)
    browser = web.new_browser()
    for sent in (None, "Bearer wrong", f"Basic {METRICS_TOKEN}"):
        refused = browser.get("/metrics", headers={} if sent is None else {"Authorization": sent})
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "llm_bus" not in refused.text
    for path in ("/sign-in", "/sign-in", "/nowhere"):
        browser.get(path)
    # Prometheus may use any host name.
    answer = web.app.test_client().get(
        "/metrics", base_url="http://10.0.0.7:8787", headers={"Authorization": f"Bearer {METRICS_TOKEN}"}
    )
    assert answer.status_code == 200
    found = parse(answer.text)
    assert found.group_by("llm_bus_web_requests_total", "route", "status") == {
        ("/metrics", "401"): 3,
        ("/sign-in", "200"): 2,
        ("none", "404"): 1,
    }
    assert found.value("llm_bus_web_request_seconds_count", route="/sign-in") == 2
    assert found.value("llm_bus_postgres_up") == 1
    assert found.value("llm_bus_table_rows", table="owner") == 0
    with pytest.raises(SettingError, match="METRICS_TOKEN must have at least 16"):
        make_web(METRICS_TOKEN="short")


def test_the_log_has_an_entry_for_each_request_and_no_secret(
    site: WebApp, db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with db.transaction() as conn:
        ada = make_owner(conn, "ada")
    with db.connection() as conn:
        token = login_links.create_login_link(conn, ada, actor="cli")
    browser = site.new_browser()
    with caplog.at_level(logging.INFO):
        browser.get(f"/sign-in/link/{token}")
        visit = set(browser.cookies().values())
        browser.submit(f"/sign-in/link/{token}")
    lines = [record.fields for record in caplog.records if record.name == "webapp.request"]  # type: ignore[attr-defined]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("GET", "/sign-in/link/<token>", 200),
        ("POST", "/sign-in/link/<token>", 303),
    ]
    everything = json.dumps([[record.getMessage(), getattr(record, "fields", None)] for record in caplog.records])
    assert token not in everything
    assert not any(value in everything for value in visit | set(browser.cookies().values()))


def test_two_processes_read_the_same_cookies(make_web: Callable[..., WebApp], db: Database) -> None:
    """The key is created once and shared through the database, even if processes start concurrently."""
    with db.transaction() as conn:
        ada = make_owner(conn, "ada")
    one, two = make_web(), make_web()
    browser = one.new_browser()
    with db.connection() as conn:
        browser.sign_in(conn, ada)
    token = browser.get_csrf_token()
    other = two.new_browser()
    for name, value in browser.cookies().items():
        other.flask_client.set_cookie(name, value, domain="bus.example.org", secure=True)
    assert other.post("/sign-out", data={"csrf_token": token}).location == "/"


def test_the_policy_of_the_landing_page_names_no_host(site: WebApp) -> None:
    assert BASE_URL not in site.new_browser().get("/").headers["Content-Security-Policy"]


def test_public_stats_are_disabled_by_default(make_web: Callable[..., WebApp], site: WebApp, db: Database) -> None:
    answer = site.new_browser().get("/api/stats")
    assert (answer.status_code, answer.get_json()["ok"]) == (404, False)
    with db.transaction() as conn:
        make_owner(conn, "ada")
    counts = make_web(PUBLIC_STATS="1").new_browser().get("/api/stats")
    assert counts.get_json()["owners"] == 1
    assert "public" in counts.headers["Cache-Control"]
    assert "ada" not in counts.text


def test_prices_are_public_while_events_are_billed(make_web: Callable[..., WebApp], db: Database) -> None:
    # The METERING setting of this process does not matter.
    web = make_web(METERING="1", TERMS_URL="https://example.org/terms", PRIVACY_URL="https://example.org/privacy")
    assert web.new_browser().get("/pricing").status_code == 404
    assert "/pricing" not in web.new_browser().get("/").text
    with db.transaction() as conn:
        metering.set_metering_enabled(conn, True)
        metering.record_terms(conn, grace_hours=5, trial_credits=250)
    page = web.new_browser().get("/pricing")
    assert page.status_code == 200
    assert "includes 250 credits" in page.text
    assert "keep working for another 5 hours" in page.text
    for link in ("https://example.org/terms", "https://example.org/privacy", "/pricing"):
        assert f'href="{link}"' in page.text
