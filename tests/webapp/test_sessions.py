"""Sessions: opened, renewed, idle, over, revoked; and the links that open them."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from bus.auth import identities, login_links, sessions
from bus.auth.identities import Claim
from bus.db import Database
from bus.operations import retention
from bus.rules.token_format import fingerprint
from bus.tenancy import owners
from tests.concurrency import PATIENCE, at_once, losers, race, winners
from tests.factories import make_owner
from tests.webapp.web_client import HOST, Browser, Web

COOKIE = "__Host-llm-bus"
WEEK = timedelta(days=7)


@pytest.fixture
def ada(db: Database) -> owners.Owner:
    with db.write() as conn:
        return make_owner(conn, "ada")


def _in(site: Web, db: Database, owner: owners.Owner) -> Browser:
    with db.call() as conn:
        return site.browser().sign_in(conn, owner)


def _is_in(browser: Browser) -> bool:
    return browser.get("/account/").status_code == 200


def _put(browser: Browser, token: str) -> None:
    browser.client.set_cookie(COOKIE, token, domain="bus.example.org", secure=True, httponly=True)


def test_the_database_holds_no_token(site: Web, db: Database, ada: owners.Owner) -> None:
    token = _in(site, db, ada).cookies()[COOKIE]
    assert len(token) == 43
    with db.call() as conn:
        assert conn.one("SELECT count(*) FROM session WHERE sha256 = %s", (fingerprint(token),)) == (1,)
        stored = conn.one("SELECT string_agg(session::text, '') FROM session")[0]
    assert token not in stored


def test_a_cookie_that_somebody_planted_is_not_signed_in(site: Web, db: Database, ada: owners.Owner) -> None:
    """Session fixation: what the browser had before is nothing afterwards."""
    browser = site.browser()
    planted = "planted" + "x" * 36
    _put(browser, planted)
    browser.get("/sign-in")
    with db.call() as conn:
        browser.sign_in(conn, ada)
    assert browser.cookies()[COOKIE] != planted
    thief = site.browser()
    _put(thief, planted)
    assert not _is_in(thief)


def test_signing_in_again_ends_the_session_before_and_changes_the_csrf_token(
    site: Web, db: Database, ada: owners.Owner
) -> None:
    browser = _in(site, db, ada)
    first, form = browser.cookies()[COOKIE], browser.token()
    with db.call() as conn:
        browser.sign_in(conn, ada)
    assert browser.cookies()[COOKIE] != first
    assert browser.post("/sign-out", data={"csrf_token": form}).status_code == 400
    thief = site.browser()
    _put(thief, first)
    assert not _is_in(thief)
    with db.call() as conn:
        assert conn.one("SELECT count(*) FROM session") == (1,)


def test_what_the_visitors_cookie_holds_lets_nobody_in(site: Web, db: Database, ada: owners.Owner) -> None:
    """Flask-Login would believe a user id in Flask's session; here nothing in it names an owner."""
    browser = _in(site, db, ada)
    del browser.client._cookies["bus.example.org", "/", COOKIE]
    assert not _is_in(browser)
    with site.app.test_request_context(base_url=HOST):
        serializer = site.app.session_interface.get_signing_serializer(site.app)  # type: ignore[attr-defined]
        forged = serializer.dumps({"_user_id": str(ada.id), "_fresh": True})
    stranger = site.browser()
    stranger.client.set_cookie(f"{COOKIE}-visit", forged, domain="bus.example.org", secure=True)
    assert not _is_in(stranger)


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "x" * 10_000, "\u00e4\u00e4", "lbus_" + "0" * 49, "' OR true --"])
def test_nonsense_in_the_cookie_is_nobody(site: Web, token: str) -> None:
    browser = site.browser()
    answer = browser.client.get(
        "/account/", base_url=HOST, headers={"Cookie": f"{COOKIE}={token}".encode().decode("latin-1")}
    )
    assert answer.status_code == 303


def test_a_session_ends_when_it_is_idle_for_too_long(
    make_web: Callable[..., Web], db: Database, ada: owners.Owner
) -> None:
    browser = _in(make_web(SESSION_IDLE_MINUTES="30"), db, ada)
    with db.write() as conn:
        conn.maybe("UPDATE session SET last_used_at = clock_timestamp() - interval '29 min' RETURNING 1")
    assert _is_in(browser)
    with db.call() as conn:
        # Using it has set it back.
        assert conn.one("SELECT clock_timestamp() - last_used_at < interval '1 min' FROM session") == (True,)
    with db.write() as conn:
        conn.maybe("UPDATE session SET last_used_at = clock_timestamp() - interval '31 min' RETURNING 1")
    assert not _is_in(browser)


def test_a_session_ends_for_good_however_much_it_is_used(
    make_web: Callable[..., Web], db: Database, ada: owners.Owner
) -> None:
    browser = _in(make_web(SESSION_HOURS="1"), db, ada)
    with db.call() as conn:
        assert conn.one("SELECT expires_at - created_at BETWEEN '59 min' AND '61 min' FROM session") == (True,)
    with db.write() as conn:
        conn.maybe("UPDATE session SET expires_at = clock_timestamp() + interval '1 min' RETURNING 1")
    assert _is_in(browser)
    with db.write() as conn:
        assert retention.prune(conn, "sessions") == 0
        conn.maybe("UPDATE session SET expires_at = clock_timestamp() - interval '1 s' RETURNING 1")
    assert not _is_in(browser)
    with db.write() as conn:
        assert retention.prune(conn, "sessions") == 1


def test_what_nobody_finished_is_pruned(db: Database, ada: owners.Owner) -> None:
    with db.write() as conn:
        login_links.create(conn, ada)
        identities.begin_sign_up(conn, Claim("https://issuer.example", "bob", "bob@example.org"))
    with db.write() as conn:
        assert [retention.prune(conn, kind) for kind in ("login_links", "sign_ups")] == [0, 0]
        conn.maybe("UPDATE login_link SET expires_at = clock_timestamp() - interval '25 hours' RETURNING 1")
        conn.maybe("UPDATE sign_up SET expires_at = clock_timestamp() - interval '1 s' RETURNING 1")
        assert [retention.prune(conn, kind) for kind in ("login_links", "sign_ups")] == [1, 1]


def test_a_look_writes_at_most_once_a_minute(site: Web, db: Database, ada: owners.Owner) -> None:
    browser = _in(site, db, ada)
    query = "SELECT xmin::text, last_used_at FROM session"
    with db.call() as conn:
        before = conn.one(query)
    assert _is_in(browser)
    with db.call() as conn:
        assert conn.one(query) == before


def test_sessions_are_listed_and_ended_by_their_owner_alone(site: Web, db: Database, ada: owners.Owner) -> None:
    laptop, phone = _in(site, db, ada), _in(site, db, ada)
    with db.write() as conn:
        bob = make_owner(conn, "bob")
    stranger = _in(site, db, bob)
    with db.call() as conn:
        mine = sessions.list_(conn, ada.id, idle=WEEK)
        theirs = sessions.list_(conn, bob.id, idle=WEEK)
    assert len(mine) == 2
    assert len(theirs) == 1
    token = stranger.token()
    for one in mine:
        answer = stranger.post(f"/account/sessions/{one.id}/end", data={"csrf_token": token})
        assert answer.status_code == 404
    assert _is_in(laptop)
    # The one used last comes first.
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


def test_signing_out_everywhere_ends_every_session_and_no_strangers(site: Web, db: Database, ada: owners.Owner) -> None:
    browsers = [_in(site, db, ada) for _ in range(3)]
    with db.write() as conn:
        bob = make_owner(conn, "bob")
    stranger = _in(site, db, bob)
    tokens = [browser.cookies()[COOKIE] for browser in browsers]
    browsers[0].get("/account/")
    assert browsers[0].submit("/account/sessions/end-all").location == "/sign-in"
    for token in tokens:
        thief = site.browser()
        _put(thief, token)
        assert not _is_in(thief)
    assert _is_in(stranger)
    with db.call() as conn:
        acts = conn.all(
            "SELECT action, detail FROM audit WHERE owner_id = %s AND action LIKE 'session.end%%'", (ada.id,)
        )
    assert acts == [("session.end_all", {"sessions": 3})]


def test_signing_out_ends_the_session_in_the_database(site: Web, db: Database, ada: owners.Owner) -> None:
    browser = _in(site, db, ada)
    token = browser.cookies()[COOKIE]
    browser.get("/")
    assert browser.submit("/sign-out").status_code == 303
    assert "You are signed out" in browser.get("/").text
    _put(browser, token)
    assert not _is_in(browser)


def test_a_rotated_session_has_one_token(db: Database, ada: owners.Owner) -> None:
    with db.write() as conn:
        old = sessions.open_(conn, ada.id, method="link", lasts=WEEK)
        found = sessions.find(conn, old, idle=WEEK)
        assert found is not None
        new = sessions.rotate(conn, found.id)
        assert new is not None
        assert sessions.find(conn, old, idle=WEEK) is None
        after = sessions.find(conn, new, idle=WEEK)
        assert after is not None
        assert after.id == found.id
        sessions.end(conn, ada.id, found.id)
        assert sessions.rotate(conn, found.id) is None


def test_a_suspended_owner_comes_in_and_is_told(site: Web, db: Database, ada: owners.Owner) -> None:
    browser = _in(site, db, ada)
    with db.write() as conn:
        owners.suspend(conn, ada.id, reason="test", actor="test")
    assert "suspended" in browser.get("/account/").text


def test_cookies_without_tls_are_not_bound_to_it(make_web: Callable[..., Web], db: Database, ada: owners.Owner) -> None:
    web = make_web(PUBLIC_URL="http://127.0.0.1:8787")
    with db.call() as conn:
        path = f"/sign-in/link/{login_links.create(conn, ada)}"
    client = web.app.test_client()
    page = client.get(path, base_url="http://127.0.0.1:8787")
    assert "Strict-Transport-Security" not in page.headers
    set_cookie = page.headers["Set-Cookie"]
    assert set_cookie.startswith("llm-bus-visit=")
    assert "Secure" not in set_cookie
    assert "HttpOnly" in set_cookie


def test_a_link_is_used_once_of_twenty_tries_at_one_moment(
    make_web: Callable[..., Web], db: Database, ada: owners.Owner
) -> None:
    site = make_web(SIGN_IN_PER_MINUTE="0", GATEWAY_THREADS="20")
    with db.call() as conn:
        path = f"/sign-in/link/{login_links.create(conn, ada)}"
    browsers = [site.browser() for _ in range(20)]
    for browser in browsers:
        browser.get(path)
    answers = at_once(*(lambda browser=browser: browser.submit(path) for browser in browsers))
    assert [answer.status_code for answer in answers] == [303] * 20
    assert sorted(answer.location for answer in answers) == ["/admin/"] + ["/sign-in"] * 19
    assert sum(_is_in(browser) for browser in browsers) == 1
    with db.call() as conn:
        assert conn.one("SELECT count(*) FROM session") == (1,)
        assert conn.one("SELECT count(*) FROM audit WHERE action = 'session.open'") == (1,)


def test_looking_at_a_link_does_not_use_it_and_tells_nothing(site: Web, db: Database, ada: owners.Owner) -> None:
    with db.call() as conn:
        token = login_links.create(conn, ada)
    for _ in range(3):
        page = site.browser().get(f"/sign-in/link/{token}")
        assert page.status_code == 200
        assert page.headers["Cache-Control"] == "no-store"
        assert "ada" not in page.text
    assert site.browser().get("/sign-in/link/" + "x" * 43).status_code == 200
    with db.call() as conn:
        site.browser().sign_in(conn, ada)


def test_a_link_that_is_over_or_never_was_is_refused_with_the_same_words(
    site: Web, db: Database, ada: owners.Owner
) -> None:
    with db.call() as conn:
        late, used = login_links.create(conn, ada), login_links.create(conn, ada)
        login_links.use(conn, used)
    with db.write() as conn:
        conn.all(
            "UPDATE login_link SET expires_at = clock_timestamp() - interval '1 s' WHERE sha256 = %s RETURNING 1",
            (fingerprint(late),),
        )
    said = set()
    for token in (late, used, "x" * 43, "\u00e4"):
        browser = site.browser()
        path = f"/sign-in/link/{token}"
        browser.get(path)
        answer = browser.client.post(path, base_url=HOST, data={"csrf_token": _csrf(browser)})
        assert answer.location == "/sign-in"
        page = browser.get("/sign-in").text
        assert "used already" in page
        said.add(page[page.index('class="note') : page.index("</main>")])
        assert not _is_in(browser)
    assert len(said) == 1


def _csrf(browser: Browser) -> str:
    assert browser.page is not None
    return browser.page.text.partition('name="csrf_token" value="')[2].partition('"')[0]


def test_a_handle_is_won_once_of_ten_sign_ups_at_one_moment(db: Database) -> None:
    with db.write() as conn:
        tokens = [
            identities.begin_sign_up(conn, Claim("https://issuer.example", f"s{n}", f"ada{n}@example.org"))
            for n in range(10)
        ]
    outcomes = race(db, 10, lambda conn, n: identities.finish_sign_up(conn, tokens[n], "Ada" if n % 2 else "ada"))
    assert [made.handle for made in winners(outcomes)] == ["ada"]
    assert {error.code for error in losers(outcomes)} == {"conflict"}
    with db.write() as conn:
        # The losers may choose another one.
        lost = next(number for number, outcome in enumerate(outcomes) if isinstance(outcome, Exception))
        assert identities.finish_sign_up(conn, tokens[lost], "ada-2").handle == "ada-2"


def test_a_person_signs_up_once_of_ten_tries_at_one_moment(db: Database) -> None:
    """The same person in ten windows: one account, and no second by the same address or identity."""
    claim = Claim("https://issuer.example", "ada", "ada@example.org")
    with db.write() as conn:
        tokens = [identities.begin_sign_up(conn, claim) for _ in range(10)]
    outcomes = race(db, 10, lambda conn, n: identities.finish_sign_up(conn, tokens[n], f"ada-{n}"))
    assert len(winners(outcomes)) == 1
    assert {error.code for error in losers(outcomes)} == {"conflict"}
    with db.call() as conn:
        assert conn.one("SELECT count(*) FROM owner") == (1,)
        assert conn.one("SELECT count(*) FROM identity") == (1,)


def test_of_two_ways_in_that_are_closed_at_one_moment_one_stays(db: Database, ada: owners.Owner) -> None:
    with db.write() as conn:
        for subject in ("one", "two"):
            identities.link(conn, ada, Claim("https://issuer.example", subject, None))
        ways = identities.list_(conn, ada.id)
    outcomes = race(db, 2, lambda conn, n: identities.unlink(conn, ada, ways[n].id))
    assert len(losers(outcomes)) == 1
    assert losers(outcomes)[0].code == "conflict"
    with db.call() as conn:
        assert len(identities.list_(conn, ada.id)) == 1


def test_an_identity_is_linked_to_one_owner_of_two_at_one_moment(db: Database, ada: owners.Owner) -> None:
    with db.write() as conn:
        bob = make_owner(conn, "bob")
    claim = Claim("https://issuer.example", "shared", None)
    outcomes = race(db, 2, lambda conn, n: identities.link(conn, (ada, bob)[n], claim))
    assert winners(outcomes) == [True]
    assert losers(outcomes)[0].code == "conflict"


def test_many_requests_of_one_browser_at_once_all_pass(
    make_web: Callable[..., Web], db: Database, ada: owners.Owner
) -> None:
    """Touching the session must not make its requests wait for each other, or fail."""
    site = make_web(GATEWAY_THREADS="8")
    browser = _in(site, db, ada)
    token = browser.cookies()[COOKIE]
    with db.write() as conn:
        conn.maybe("UPDATE session SET last_used_at = clock_timestamp() - interval '2 min' RETURNING 1")
    barrier = threading.Barrier(8)

    def ask() -> int:
        own = site.browser()
        _put(own, token)
        barrier.wait(PATIENCE)
        return own.get("/account/").status_code

    assert at_once(*[ask] * 8) == [200] * 8
