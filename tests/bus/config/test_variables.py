"""Settings are read from the environment: every problem is reported at once, and what is in force is recorded."""

import dataclasses

import pytest

from bus.config.redaction import MASK, MaskedSetting, Secret
from bus.config.settings import Settings
from bus.config.variables import Environment, SettingError, format_value, secret, variables_of
from bus.operations.telemetry import TelemetrySettings
from webapp.settings import WebOptions
from workers.settings import WorkerSettings

_URL = "postgresql://bus:abc@db/bus"


def _read_all(env: Environment) -> None:
    with env:
        settings = Settings.from_env(env)
        WebOptions.from_env(env)
        WorkerSettings.from_env(env, bus=settings)


def test_all_settings_that_were_read_are_recorded_masked() -> None:
    env = Environment(
        {
            "DATABASE_URL": "postgres://bus:abc@db/bus",
            "PORT": "80",
            "GATEWAY_THREADS": " ",
            "METRICS_TOKEN": "t" * 16,
            "UNREAD": "x",
        }
    )
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


@pytest.mark.parametrize("settings_class", [Settings, WebOptions, WorkerSettings, TelemetrySettings])
def test_every_variable_of_a_settings_class_is_reported(settings_class: type) -> None:
    with Environment({"DATABASE_URL": _URL}) as env:
        if settings_class is TelemetrySettings:
            env.read_fields(settings_class)
        else:
            settings_class.from_env(env)  # type: ignore[attr-defined]
    declared = {variable.name for variables in variables_of(settings_class).values() for variable in variables}
    assert declared
    assert declared <= env.masked_settings().keys()


def test_one_error_names_every_wrong_variable_of_all_classes() -> None:
    env = Environment(
        {
            "PORT": "http",
            "METRICS_TOKEN": "short-secret",
            "SIGN_UP": "maybe",
            "OIDC_ISSUER": "https://ann:hunter2@id.example.org/?token=hunter2",
            "GITHUB_URL": "ftp://ann:hunter2@github.example.org",
            "SMTP_URL": "smtp://ann:hun#ter2@mail:25",
            "METRICS_PORT": "70000",
        }
    )
    with pytest.raises(SettingError) as refused:
        _read_all(env)
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
        ("MCP_URL", "http://[::1/mcp"),
        ("GATEWAY_FAST_PATH", "maybe"),
        ("MAX_BODY_BYTES", "1"),
    ],
)
def test_a_malformed_value_is_a_short_error(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"^{name} must be ") as refused:
        Settings.from_env({"DATABASE_URL": _URL, name: value})
    assert len(str(refused.value)) < 250


def test_an_empty_host_means_all_addresses_and_other_blank_values_count_as_not_set() -> None:
    names = {variable.name for variables in variables_of(Settings).values() for variable in variables}
    blank = Settings.from_env(dict.fromkeys(names, "") | {"DATABASE_URL": _URL})
    assert blank == dataclasses.replace(Settings.from_env({"DATABASE_URL": _URL}), host="")


def test_settings_cannot_be_changed() -> None:
    worker = WorkerSettings.from_env({"DATABASE_URL": _URL, "JOB_EVERY": "prune=5"})
    for settings, name in ((worker, "threads"), (worker.bus, "port"), (WebOptions(), "sign_up_mode")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings, name, 1)
    with pytest.raises(TypeError):
        worker.job_intervals["prune"] = 1.0  # type: ignore[index]


def test_values_are_plain_attributes() -> None:
    settings = Settings.from_env({"DATABASE_URL": _URL})
    assert settings.__dict__["rate_per_minute"] == 0
    assert not any(isinstance(value, property) for value in vars(Settings).values())


def test_another_error_in_the_block_is_not_hidden() -> None:
    def fail() -> None:
        with Environment({"PORT": "x"}) as env:
            Settings.from_env(env)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_a_default_that_is_secret_is_masked() -> None:
    variable = next(iter(variables_of(Settings)["metrics_token"]))
    assert variable.kind.is_secret
    assert format_value(variable, Secret("x" * 16)) == MASK
    assert secret(16).parse("x" * 16).get_secret_value() == "x" * 16
