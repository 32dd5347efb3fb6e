"""Settings as they may be shown: nothing secret, whatever it is called and wherever it hides."""

import pytest

from bus.config.redaction import MASK, MaskedSetting, RecordingEnvironment, mask
from bus.config.settings import Settings


@pytest.mark.parametrize(
    ("name", "value", "shown"),
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
def test_what_is_secret_is_masked(name: str, value: str, shown: str) -> None:
    assert mask(name, value) == shown


def test_what_is_in_force_is_what_was_asked_for() -> None:
    env = RecordingEnvironment(
        {"DATABASE_URL": "postgres://bus:abc@db/bus", "PORT": "80", "GATEWAY_THREADS": " ", "UNASKED": "x"}
    )
    settings = Settings.from_env(env)
    assert (settings.port, settings.threads, settings.fast_path) == (80, 4, True)
    shown = env.masked_settings()
    assert shown["PORT"] == MaskedSetting("80", False)
    assert shown["GATEWAY_THREADS"] == MaskedSetting("4", True)
    assert shown["GATEWAY_FAST_PATH"] == MaskedSetting("1", True)
    assert shown["DATABASE_URL"] == MaskedSetting(f"postgres://bus:{MASK}@db/bus", False)
    assert shown["MCP_URL"].value == settings.mcp_url
    assert "UNASKED" not in shown
    # What decides about a setting is asked for, so nothing of it is missing here.
    assert len(shown) == 16
