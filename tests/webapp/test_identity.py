"""Colours, shapes and initials: contrast in both schemes, and the same on every page."""

import re
from pathlib import Path

import pytest

from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.web_client import Browser
from webapp import identity

_STATIC = Path(identity.__file__).parent / "static"
_CSS = (_STATIC / "bus.css").read_text()
_PAGES = (_STATIC / "pages.css").read_text()
_CHARTS = (_STATIC / "charts.css").read_text()


def _colours(css: str) -> tuple[dict[str, str], dict[str, str]]:
    """The colours of the light and of the dark scheme."""
    light, dark = css.split("prefers-color-scheme: dark", 1)
    dark = dark[: dark.index("\n}\n")]
    light_colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light))
    return light_colours, {**light_colours, **dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", dark))}


def _luminance(colour: str) -> float:
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(first: str, second: str) -> float:
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_initials_are_readable_and_marks_stand_out(scheme: int) -> None:
    colours = _colours(_CSS)[scheme]
    hues = [colours[f"hue-{number}"] for number in range(identity.HUE_COUNT)]
    assert len(set(hues)) == identity.HUE_COUNT
    for hue in hues:
        assert _contrast(hue, colours["on-hue"]) >= 4.5, hue
        for ground in ("background", "surface", "surface-sunken"):
            assert _contrast(hue, colours[ground]) >= 3, (hue, ground)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_states_are_readable_on_their_grounds(scheme: int) -> None:
    colours = _colours(_CSS)[scheme]
    states = {"text-muted": "surface-sunken", "info": "info-tint", "good": "good-tint", "danger": "danger-tint"}
    for colour, tint in states.items():
        for ground in (tint, "surface", "background"):
            assert _contrast(colours[colour], colours[ground]) >= 4.5, (colour, ground)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_of_charts_stand_out(scheme: int) -> None:
    series, colours = _colours(_CHARTS)[scheme], _colours(_CSS)[scheme]
    for number in range(8):
        assert _contrast(series[f"series-{number}"], colours["surface"]) >= 3, number


def test_every_state_has_a_colour_and_a_shape_of_its_own() -> None:
    symbols = dict(re.findall(r'<symbol id="state-(\w+)"[^>]*>(.*?)</symbol>', (_STATIC / "icons.svg").read_text()))
    assert set(symbols) == {"queued", "seen", "acked", "overdue"}
    assert len(set(symbols.values())) == 4
    rules = {
        state: re.search(rf"^\.state{state}[^{{]*{{ color: ([^;]+);", _PAGES, re.M)
        for state in ("", r"\.seen", r"\.acked", r"\.overdue")
    }
    shown = [rule[1] for rule in rules.values() if rule is not None]
    assert len(set(shown)) == 4, shown


def test_every_symbol_in_use_exists(ada: Browser, sample: SampleData) -> None:
    known = set(re.findall(r'<symbol id="([\w-]+)"', (_STATIC / "icons.svg").read_text()))
    used: set[str] = set()
    for path in ("", "board/", "handoffs/", "tasks/", "tasks/?status=open", "ledger/", "leases/"):
        used |= set(re.findall(r'icons\.svg\?v=\w+#([\w-]+)"', ada.get(project_path(sample, path)).text))
    used |= set(re.findall(r'icons\.svg\?v=\w+#([\w-]+)"', ada.get("/admin/").text))
    assert used - known == set()
    assert len(used) > 15


@pytest.mark.parametrize(
    ("label", "initials"),
    [
        ("api-agent", "AP"),
        ("review", "RE"),
        ("demo-backend-1", "B1"),
        ("demo-migrations", "DM"),
        ("agent", "AG"),
        ("x", "X"),
        ("snake_case_name", "SC"),
        ("Zoë", "ZO"),
        ("…", "?"),
    ],
)
def test_initials(label: str, initials: str) -> None:
    assert identity.initials(label) == initials


def test_a_participant_looks_the_same_on_every_page(ada: Browser, sample: SampleData) -> None:
    agent = f'<span class="avatar hue-{identity.hue("review-agent")}" aria-hidden="true">RE</span>'
    person = f'<span class="avatar person hue-{identity.hue("carol")}" aria-hidden="true">CA</span>'
    for path in ("", "board/", "handoffs/", "ledger/", "participants/", "leases/"):
        page = ada.get(project_path(sample, path)).text
        assert agent in page, path
    for path in ("", "board/", "handoffs/", "ledger/", "participants/"):
        assert person in ada.get(project_path(sample, path)).text, path
    inbox = ada.get("/admin/").text
    assert agent in inbox
    assert person in inbox
    assert agent in ada.get("/admin/participants/").text
