"""Signing in with OpenID Connect and with GitHub, against real servers, and everything that may go wrong."""

import html
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest
from werkzeug.test import TestResponse

from bus.db import Database
from tests.checks import fingerprint
from tests.factories import make_owner
from tests.webapp.issuers import CLIENT_ID, CLIENT_SECRET, GitHub, Issuer, served
from tests.webapp.visits import HOST, Browser, Web


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    with served(made):
        yield made


@pytest.fixture
def github() -> Iterator[GitHub]:
    made = GitHub()
    with served(made):
        yield made


@pytest.fixture
def web(make_web: Callable[..., Web], issuer: Issuer) -> Web:
    return make_web(**issuer.env())


@pytest.fixture
def hub(make_web: Callable[..., Web], github: GitHub) -> Web:
    return make_web(**_github(github))


def _github(github: GitHub) -> dict[str, str]:
    return {
        "GITHUB_CLIENT_ID": CLIENT_ID,
        "GITHUB_CLIENT_SECRET": CLIENT_SECRET,
        "GITHUB_URL": github.url,
        "GITHUB_API_URL": f"{github.url}/api",
    }


def _to_provider(browser: Browser, slug: str = "oidc", page: str = "/sign-in", action: str = "/sign-in/{}") -> str:
    """Press the button of a provider; the address that the browser is sent to."""
    browser.get(page)
    leaving = browser.submit(action.format(slug))
    assert leaving.status_code == 200, leaving.text
    found = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', leaving.text)
    assert found is not None
    return html.unescape(found[1])


def _from_provider(address: str) -> str:
    """What the provider sends the browser back with: a path of ours."""
    answer = httpx2.get(address)
    assert answer.status_code == 302, answer.text
    back = answer.headers["Location"]
    assert back.startswith(f"{HOST}/sign-in/")
    return back.removeprefix(HOST)


def _sign_in(browser: Browser, slug: str = "oidc") -> TestResponse:
    return browser.get(_from_provider(_to_provider(browser, slug)))


def _sign_up(browser: Browser, slug: str = "oidc", **fields: str) -> TestResponse:
    """All the way to an account."""
    answer = _sign_in(browser, slug)
    assert (answer.status_code, answer.location) == (303, "/welcome"), answer.text
    browser.get("/welcome")
    return browser.submit("", **fields)


def _is_signed_in(browser: Browser) -> bool:
    return browser.get("/account/").status_code == 200


@contextmanager
def _nothing_written(db: Database) -> Iterator[None]:
    with db.call() as conn:
        before = fingerprint(conn)
    yield
    with db.call() as conn:
        after = fingerprint(conn)
    # The key of the visitors' cookies is made when the first of them comes.
    assert {name for name in before if before[name] != after[name]} <= {"secret"}


def test_a_stranger_signs_up_and_comes_back(web: Web, issuer: Issuer, db: Database) -> None:
    browser = web.browser()
    assert "Example Inc." in browser.get("/sign-in").text
    answer = _sign_up(browser)
    assert (answer.status_code, answer.location) == (303, "/admin/")
    page = browser.get("/account/").text
    # The handle was suggested from the login.
    assert "ada-l" in page
    assert "ada@example.org" in page
    again = web.browser()
    assert _sign_in(again).location == "/admin/"
    assert "ada-l" in again.get("/account/").text
    with db.call() as conn:
        assert conn.one("SELECT count(*), count(DISTINCT owner_id) FROM identity") == (1, 1)
        acts = [action for (action,) in conn.all("SELECT action FROM audit ORDER BY id")]
    assert acts == ["owner.add", "identity.link", "session.open", "session.open"]


def test_they_arrive_where_they_were_going(web: Web) -> None:
    browser = web.browser()
    browser.follow(browser.get("/account/"))
    assert "Sign in" in (browser.page.text if browser.page else "")
    assert browser.get("/account/").location == "/sign-in?next=/account/"
    browser.get("/sign-in?next=/account/")
    leaving = browser.submit("/sign-in/oidc")
    found = re.search(r'href="(http://127[^"]+)"', leaving.text)
    assert found is not None
    assert browser.get(_from_provider(html.unescape(found[1]))).location == "/welcome"
    browser.get("/welcome")
    assert browser.submit("").location == "/account/"


@pytest.mark.parametrize(
    "target", ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)"]
)
def test_nobody_is_sent_to_another_site_afterwards(web: Web, target: str) -> None:
    browser = web.browser()
    browser.get("/sign-in?" + urlencode({"next": target}))
    _sign_up(browser)
    assert browser.get("/sign-in?" + urlencode({"next": target})).location == "/admin/"


def test_a_changed_address_is_the_same_owner(web: Web, issuer: Issuer, db: Database) -> None:
    _sign_up(web.browser())
    issuer.person |= {"email": "countess@example.org"}
    browser = web.browser()
    assert _sign_in(browser).location == "/admin/"
    page = browser.get("/account/").text
    assert "ada-l" in page
    # The account keeps its address until its owner says otherwise.
    with db.call() as conn:
        assert conn.one("SELECT email FROM owner") == ("ada@example.org",)
        (number,) = conn.one("SELECT id FROM identity")
    browser.submit(f"/account/ways/{number}/email")
    with db.call() as conn:
        assert conn.one("SELECT email FROM owner") == ("countess@example.org",)


def test_the_same_address_under_another_subject_gives_no_access(web: Web, issuer: Issuer, db: Database) -> None:
    _sign_up(web.browser())
    issuer.person |= {"sub": "somebody-else", "email": "ADA@example.org"}
    browser = web.browser()
    with _nothing_written(db):
        answer = _sign_in(browser)
    assert answer.location == "/sign-in"
    assert "There is an account with your e-mail address already" in browser.get("/sign-in").text
    assert not _is_signed_in(browser)


def test_an_owner_from_the_command_line_is_not_taken_over_by_an_address(web: Web, db: Database) -> None:
    with db.write() as conn:
        make_owner(conn, "ada")
    browser = web.browser()
    with _nothing_written(db):
        assert _sign_in(browser).location == "/sign-in"
    assert not _is_signed_in(browser)


@pytest.mark.parametrize("verified", [False, None, "false", 0, "yes"])
def test_an_unverified_address_opens_no_account(web: Web, issuer: Issuer, db: Database, verified: object) -> None:
    issuer.person["email_verified"] = verified
    browser = web.browser()
    with _nothing_written(db):
        assert _sign_in(browser).location == "/sign-in"
    assert "verified" in browser.get("/sign-in").text
    assert not _is_signed_in(browser)


def test_an_owner_whose_address_is_unverified_by_now_still_comes_in(web: Web, issuer: Issuer) -> None:
    _sign_up(web.browser())
    issuer.person["email_verified"] = False
    assert _sign_in(web.browser()).location == "/admin/"


def test_an_address_that_only_userinfo_tells_is_taken(web: Web, issuer: Issuer) -> None:
    issuer.in_userinfo = {"email", "email_verified", "preferred_username"}
    browser = web.browser()
    _sign_up(browser)
    assert "ada@example.org" in browser.get("/account/").text


def test_userinfo_about_somebody_else_is_not_believed(web: Web, issuer: Issuer, db: Database) -> None:
    issuer.in_userinfo = {"email", "email_verified"}
    issuer.spoilt = {"sub": "mallory"}
    with _nothing_written(db):
        assert _sign_in(web.browser()).location == "/sign-in"


@pytest.mark.parametrize("state", ["", "wrong", None])
def test_an_answer_with_a_wrong_state_is_refused(web: Web, db: Database, state: str | None) -> None:
    browser = web.browser()
    back = urlsplit(_from_provider(_to_provider(browser)))
    answer = {name: values[0] for name, values in parse_qs(back.query).items()} | {"state": state}
    with _nothing_written(db):
        page = browser.get(f"{back.path}?{urlencode({k: v for k, v in answer.items() if v is not None})}")
    assert page.status_code == 400
    assert "Begin again" in page.text
    # The attempt is over: its right answer is worth nothing any more.
    assert browser.get(f"{back.path}?{back.query}").status_code == 400
    assert not _is_signed_in(browser)


def test_an_answer_in_another_browser_signs_nobody_in(web: Web, db: Database) -> None:
    """Whoever sends their own answer to somebody would otherwise have them work in a strange account."""
    back = _from_provider(_to_provider(web.browser()))
    victim = web.browser()
    with _nothing_written(db):
        assert victim.get(back).status_code == 400
    _to_provider(victim)
    assert victim.get(back).status_code == 400
    assert not _is_signed_in(victim)


def test_an_answer_is_good_once(web: Web, issuer: Issuer) -> None:
    browser = web.browser()
    back = _from_provider(_to_provider(browser))
    kept = browser.cookies()
    assert browser.get(back).location == "/welcome"
    assert browser.get(back).status_code == 400
    # Also with the cookie of then: the issuer takes a code once.
    thief = web.browser()
    for name, value in kept.items():
        thief.client.set_cookie(name, value, domain="bus.example.org", secure=True)
    replayed = thief.get(back)
    assert replayed.status_code == 400
    assert "used already" in replayed.text
    assert issuer.asked["/token"] == 2


@pytest.mark.parametrize(
    "spoilt",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another-client"},
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"exp": None},
        {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
    ],
    ids=str,
)
def test_an_identity_that_is_not_for_this_attempt_is_refused(
    web: Web, issuer: Issuer, db: Database, spoilt: dict[str, object]
) -> None:
    issuer.spoilt = spoilt
    browser = web.browser()
    with _nothing_written(db):
        assert _sign_in(browser).status_code == 400
    assert not _is_signed_in(browser)


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_a_signature_that_anybody_could_make_is_refused(web: Web, issuer: Issuer, db: Database, algorithm: str) -> None:
    """`none` needs no key, and HS256 with the public key as the secret is the old trick."""
    issuer.algorithm = algorithm
    with _nothing_written(db):
        assert _sign_in(web.browser()).status_code == 400


def test_a_signature_of_another_key_is_refused(web: Web, issuer: Issuer, db: Database) -> None:
    _sign_up(web.browser())
    kid = issuer.key.kid
    issuer.new_key()
    issuer.key = type(issuer.key).import_key(issuer.key.as_dict(private=True) | {"kid": kid})
    with _nothing_written(db):
        assert _sign_in(web.browser()).status_code == 400


def test_keys_that_the_issuer_changed_are_read_again(web: Web, issuer: Issuer) -> None:
    _sign_up(web.browser())
    issuer.new_key()
    assert _sign_in(web.browser()).location == "/admin/"
    assert _sign_in(web.browser()).location == "/admin/"
    assert issuer.asked["/keys"] == 2
    assert issuer.asked["/.well-known/openid-configuration"] == 1


def test_an_issuer_that_is_not_the_configured_one_is_refused(web: Web, issuer: Issuer) -> None:
    issuer.says_issuer = "https://evil.example"
    browser = web.browser()
    browser.get("/sign-in")
    assert browser.submit("/sign-in/oidc").status_code == 502


def test_an_answer_of_another_issuer_is_refused(web: Web) -> None:
    browser = web.browser()
    back = _from_provider(_to_provider(browser))
    assert browser.get(re.sub(r"iss=[^&]*", "iss=https%3A%2F%2Fevil.example", back)).status_code == 400
    browser = web.browser()
    back = _from_provider(_to_provider(browser))
    assert browser.get(re.sub(r"&iss=[^&]*", "", back)).status_code == 400


def test_somebody_who_says_no_at_the_provider_is_told_so(web: Web) -> None:
    browser = web.browser()
    address = _to_provider(browser)
    state = parse_qs(urlsplit(address).query)["state"][0]
    page = browser.get("/sign-in/oidc/callback?" + urlencode({"error": "access_denied", "state": state}))
    assert page.status_code == 400
    assert "You did not let" in page.text


@pytest.mark.parametrize("broken", ["/.well-known/openid-configuration", "/token", "/keys"])
def test_a_provider_that_fails_is_said_to_be_away(web: Web, issuer: Issuer, db: Database, broken: str) -> None:
    issuer.broken = {broken}
    browser = web.browser()
    browser.get("/sign-in")
    with _nothing_written(db):
        answer = browser.submit("/sign-in/oidc")
        if answer.status_code == 200:
            answer = _sign_in(browser)
    assert answer.status_code == 502
    assert "Example Inc." in answer.text
    assert "Try again" in answer.text
    issuer.broken = set()
    assert _sign_in(browser).location == "/welcome"


def test_a_provider_that_is_down_is_said_to_be_away(make_web: Callable[..., Web]) -> None:
    down = Issuer()
    with served(down):
        env = down.env()
    browser = make_web(**env).browser()
    browser.get("/sign-in")
    answer = browser.submit("/sign-in/oidc")
    assert answer.status_code == 502
    assert "does not answer" in answer.text


def test_the_addresses_of_github_sign_up_and_in(hub: Web, github: GitHub) -> None:
    browser = hub.browser()
    answer = _sign_up(browser, "github")
    assert answer.location == "/admin/"
    page = browser.get("/account/").text
    assert "ada-lovelace" in page
    assert "ada@example.org" in page
    # The number stays when the login and the address change.
    github.user |= {"login": "countess"}
    github.emails = [{"email": "countess@example.org", "primary": True, "verified": True}]
    again = hub.browser()
    assert _sign_in(again, "github").location == "/admin/"
    assert "ada-lovelace" in again.get("/account/").text


@pytest.mark.parametrize(
    "emails",
    [
        [{"email": "ada@example.org", "primary": True, "verified": False}],
        [{"email": "ada@example.org", "primary": False, "verified": True}],
        [],
        {"message": "Not Found"},
    ],
    ids=str,
)
def test_github_needs_a_primary_and_verified_address(hub: Web, github: GitHub, db: Database, emails: object) -> None:
    github.emails = emails
    browser = hub.browser()
    with _nothing_written(db):
        assert _sign_in(browser, "github").location == "/sign-in"
    assert not _is_signed_in(browser)


def test_a_code_of_github_is_good_once(hub: Web) -> None:
    browser = hub.browser()
    back = _from_provider(_to_provider(browser, "github"))
    kept = browser.cookies()
    assert browser.get(back).location == "/welcome"
    for name, value in kept.items():
        browser.client.set_cookie(name, value, domain="bus.example.org", secure=True)
    assert browser.get(back).status_code == 400


def test_a_second_provider_is_linked_from_within(
    make_web: Callable[..., Web], issuer: Issuer, github: GitHub, db: Database
) -> None:
    web = make_web(**issuer.env(), **_github(github))
    browser = web.browser()
    _sign_up(browser)
    before = browser.cookies()["__Host-llm-bus"]
    back = _from_provider(_to_provider(browser, "github", "/account/", "/account/link/{}"))
    assert browser.get(back).location == "/account/#ways"
    # There is a new way in, so the session has a new token and the old one is dead.
    assert browser.cookies()["__Host-llm-bus"] != before
    assert "GitHub is linked" in browser.get("/account/").text
    other = web.browser()
    assert _sign_in(other, "github").location == "/admin/"
    assert "ada-l" in other.get("/account/").text
    with db.call() as conn:
        numbers = [number for (number,) in conn.all("SELECT id FROM identity ORDER BY id")]
    browser.get("/account/")
    assert browser.submit(f"/account/ways/{numbers[0]}/unlink").status_code == 303
    # Browsers that may have come by it are signed out, and it lets nobody in.
    assert not _is_signed_in(other)
    assert _sign_in(web.browser()).location == "/sign-in"
    token = browser.token()
    browser.post(f"/account/ways/{numbers[1]}/unlink", data={"csrf_token": token})
    assert "only way in" in browser.get("/account/").text
    with db.call() as conn:
        assert conn.one("SELECT count(*) FROM identity") == (1,)


def test_an_identity_of_another_owner_is_not_linked(
    make_web: Callable[..., Web], issuer: Issuer, github: GitHub, db: Database
) -> None:
    web = make_web(**issuer.env(), **_github(github))
    _sign_up(web.browser())
    github.emails = [{"email": "bob@example.org", "primary": True, "verified": True}]
    bob = web.browser()
    _sign_up(bob, "github")
    back = _from_provider(_to_provider(bob, "oidc", "/account/", "/account/link/{}"))
    with db.call() as conn:
        before = fingerprint(conn)["identity"]
    assert bob.get(back).status_code == 303
    assert "belongs to another account" in bob.get("/account/").text
    with db.call() as conn:
        assert fingerprint(conn)["identity"] == before


def test_linking_ends_with_the_session_that_began_it(web: Web, db: Database) -> None:
    with db.write() as conn:
        ada, bob = make_owner(conn, "ada2"), make_owner(conn, "bob2")
    browser = web.browser()
    with db.call() as conn:
        browser.sign_in(conn, ada)
    back = _from_provider(_to_provider(browser, "oidc", "/account/", "/account/link/{}"))
    kept = browser.cookies()["__Host-llm-bus-visit"]
    with db.call() as conn:
        browser.sign_in(conn, bob)
    browser.client.set_cookie("__Host-llm-bus-visit", kept, domain="bus.example.org", secure=True)
    assert browser.get(back).status_code == 400
    with db.call() as conn:
        assert conn.one("SELECT count(*) FROM identity") == (0,)


def test_sign_up_can_be_closed_and_listed(make_web: Callable[..., Web], issuer: Issuer, db: Database) -> None:
    closed = make_web(**issuer.env(), SIGN_UP="closed")
    with _nothing_written(db):
        answer = _sign_in(closed.browser())
    assert answer.status_code == 403
    assert "not open" in answer.text
    others = make_web(**issuer.env(), SIGN_UP_ALLOW="@example.com, bob@example.org")
    with _nothing_written(db):
        assert _sign_in(others.browser()).status_code == 403
    listed = make_web(**issuer.env(), SIGN_UP_ALLOW="@Example.ORG")
    _sign_up(listed.browser())
    # Who is in stays in, whatever the list says.
    assert _sign_in(closed.browser()).location == "/admin/"


def test_a_handle_that_is_taken_reserved_or_malformed_is_asked_again(web: Web, db: Database) -> None:
    with db.write() as conn:
        make_owner(conn, "taken")
    browser = web.browser()
    assert _sign_in(browser).location == "/welcome"
    for handle, said in (
        ("TAKEN", "That handle is taken"),
        ("admin", "reserved"),
        ("a/b", "Handle must be"),
        ("", "Choose a handle"),
        ("<script>", "Handle must be"),
    ):
        browser.get("/welcome")
        page = browser.submit("", handle=handle)
        assert page.status_code == 422
        assert said in html.unescape(page.text)
    browser.get("/welcome")
    assert browser.submit("", handle=" Ada ").location == "/admin/"
    assert ">ada<" in browser.get("/account/").text


def test_welcome_is_for_those_for_whom_somebody_vouched(web: Web) -> None:
    assert web.browser().get("/welcome").location == "/sign-in"
