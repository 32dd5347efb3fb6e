"""The reference page of the settings is generated from the settings classes, and misses no variable."""

import re
from pathlib import Path

import pytest

from cli.env_example import render_file
from cli.settings_reference import render_page

_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "docs" / "reference" / "settings.md"
# Read by the system or by tools, with their own meaning.
_FOREIGN = {"PATH", "XDG_DATA_HOME"}


def test_the_page_in_the_repository_is_up_to_date() -> None:
    assert _PAGE.read_text(encoding="utf-8") == render_page(), "run `make docs`"


@pytest.mark.parametrize("package", ["bus", "mcp_gateway", "webapp", "workers", "cli"])
def test_no_variable_is_read_that_the_page_does_not_have(package: str) -> None:
    sources = (path.read_text(encoding="utf-8") for path in (_ROOT / package).rglob("*.py"))
    pattern = re.compile(r"""environ(?:\.get\(|\[)\s*["']([A-Z_]+)|_get_env\(["']([A-Z_]+)""")
    names = {name for source in sources for match in pattern.finditer(source) for name in match.groups() if name}
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", render_page(), re.MULTILINE))
    assert names - _FOREIGN <= documented


def test_the_template_of_an_environment_file_is_up_to_date_and_sets_nothing() -> None:
    text = (_ROOT / ".env.example").read_text(encoding="utf-8")
    assert text == render_file(), "run `make docs`"
    assert all(line.startswith("#") for line in text.splitlines() if line)
    templated = set(re.findall(r"^#([A-Z_]+)=", text, re.MULTILINE))
    assert templated | {"LLM_BUS_TOKEN"} == set(re.findall(r"^\| `([A-Z_]+)` \|", render_page(), re.MULTILINE))


def test_a_row_has_processes_allowed_values_default_and_secrecy() -> None:
    page = render_page()
    assert "| `GATEWAY_THREADS` | gateway, web | whole number: 1 to 256 | `4` |" in page
    secrets = re.findall(r"^\| `([A-Z_]+)` .*\*\*Secret\*\* \|$", page, re.MULTILINE)
    assert secrets == [
        "METRICS_TOKEN",
        "SECRET_KEY",
        "GOOGLE_CLIENT_SECRET",
        "GITHUB_CLIENT_SECRET",
        "OIDC_CLIENT_SECRET",
        "OIDC_CLIENT_KEY",
        "SSO_PROXY_SECRET",
        "SENTRY_DSN",
        "MIGRATION_DATABASE_URL",
        "ORIGINAL_DATABASE_URL",
        "LLM_BUS_TOKEN",
    ]
