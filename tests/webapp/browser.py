"""A real browser for tests: an installed Chromium, driven by Playwright. Without one these tests are skipped."""

import asyncio
from asyncio import AbstractEventLoop, _set_running_loop
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright

from tests.chromium import SKIP_REASON, find_chromium

PHONE_VIEWPORT: ViewportSize = {"width": 390, "height": 844}
NARROW_VIEWPORT: ViewportSize = {"width": 360, "height": 740}
LAPTOP_VIEWPORT: ViewportSize = {"width": 1280, "height": 800}


@contextmanager
def launch_chromium() -> Iterator[Browser]:
    """Run a headless Chromium.

    Raises:
        LookupError: none is installed.
    """
    executable = find_chromium()
    if executable is None:
        raise LookupError(SKIP_REASON)
    # Chromium's sandbox does not work for root, and only pages of the test are opened.
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="session")
def chromium_process() -> Iterator[tuple[Browser, AbstractEventLoop]]:
    """One browser for all tests of a worker, and the event loop of its connection. Use it through `chromium`."""
    if find_chromium() is None:
        pytest.skip(SKIP_REASON)
    with launch_chromium() as browser:
        loop = asyncio.get_running_loop()
        _set_running_loop(None)
        try:
            yield browser, loop
        finally:
            _set_running_loop(loop)


@pytest.fixture
def chromium(chromium_process: tuple[Browser, AbstractEventLoop]) -> Iterator[Browser]:
    """The browser of this worker. Its loop counts as running for this test only, since others start loops."""
    browser, loop = chromium_process
    _set_running_loop(loop)
    try:
        yield browser
    finally:
        _set_running_loop(None)


@contextmanager
def open_page(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page in a fresh profile. Console errors fail the test; CSP violations are reported there."""
    context: BrowserContext = browser.new_context(**{"viewport": LAPTOP_VIEWPORT, **options})
    context.set_default_timeout(10_000)
    try:
        page = context.new_page()
        console_errors: list[str] = []
        page.on("console", lambda message: console_errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: console_errors.append(str(error)))
        yield page
        assert [text for text in console_errors if "Failed to load resource" not in text] == []
    finally:
        context.close()
