"""The settings of the web process, and their errors."""

from datetime import timedelta

import pytest
from pydantic import SecretStr

from bus.config.errors import SettingError
from webapp.provider_settings import OAuthClientSettings, OidcSettings
from webapp.settings import WebOptions

_OIDC = {"OIDC_ISSUER": "https://id.example.org", "OIDC_CLIENT_ID": "bus", "OIDC_CLIENT_SECRET": "s"}


def test_without_settings_only_login_links_sign_in() -> None:
    options = WebOptions.from_env({})
    assert options == WebOptions()
    assert (options.google, options.github, options.oidc, options.sso_header) == (None, None, None, None)
    assert options.top_up_url is None
    assert not options.public_stats


def test_all_settings_are_read() -> None:
    options = WebOptions.from_env(
        _OIDC
        | {
            "SECRET_KEY": "k" * 32,
            "SESSION_IDLE_MINUTES": "30",
            "SESSION_HOURS": " 8 ",
            "PROXY_HOPS": "1",
            "GOOGLE_CLIENT_ID": "g",
            "GOOGLE_CLIENT_SECRET": "google-secret",
            "OIDC_NAME": "Example Inc.",
            "SIGN_UP": "Open",
            "SIGN_UP_ALLOW": "@Example.org, ada@other.example ,",
            "SSO_HEADER": "X-Email",
            "SSO_PROXY_SECRET": "p" * 16,
            "TOP_UP_URL": "https://pay.example.org/?for={handle}",
            "PUBLIC_STATS": "true",
            "TERMS_URL": "https://example.org/terms",
            "GITHUB_URL": "https://github.example.org/",
        }
    )
    assert options.session_idle_timeout == timedelta(minutes=30)
    assert options.session_max_age == timedelta(hours=8)
    assert options.google == OAuthClientSettings("g", SecretStr("google-secret"))
    assert options.oidc == OidcSettings("https://id.example.org", "bus", SecretStr("s"), "Example Inc.")
    assert options.sign_up_allowlist == ("@example.org", "ada@other.example")
    assert (options.public_stats, options.proxy_hops) == (True, 1)
    assert options.top_up_url == "https://pay.example.org/?for={handle}"
    assert WebOptions.from_env({"TOP_UP_URL": "mailto:credits@example.org"}).top_up_url is not None
    assert options.github_url == "https://github.example.org"
    # Secrets are not part of the repr, which may be logged.
    text = f"{options!r} {options} {options.secret_key} {options.oidc} {options.sso_proxy_secret}"
    assert not any(secret in text for secret in ("google-secret", "k" * 32, "p" * 16, "'s'"))


def test_the_idle_timeout_is_at_most_the_maximum_age() -> None:
    assert WebOptions.from_env({"SESSION_HOURS": "1"}).session_idle_timeout == timedelta(hours=1)


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"SECRET_KEY": "short"}, "SECRET_KEY"),
        ({"SESSION_IDLE_MINUTES": "0"}, "SESSION_IDLE_MINUTES"),
        ({"SESSION_HOURS": "-1"}, "SESSION_HOURS"),
        ({"SESSION_HOURS": "\u0663"}, "SESSION_HOURS"),
        ({"PROXY_HOPS": "yes"}, "PROXY_HOPS"),
        ({"PROXY_HOPS": "11"}, "PROXY_HOPS"),
        ({"GOOGLE_CLIENT_ID": "g"}, "GOOGLE_CLIENT_SECRET"),
        ({"GITHUB_CLIENT_SECRET": "g"}, "GITHUB_CLIENT_ID"),
        ({"OIDC_ISSUER": "https://id.example.org"}, "OIDC_CLIENT_ID"),
        ({"OIDC_CLIENT_ID": "a", "OIDC_CLIENT_SECRET": "b"}, "OIDC_ISSUER"),
        (_OIDC | {"OIDC_ISSUER": "id.example.org"}, "OIDC_ISSUER"),
        ({"SSO_HEADER": "X-Email"}, "SSO_PROXY_SECRET"),
        ({"SSO_HEADER": "X-Email", "SSO_PROXY_SECRET": "short"}, "SSO_PROXY_SECRET"),
        ({"SIGN_UP": "maybe"}, "SIGN_UP"),
        ({"SIGN_UP_ALLOW": "example.org"}, "SIGN_UP_ALLOW"),
        ({"SIGN_UP_ALLOW": "ada@"}, "SIGN_UP_ALLOW"),
        ({"TERMS_FILE": "terms.md"}, "TERMS_FILE"),
        ({"PRIVACY_FILE": "/does/not/exist.md"}, "PRIVACY_FILE"),
        ({"TERMS_FILE": __file__, "TERMS_URL": "https://example.org/terms"}, "TERMS_URL"),
        ({"TOP_UP_URL": "javascript:alert('@')"}, "TOP_UP_URL"),
        ({"TOP_UP_URL": "mailto:billing"}, "TOP_UP_URL"),
        ({"TERMS_URL": "javascript:alert(1)"}, "TERMS_URL"),
        ({"PRIVACY_URL": "/privacy"}, "PRIVACY_URL"),
        ({"SIGN_IN_PER_MINUTE": "1.5"}, "SIGN_IN_PER_MINUTE"),
    ],
    ids=str,
)
def test_a_malformed_setting_is_named(env: dict[str, str], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        WebOptions.from_env(env)


_PROVIDER_ADDRESSES = ["OIDC_ISSUER", "GOOGLE_ISSUER", "GITHUB_URL", "GITHUB_API_URL"]


@pytest.mark.parametrize("name", _PROVIDER_ADDRESSES)
@pytest.mark.parametrize("host", ["id.example.org", "10.0.0.7", "localhost.example.org", "128.0.0.1", "[fd00::1]"])
def test_a_provider_of_another_machine_is_reached_over_tls(name: str, host: str) -> None:
    env = _OIDC | {name: f"http://{host}:8080/path"}
    with pytest.raises(SettingError, match=f"{name} must begin with https://"):
        WebOptions.from_env(env)
    WebOptions.from_env(env | {name: f"https://{host}:8080/path"})


@pytest.mark.parametrize("name", _PROVIDER_ADDRESSES)
@pytest.mark.parametrize("host", ["localhost", "id.localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_a_provider_of_this_machine_may_use_http(name: str, host: str) -> None:
    WebOptions.from_env(_OIDC | {name: f"http://{host}:8080/path"})


@pytest.mark.parametrize(
    ("allow", "email", "may"),
    [
        ("", "anybody@anywhere.example", True),
        ("@example.org", "ADA@Example.org", True),
        ("@example.org", "ada@sub.example.org", False),
        ("@example.org", "ada@evil-example.org", False),
        ("@example.org", "ada@example.org@evil.example", False),
        ("ada@example.org", "ada@example.org", True),
        ("ada@example.org", "bob@example.org", False),
    ],
)
def test_the_allowlist_decides_who_may_sign_up(allow: str, email: str, may: bool) -> None:
    assert WebOptions.from_env({"SIGN_UP_ALLOW": allow}).allows_sign_up(email) is may
    assert not WebOptions.from_env({"SIGN_UP_ALLOW": allow, "SIGN_UP": "closed"}).allows_sign_up(email)
