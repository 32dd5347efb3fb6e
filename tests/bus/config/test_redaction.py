"""Secrets and credentials in URLs are masked wherever a setting is shown."""

import pytest

from bus.config.redaction import MASK, mask_url
from bus.config.settings import Settings
from workers.settings import WorkerSettings


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.0.0.0", "0.0.0.0"),
        ("", ""),
        ("postgresql://bus:abc@db.example.org/bus", f"postgresql://bus:{MASK}@db.example.org/bus"),
        ("postgresql://bus:a/b?c#d@e@db/bus", f"postgresql://bus:{MASK}@db/bus"),
        ("postgresql://db/bus?user=u&password=abc", f"postgresql://db/bus?user=u&password={MASK}"),
        ("postgresql://db/bus?sslpassword=abc&a=b", f"postgresql://db/bus?sslpassword={MASK}&a=b"),
        ("https://id.example.org/?api_key=abc&a=b", f"https://id.example.org/?api_key={MASK}&a=b"),
        ("rediss://:abc@redis/0", f"rediss://:{MASK}@redis/0"),
        ("redis://abc@redis/0", f"redis://{MASK}@redis/0"),
        ("redis://redis/0", "redis://redis/0"),
        ("smtp://ann%40x:abc@mail:587", f"smtp://ann%40x:{MASK}@mail:587"),
    ],
)
def test_credentials_in_urls_are_masked(value: str, expected: str) -> None:
    assert mask_url(value) == expected


def test_settings_are_shown_without_passwords() -> None:
    settings = Settings.from_env(
        {
            "DATABASE_URL": "postgres://bus:db-word@localhost/bus",
            "REDIS_URL": "redis://:redis-word@redis/0",
            "METRICS_TOKEN": "metrics-word-of-16",
        }
    )
    assert settings.database_url == "postgresql://bus:db-word@localhost/bus"
    text = f"{settings} {settings!r} {WorkerSettings(bus=settings)!r}"
    assert f"postgresql://bus:{MASK}@localhost/bus" in text
    assert "word" not in text
