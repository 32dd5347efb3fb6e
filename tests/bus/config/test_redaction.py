"""Redaction of settings: secrets are masked by name and inside URLs."""

import pytest

from bus.config.redaction import MASK, MaskedSetting, RecordingEnvironment, mask
from bus.config.settings import Settings


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("HOST", "0.0.0.0", "0.0.0.0"),
        ("SECRET_KEY", "abc", MASK),
        ("GOOGLE_CLIENT_SECRET", "abc", MASK),
        ("GOOGLE_CLIENT_ID", "abc", "abc"),
        ("METRICS_TOKEN", "abc", MASK),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=abc", MASK),
        ("SENTRY_DSN", "https://abc@sentry.example.org/1", MASK),
        ("WAITS_PER_TOKEN", "200", "200"),
        ("SECRET_KEY", "", ""),
        ("DATABASE_URL", "postgresql://bus:abc@db.example.org/bus", f"postgresql://bus:{MASK}@db.example.org/bus"),
        ("DATABASE_URL", "postgresql://bus:a/b?c#d@e@db/bus", f"postgresql://bus:{MASK}@db/bus"),
        ("DATABASE_URL", "postgresql://db/bus?user=u&password=abc", f"postgresql://db/bus?user=u&password={MASK}"),
        ("DATABASE_URL", "postgresql://db/bus?sslpassword=abc&a=b", f"postgresql://db/bus?sslpassword={MASK}&a=b"),
        ("REDIS_URL", "rediss://:abc@redis/0", f"rediss://:{MASK}@redis/0"),
        ("REDIS_URL", "redis://abc@redis/0", f"redis://{MASK}@redis/0"),
        ("REDIS_URL", "redis://redis/0", "redis://redis/0"),
        ("SMTP_URL", "smtp://ann%40x:abc@mail:587", f"smtp://ann%40x:{MASK}@mail:587"),
    ],
)
def test_secrets_are_masked(name: str, value: str, expected: str) -> None:
    assert mask(name, value) == expected


def test_all_settings_that_were_read_are_recorded_masked() -> None:
    env = RecordingEnvironment(
        {"DATABASE_URL": "postgres://bus:abc@db/bus", "PORT": "80", "GATEWAY_THREADS": " ", "UNREAD": "x"}
    )
    settings = Settings.from_env(env)
    assert (settings.port, settings.threads, settings.fast_path) == (80, 4, True)
    recorded = env.masked_settings()
    assert recorded["PORT"] == MaskedSetting("80", False)
    assert recorded["GATEWAY_THREADS"] == MaskedSetting("4", True)
    assert recorded["GATEWAY_FAST_PATH"] == MaskedSetting("1", True)
    assert recorded["DATABASE_URL"] == MaskedSetting(f"postgres://bus:{MASK}@db/bus", False)
    assert recorded["MCP_URL"].value == settings.mcp_url
    assert "UNREAD" not in recorded
    # Every setting is read through the environment, so none is missing.
    assert len(recorded) == 16
