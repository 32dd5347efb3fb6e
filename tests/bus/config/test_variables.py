"""Settings are read from the environment: every problem is reported at once, and what is in force is recorded."""

import logging

import pytest
from pydantic import SecretStr, ValidationError

from bus.config.errors import SettingError
from bus.config.redaction import MASK, MaskedSetting
from bus.config.settings import Settings
from bus.config.variables import Environment, EnvironmentSettings, format_value, reading, variable_schemas
from bus.operations.telemetry import TelemetrySettings
from webapp.settings import WebOptions
from workers.settings import WorkerSettings

_URL = "postgresql://bus:abc@localhost/bus"


def _read_all(variables: dict[str, str]) -> Environment:
    with reading(variables) as env:
        settings = Settings.from_env(env)
        WebOptions.from_env(env)
        WorkerSettings.from_env(env, bus=settings)
        env.read(TelemetrySettings)
    return env


def test_all_settings_that_were_read_are_recorded_masked() -> None:
    variables = {
        "DATABASE_URL": "postgres://bus:abc@db/bus",
        "PORT": "80",
        "GATEWAY_THREADS": " ",
        "METRICS_TOKEN": "t" * 16,
        "UNREAD": "x",
    }
    with reading(variables) as env:
        settings = Settings.from_env(env)
    assert (settings.port, settings.threads, settings.fast_path) == (80, 4, True)
    recorded = env.masked_settings()
    assert recorded["PORT"] == MaskedSetting("80", False)
    assert recorded["GATEWAY_THREADS"] == MaskedSetting("4", True)
    assert recorded["GATEWAY_FAST_PATH"] == MaskedSetting("1", True)
    assert recorded["REDIS_URL"] == MaskedSetting("", True)
    assert recorded["METRICS_TOKEN"] == MaskedSetting(MASK, False)
    assert recorded["DATABASE_URL"] == MaskedSetting(f"postgres://bus:{MASK}@db/bus", False)
    assert recorded["MCP_URL"].value == settings.mcp_url
    assert recorded["ALLOWED_HOSTS"].value == ", ".join(settings.allowed_hosts)
    assert "UNREAD" not in recorded


def test_defaults_are_recorded_as_a_variable_would_hold_them() -> None:
    recorded = _read_all({"DATABASE_URL": _URL, "JOB_EVERY": "prune=5"}).masked_settings()
    names = ("SESSION_HOURS", "PROVIDER_SECONDS", "PUBLIC_STATS", "SIGN_UP")
    assert [recorded[name].value for name in names] == ["720", "5", "0", "open"]
    assert (recorded["OIDC_NAME"], recorded["SMTP_URL"]) == (
        MaskedSetting("Single sign-on", True),
        MaskedSetting("", True),
    )
    assert recorded["JOB_EVERY"] == MaskedSetting("prune=5", False)
    assert _read_all({"DATABASE_URL": _URL}).masked_settings()["JOB_EVERY"] == MaskedSetting("", True)


@pytest.mark.parametrize("settings_class", [Settings, WebOptions, WorkerSettings, TelemetrySettings])
def test_every_variable_of_a_settings_class_is_reported(settings_class: type[EnvironmentSettings]) -> None:
    declared = variable_schemas(settings_class)
    assert declared
    assert declared.keys() <= _read_all({"DATABASE_URL": _URL}).masked_settings().keys()
    # A field without a variable would be read from one of its own name.
    assert len(declared) == len(settings_class.model_fields) - (settings_class is WorkerSettings)


_FORMS = {
    name: schema
    for settings_class in (Settings, WebOptions, WorkerSettings, TelemetrySettings)
    for name, schema in variable_schemas(settings_class).items()
}
# Any text is right.
_WITHOUT_FORM = {"HOST", "ALLOWED_HOSTS", "ALLOWED_ORIGINS", "MAIL_FROM", "OIDC_NAME"} | {
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "SENTRY_DSN",
}


@pytest.mark.parametrize("name", sorted(_FORMS.keys() - _WITHOUT_FORM))
def test_the_error_for_a_wrong_value_names_the_variable_and_shows_no_password(name: str) -> None:
    # Also wrong where one of several settings is given, and too short for a secret.
    value = "hunter2" if _FORMS[name].get("format") == "password" else "x://ann:hunter2@[::1/@"
    with pytest.raises(SettingError, match=name) as refused:
        _read_all({"DATABASE_URL": _URL, name: value})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", ["port", "database_url", "bus", "Port"])
def test_a_field_is_not_read_from_a_variable_of_its_own_name(name: str) -> None:
    variables = {"DATABASE_URL": _URL, name: "1"}
    assert WorkerSettings.from_env(variables) == WorkerSettings.from_env({"DATABASE_URL": _URL})


def test_settings_that_are_built_in_code_read_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("SIGN_UP", "closed")
    assert Settings(database_url=_URL).port == 8788
    assert WebOptions().sign_up_mode == "open"
    assert Settings(database_url=_URL, mcp_url="https://mcp.example.org").allowed_hosts[-1] == "mcp.example.org"


def test_one_error_names_every_wrong_variable_of_all_classes() -> None:
    variables = {
        "PORT": "http",
        "METRICS_TOKEN": "short-secret",
        "SIGN_UP": "Maybe",
        "OIDC_ISSUER": "https://ann:hunter2@id.example.org/?token=hunter2",
        "GITHUB_URL": "ftp://ann:hunter2@github.example.org",
        "SMTP_URL": "smtp://ann:hun#ter2@mail:25",
        "METRICS_PORT": "70000",
    }
    with pytest.raises(SettingError) as refused:
        _read_all(variables)
    assert sorted(problem.partition(" ")[0] for problem in refused.value.problems) == [
        "DATABASE_URL",
        "GITHUB_URL",
        "METRICS_PORT",
        "METRICS_TOKEN",
        "OIDC_CLIENT_ID",
        "PORT",
        "SIGN_UP",
        "SMTP_URL",
    ]
    text = str(refused.value)
    assert "PORT must be a whole number from 0 to 65535; it is 'http'." in text
    assert "SIGN_UP must be open or closed; it is 'Maybe'." in text
    assert "DATABASE_URL is not set. Set it to a value such as postgresql://USER:PASSWORD@HOST/NAME." in text
    assert "METRICS_TOKEN must have at least 16 characters, and has 12." in text
    assert not any(word in text for word in ("hunter2", "hun#ter2", "short-secret"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mysql://bus:word@db/bus", "it starts with mysql://"),
        ("bus:word@db/bus", "it has no such start"),
        ("//bus:word@db", "it has no such start"),
        ("word?://db", "it has no such start"),
    ],
)
def test_a_wrong_database_url_is_not_shown(url: str, shown: str) -> None:
    with pytest.raises(SettingError) as refused:
        Settings.from_env({"DATABASE_URL": url})
    assert shown in str(refused.value)
    assert "word" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "9" * 5000),
        ("PORT", "\u0663"),
        ("PUBLIC_URL", "http://[::1"),
        ("PUBLIC_URL", "https://bus.example.org/sub"),
        ("PUBLIC_URL", "https://bus.example.org/?a=b"),
        ("MCP_URL", "http://[::1/mcp"),
        *(("REDIS_URL", url) for url in ("/5", "redis://", "http://localhost:6379", "unix:", "localhost")),
        ("GATEWAY_FAST_PATH", "maybe"),
        ("MAX_BODY_BYTES", "1"),
    ],
)
def test_a_malformed_value_is_a_short_error(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"^{name} must be ") as refused:
        Settings.from_env({"DATABASE_URL": _URL, name: value})
    assert len(str(refused.value)) < 250


def test_an_empty_host_means_all_addresses_and_other_blank_values_count_as_not_set() -> None:
    default = Settings.from_env({"DATABASE_URL": _URL})
    blank = Settings.from_env(dict.fromkeys(variable_schemas(Settings), " ") | {"DATABASE_URL": _URL})
    empty = Settings.from_env(dict.fromkeys(variable_schemas(Settings), "") | {"DATABASE_URL": _URL})
    assert (blank, empty) == (default, default.model_copy(update={"host": ""}))


def test_an_address_with_a_password_leaves_it_out_of_hosts_and_origins() -> None:
    with reading({"DATABASE_URL": _URL, "PUBLIC_URL": "https://ann:hunter2@Bus.example.org/"}) as env:
        settings = Settings.from_env(env)
    assert (settings.allowed_hosts[-1], settings.allowed_origins[-1]) == ("bus.example.org", "https://bus.example.org")
    assert "hunter2" not in f"{settings!r} {env.masked_settings()}"


def test_credentials_in_a_list_are_masked() -> None:
    with reading({"DATABASE_URL": _URL, "ALLOWED_ORIGINS": "https://a, https://ann:hunter2@b, https://c"}) as env:
        settings = Settings.from_env(env)
    assert "hunter2" not in f"{settings!r} {format_value(settings.allowed_origins)} {env.masked_settings()}"


def test_spaces_around_a_value_are_dropped() -> None:
    settings = Settings.from_env(
        {"DATABASE_URL": f" {_URL} ", "PUBLIC_URL": "\thttps://bus.example.org/ ", "HOST": " h "}
    )
    assert (settings.database_url, settings.public_url, settings.host) == (_URL, "https://bus.example.org", "h")


def test_a_list_without_a_name_counts_as_not_set() -> None:
    with reading({"DATABASE_URL": _URL, "ALLOWED_HOSTS": " , ", "ALLOWED_ORIGINS": ","}) as env:
        assert Settings.from_env(env) == Settings.from_env({"DATABASE_URL": _URL})


def test_settings_cannot_be_changed() -> None:
    worker = WorkerSettings.from_env({"DATABASE_URL": _URL, "JOB_EVERY": "prune=5"})
    for settings, name in ((worker, "threads"), (worker.bus, "port"), (WebOptions(), "sign_up_mode")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(settings, name, 1)
    with pytest.raises(TypeError):
        worker.job_intervals["prune"] = 1.0  # type: ignore[index]


def test_values_are_plain_attributes() -> None:
    settings = Settings.from_env({"DATABASE_URL": _URL})
    assert settings.__dict__["rate_per_minute"] == 0
    assert not any(isinstance(value, property) for value in vars(Settings).values())


def test_another_error_in_the_block_is_not_hidden() -> None:
    def fail() -> None:
        with reading({"PORT": "x"}) as env:
            Settings.from_env(env)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_a_secret_is_shown_masked_in_every_form(caplog: pytest.LogCaptureFixture) -> None:
    token = Settings.from_env({"DATABASE_URL": _URL, "METRICS_TOKEN": "the-token-itself"}).metrics_token
    assert token == SecretStr("the-token-itself")
    assert format_value(token) == MASK
    logging.getLogger("test").warning("%s %r", token, {"token": token})
    for text in (caplog.text, str(token), repr(token), f"{token}", repr([token])):
        assert "***" in text
        assert "itself" not in text


def test_a_wrong_value_in_code_is_refused_without_being_shown() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(database_url="mysql://bus:hunter2@db/bus", metrics_token=SecretStr("short-secret"))
    assert not any(word in str(refused.value) for word in ("hunter2", "short-secret"))
