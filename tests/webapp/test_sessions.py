"""Sessions: creation, rotation, timeouts, revocation; login links; concurrent sign-ups."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from bus.auth import identities, login_links, sessions
from bus.auth.identities import IdentityClaims
from bus.db import Database
from bus.operations import retention
from bus.rules.token_format import fingerprint
from bus.tenancy import owners
from tests.concurrency import (
    BARRIER_TIMEOUT_SECONDS,
    failures,
    run_jobs_concurrently,
    run_numbered_concurrently,
    successes,
)
from tests.factories import make_owner
from tests.webapp.web_client import BASE_URL, Browser, WebApp

COOKIE = "__Host-llm-bus"
WEEK = timedelta(days=7)


@pytest.fixture
def ada(db: Database) -> owners.Owner:
    with db.transaction() as conn:
        return make_owner(conn, "ada")


def _in(site: WebApp, db: Database, owner: owners.Owner) -> Browser:
    with db.connection() as conn:
        return site.new_browser().sign_in(conn, owner)


def _is_in(browser: Browser) -> bool:
    return browser.get("/account/").status_code == 200


def _put(browser: Browser, token: str) -> None:
    browser.flask_client.set_cookie(COOKIE, token, domain="bus.example.org", secure=True, httponly=True)


def test_the_database_stores_no_session_token(site: WebApp, db: Database, ada: owners.Owner) -> None:
    token = _in(site, db, ada).cookies()[COOKIE]
    assert len(token) == 43
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM session WHERE sha256 = %s", (fingerprint(token),)) == (1,)
        stored = conn.fetch_one("SELECT string_agg(session::text, '') FROM session")[0]
    assert token not in stored


def test_a_planted_session_cookie_is_not_signed_in(site: WebApp, db: Database, ada: owners.Owner) -> None:
    """Session fixation: signing in replaces the cookie that the browser had before."""
    browser = site.new_browser()
    planted = "planted" + "x" * 36
    _put(browser, planted)
    browser.get("/sign-in")
    with db.connection() as conn:
        browser.sign_in(conn, ada)
    assert browser.cookies()[COOKIE] != planted
    thief = site.new_browser()
    _put(thief, planted)
    assert not _is_in(thief)


def test_signing_in_again_ends_the_previous_session_and_its_csrf_token(
    site: WebApp, db: Database, ada: owners.Owner
) -> None:
    browser = _in(site, db, ada)
    first, form = browser.cookies()[COOKIE], browser.get_csrf_token()
    with db.connection() as conn:
        browser.sign_in(conn, ada)
    assert browser.cookies()[COOKIE] != first
    assert browser.post("/sign-out", data={"csrf_token": form}).status_code == 400
    thief = site.new_browser()
    _put(thief, first)
    assert not _is_in(thief)
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM session") == (1,)


def test_the_visitors_cookie_grants_no_access(site: WebApp, db: Database, ada: owners.Owner) -> None:
    """Flask-Login would accept a user id in Flask's session; here it is ignored."""
    browser = _in(site, db, ada)
    del browser.flask_client._cookies["bus.example.org", "/", COOKIE]
    assert not _is_in(browser)
    with site.app.test_request_context(base_url=BASE_URL):
        serializer = site.app.session_interface.get_signing_serializer(site.app)  # type: ignore[attr-defined]
        forged = serializer.dumps({"_user_id": str(ada.id), "_fresh": True})
    stranger = site.new_browser()
    stranger.flask_client.set_cookie(f"{COOKIE}-visit", forged, domain="bus.example.org", secure=True)
    assert not _is_in(stranger)


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "x" * 10_000, "\u00e4\u00e4", "lbus_" + "0" * 49, "' OR true --"])
def test_a_malformed_session_cookie_is_ignored(site: WebApp, token: str) -> None:
    browser = site.new_browser()
    answer = browser.flask_client.get(
        "/account/", base_url=BASE_URL, headers={"Cookie": f"{COOKIE}={token}".encode().decode("latin-1")}
    )
    assert answer.status_code == 303


def test_a_session_ends_when_it_is_idle_for_too_long(
    make_web: Callable[..., WebApp], db: Database, ada: owners.Owner
) -> None:
    browser = _in(make_web(SESSION_IDLE_MINUTES="30"), db, ada)
    with db.transaction() as conn:
        conn.execute("UPDATE session SET last_used_at = clock_timestamp() - interval '29 min'")
    assert _is_in(browser)
    with db.connection() as conn:
        # The request has updated it.
        assert conn.fetch_one("SELECT clock_timestamp() - last_used_at < interval '1 min' FROM session") == (True,)
    with db.transaction() as conn:
        conn.execute("UPDATE session SET last_used_at = clock_timestamp() - interval '31 min'")
    assert not _is_in(browser)


def test_a_session_ends_at_its_maximum_age(make_web: Callable[..., WebApp], db: Database, ada: owners.Owner) -> None:
    browser = _in(make_web(SESSION_HOURS="1"), db, ada)
    with db.connection() as conn:
        assert conn.fetch_one("SELECT expires_at - created_at BETWEEN '59 min' AND '61 min' FROM session") == (True,)
    with db.transaction() as conn:
        conn.execute("UPDATE session SET expires_at = clock_timestamp() + interval '1 min'")
    assert _is_in(browser)
    with db.transaction() as conn:
        assert retention.prune_batch(conn, "sessions") == 0
        conn.execute("UPDATE session SET expires_at = clock_timestamp() - interval '1 s'")
    assert not _is_in(browser)
    with db.transaction() as conn:
        assert retention.prune_batch(conn, "sessions") == 1


def test_expired_links_and_sign_ups_are_pruned(db: Database, ada: owners.Owner) -> None:
    with db.transaction() as conn:
        login_links.create_login_link(conn, ada, actor="cli")
        identities.begin_sign_up(conn, IdentityClaims("https://issuer.example", "bob", "bob@example.org"))
    with db.transaction() as conn:
        assert [retention.prune_batch(conn, kind) for kind in ("login_links", "sign_ups")] == [0, 0]
        conn.execute("UPDATE login_link SET expires_at = clock_timestamp() - interval '25 hours'")
        conn.execute("UPDATE sign_up SET expires_at = clock_timestamp() - interval '1 s'")
        assert [retention.prune_batch(conn, kind) for kind in ("login_links", "sign_ups")] == [1, 1]


def test_a_request_updates_the_session_at_most_once_a_minute(site: WebApp, db: Database, ada: owners.Owner) -> None:
    browser = _in(site, db, ada)
    query = "SELECT xmin::text, last_used_at FROM session"
    with db.connection() as conn:
        before = conn.fetch_one(query)
    assert _is_in(browser)
    with db.connection() as conn:
        assert conn.fetch_one(query) == before


def test_only_the_owner_lists_and_ends_sessions(site: WebApp, db: Database, ada: owners.Owner) -> None:
    laptop, phone = _in(site, db, ada), _in(site, db, ada)
    with db.transaction() as conn:
        bob = make_owner(conn, "bob")
    stranger = _in(site, db, bob)
    with db.connection() as conn:
        mine = sessions.list_sessions(conn, ada.id, idle_timeout=WEEK)
        theirs = sessions.list_sessions(conn, bob.id, idle_timeout=WEEK)
    assert len(mine) == 2
    assert len(theirs) == 1
    token = stranger.get_csrf_token()
    for one in mine:
        answer = stranger.post(f"/account/sessions/{one.id}/end", data={"csrf_token": token})
        assert answer.status_code == 404
    assert _is_in(laptop)
    # End the phone's session, the newer one.
    here = max(mine, key=lambda one: one.id)
    laptop.get("/account/")
    laptop.submit(f"/account/sessions/{here.id}/end")
    assert not _is_in(phone)
    assert _is_in(laptop)
    other = min(mine, key=lambda one: one.id)
    laptop.get("/account/")
    assert laptop.submit(f"/account/sessions/{other.id}/end").location == "/"
    assert COOKIE not in laptop.cookies()
    assert not _is_in(laptop)


def test_signing_out_everywhere_ends_the_owners_sessions_only(site: WebApp, db: Database, ada: owners.Owner) -> None:
    browsers = [_in(site, db, ada) for _ in range(3)]
    with db.transaction() as conn:
        bob = make_owner(conn, "bob")
    stranger = _in(site, db, bob)
    tokens = [browser.cookies()[COOKIE] for browser in browsers]
    browsers[0].get("/account/")
    assert browsers[0].submit("/account/sessions/end-all").location == "/sign-in"
    for token in tokens:
        thief = site.new_browser()
        _put(thief, token)
        assert not _is_in(thief)
    assert _is_in(stranger)
    with db.connection() as conn:
        acts = conn.fetch_all(
            "SELECT action, detail FROM audit WHERE owner_id = %s AND action LIKE 'session.end%%'", (ada.id,)
        )
    assert acts == [("session.end_all", {"sessions": 3})]


def test_signing_out_ends_the_session_in_the_database(site: WebApp, db: Database, ada: owners.Owner) -> None:
    browser = _in(site, db, ada)
    token = browser.cookies()[COOKIE]
    browser.get("/")
    assert browser.submit("/sign-out").status_code == 303
    assert "You are signed out" in browser.get("/").text
    _put(browser, token)
    assert not _is_in(browser)


def test_rotating_a_session_replaces_its_token(db: Database, ada: owners.Owner) -> None:
    with db.transaction() as conn:
        old = sessions.open_session(conn, ada.id, method="link", ttl=WEEK)
        found = sessions.find_session(conn, old, idle_timeout=WEEK)
        assert found is not None
        new = sessions.rotate_token(conn, found.id)
        assert new is not None
        assert sessions.find_session(conn, old, idle_timeout=WEEK) is None
        after = sessions.find_session(conn, new, idle_timeout=WEEK)
        assert after is not None
        assert after.id == found.id
        sessions.end_session(conn, ada.id, found.id)
        assert sessions.rotate_token(conn, found.id) is None


def test_a_suspended_owner_signs_in_and_sees_a_notice(site: WebApp, db: Database, ada: owners.Owner) -> None:
    browser = _in(site, db, ada)
    with db.transaction() as conn:
        owners.suspend(conn, ada.id, reason="test", actor="test")
    assert "suspended" in browser.get("/account/").text


def test_the_session_cookie_is_for_this_host_tls_and_no_script(site: WebApp, db: Database, ada: owners.Owner) -> None:
    with db.connection() as conn:
        path = f"/sign-in/link/{login_links.create_login_link(conn, ada, actor='cli')}"
    browser = site.new_browser()
    set_by_page, set_by_sign_in = browser.get(path).headers, browser.submit(path).headers
    # The cookie of a visitor holds the CSRF secret and the state of a sign-in, so it is no less protected.
    for headers, name in ((set_by_page, f"{COOKIE}-visit"), (set_by_sign_in, COOKIE)):
        cookies = [cookie for cookie in headers.getlist("Set-Cookie") if cookie.startswith(f"{name}=")]
        assert len(cookies) == 1
        attributes = set(cookies[0].split("; ")[1:])
        assert attributes >= {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"}
        assert not any(attribute.startswith("Domain=") for attribute in attributes)


def test_cookies_without_tls_are_not_secure(make_web: Callable[..., WebApp], db: Database, ada: owners.Owner) -> None:
    web = make_web(PUBLIC_URL="http://127.0.0.1:8787")
    with db.connection() as conn:
        path = f"/sign-in/link/{login_links.create_login_link(conn, ada, actor='cli')}"
    client = web.app.test_client()
    page = client.get(path, base_url="http://127.0.0.1:8787")
    assert "Strict-Transport-Security" not in page.headers
    set_cookie = page.headers["Set-Cookie"]
    assert set_cookie.startswith("llm-bus-visit=")
    assert "Secure" not in set_cookie
    assert "HttpOnly" in set_cookie


def test_a_login_link_works_for_one_of_twenty_concurrent_attempts(
    make_web: Callable[..., WebApp], db: Database, ada: owners.Owner
) -> None:
    site = make_web(SIGN_IN_PER_MINUTE="0", GATEWAY_THREADS="20")
    with db.connection() as conn:
        path = f"/sign-in/link/{login_links.create_login_link(conn, ada, actor='cli')}"
    browsers = [site.new_browser() for _ in range(20)]
    for browser in browsers:
        browser.get(path)
    answers = run_jobs_concurrently(*(lambda browser=browser: browser.submit(path) for browser in browsers))
    assert [answer.status_code for answer in answers] == [303] * 20
    assert sorted(answer.location for answer in answers) == ["/admin/"] + ["/sign-in"] * 19
    assert sum(_is_in(browser) for browser in browsers) == 1
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM session") == (1,)
        assert conn.fetch_one("SELECT count(*) FROM audit WHERE action = 'session.open'") == (1,)


def test_opening_a_login_link_neither_uses_it_nor_reveals_its_owner(
    site: WebApp, db: Database, ada: owners.Owner
) -> None:
    with db.connection() as conn:
        token = login_links.create_login_link(conn, ada, actor="cli")
    for _ in range(3):
        page = site.new_browser().get(f"/sign-in/link/{token}")
        assert page.status_code == 200
        assert page.headers["Cache-Control"] == "no-store"
        assert "ada" not in page.text
    assert site.new_browser().get("/sign-in/link/" + "x" * 43).status_code == 200
    with db.connection() as conn:
        site.new_browser().sign_in(conn, ada)


def test_expired_used_and_unknown_links_get_the_same_message(site: WebApp, db: Database, ada: owners.Owner) -> None:
    with db.connection() as conn:
        late, used = (
            login_links.create_login_link(conn, ada, actor="cli"),
            login_links.create_login_link(conn, ada, actor="cli"),
        )
        login_links.consume_login_link(conn, used)
    with db.transaction() as conn:
        conn.fetch_all(
            "UPDATE login_link SET expires_at = clock_timestamp() - interval '1 s' WHERE sha256 = %s RETURNING 1",
            (fingerprint(late),),
        )
    messages = set()
    for token in (late, used, "x" * 43, "\u00e4"):
        browser = site.new_browser()
        path = f"/sign-in/link/{token}"
        browser.get(path)
        answer = browser.flask_client.post(path, base_url=BASE_URL, data={"csrf_token": _csrf(browser)})
        assert answer.location == "/sign-in"
        page = browser.get("/sign-in").text
        assert "already used" in page
        messages.add(page[page.index('class="alert') : page.index("</main>")])
        assert not _is_in(browser)
    assert len(messages) == 1


def _csrf(browser: Browser) -> str:
    assert browser.current_page is not None
    return browser.current_page.text.partition('name="csrf_token" value="')[2].partition('"')[0]


def test_a_handle_goes_to_one_of_ten_concurrent_sign_ups(db: Database) -> None:
    with db.transaction() as conn:
        tokens = [
            identities.begin_sign_up(conn, IdentityClaims("https://issuer.example", f"s{n}", f"ada{n}@example.org"))
            for n in range(10)
        ]
    outcomes = run_numbered_concurrently(
        db, 10, lambda conn, n: identities.finish_sign_up(conn, tokens[n], "Ada" if n % 2 else "ada")
    )
    assert [made.handle for made in successes(outcomes)] == ["ada"]
    assert {error.code for error in failures(outcomes)} == {"conflict"}
    with db.transaction() as conn:
        # The others may choose another handle.
        lost = next(number for number, outcome in enumerate(outcomes) if isinstance(outcome, Exception))
        assert identities.finish_sign_up(conn, tokens[lost], "ada-2").handle == "ada-2"


def test_ten_concurrent_sign_ups_of_a_person_create_one_account(db: Database) -> None:
    """The same person in ten windows gets one account and one identity."""
    claim = IdentityClaims("https://issuer.example", "ada", "ada@example.org")
    with db.transaction() as conn:
        tokens = [identities.begin_sign_up(conn, claim) for _ in range(10)]
    outcomes = run_numbered_concurrently(db, 10, lambda conn, n: identities.finish_sign_up(conn, tokens[n], f"ada-{n}"))
    assert len(successes(outcomes)) == 1
    assert {error.code for error in failures(outcomes)} == {"conflict"}
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM owner") == (1,)
        assert conn.fetch_one("SELECT count(*) FROM identity") == (1,)


def test_concurrent_unlinking_keeps_one_identity(db: Database, ada: owners.Owner) -> None:
    with db.transaction() as conn:
        for subject in ("one", "two"):
            identities.link_identity(conn, ada, IdentityClaims("https://issuer.example", subject, None))
        ways = identities.list_identities(conn, ada.id)
    outcomes = run_numbered_concurrently(db, 2, lambda conn, n: identities.unlink_identity(conn, ada, ways[n].id))
    assert len(failures(outcomes)) == 1
    assert failures(outcomes)[0].code == "conflict"
    with db.connection() as conn:
        assert len(identities.list_identities(conn, ada.id)) == 1


def test_concurrent_linking_gives_an_identity_to_one_owner(db: Database, ada: owners.Owner) -> None:
    with db.transaction() as conn:
        bob = make_owner(conn, "bob")
    claim = IdentityClaims("https://issuer.example", "shared", None)
    outcomes = run_numbered_concurrently(db, 2, lambda conn, n: identities.link_identity(conn, (ada, bob)[n], claim))
    assert successes(outcomes) == [True]
    assert failures(outcomes)[0].code == "conflict"


def test_concurrent_requests_of_one_browser_all_succeed(
    make_web: Callable[..., WebApp], db: Database, ada: owners.Owner
) -> None:
    """Updating the last use of a session must neither block concurrent requests nor fail."""
    site = make_web(GATEWAY_THREADS="8")
    browser = _in(site, db, ada)
    token = browser.cookies()[COOKIE]
    with db.transaction() as conn:
        conn.execute("UPDATE session SET last_used_at = clock_timestamp() - interval '2 min'")
    barrier = threading.Barrier(8)

    def ask() -> int:
        own = site.new_browser()
        _put(own, token)
        barrier.wait(BARRIER_TIMEOUT_SECONDS)
        return own.get("/account/").status_code

    assert run_jobs_concurrently(*[ask] * 8) == [200] * 8
