"""Sign-in with the address alone: the kit without a token, a browser that is a script, and a call beyond the rights."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2

from bus.tenancy import owners
from tests.clients.bus import Bus
from tests.clients.client_repo import make_client_repo, run_client
from tests.clients.drivers.driver import Driver
from tests.clients.stub_model.scripts import Script, Step
from tests.clients.stub_model.server import StubModel
from tests.clients.terminal import Terminal
from tests.concurrency import wait_until
from tests.mcp_gateway.conftest import Team
from tests.webapp import oauth_requests, scripted_person

# Clients start the program of BROWSER, or xdg-open where there is a display.
_BROWSER_NAMES = ("browser", "xdg-open")
_TIMEOUT_SECONDS = 90.0


@dataclass(frozen=True)
class SignInRecord:
    """What happened to a client that was granted to read only.

    Attributes:
        is_registered: whether it registered itself; otherwise the address of its document identifies it.
        session: calls whats_new, then post.
    """

    is_registered: bool
    session: Script


class Browser:
    """A program that keeps the address that a client opens, and the person in front of it."""

    def __init__(self, folder: Path, bus: Bus, team: Team) -> None:
        self._bus, self._team = bus, team
        self._opened = folder / "opened-address"
        incomplete = folder / "opened-address.new"
        for name in _BROWSER_NAMES:
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nprintf %s "$1" > {incomplete} && mv {incomplete} {self._opened}\n')
            program.chmod(0o755)
        self.variables = {"BROWSER": str(folder / "bin" / _BROWSER_NAMES[0]), "DISPLAY": ":99"}

    def consent(self, terminal: Terminal, scope: str) -> str:
        """Wait for an address, grant a scope, return to the client, and return the client's id."""
        wait_until(self._opened.exists, _TIMEOUT_SECONDS, describe=terminal.describe)
        address = self._opened.read_text()
        parameters = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        client_id, redirect_uri = parameters["client_id"], parameters["redirect_uri"]
        database = self._bus.database
        if urlsplit(client_id).scheme:
            # Its document is on the Internet.
            oauth_requests.store_client(database, client_id, redirect_uri, name="A document")
        with database.connection() as conn:
            owner = owners.get(conn, self._team.alice.actor.partition("/")[0])
        target = str(self._team.alice.ctx.participation_id)
        returned = scripted_person.consent(self._bus.web_url, database, owner, address, target=target, scope=scope)
        httpx2.get(returned, trust_env=False).raise_for_status()
        return client_id


def run_sign_in(
    driver: Driver, program: list[str], bus: Bus, stub: StubModel, folder: Path, log: Callable[[str], object]
) -> SignInRecord:
    """Install the kit without a token, sign the client in to read only, and run a session.

    Args:
        log: receives the outputs.
    """
    team = bus.make_team()
    repo, launcher = make_client_repo(driver, program, folder, stub)
    done = repo.run("sh", "-c", f"curl -fsSL {bus.web_url}/kit/install.py | python3 - --sign-in")
    assert done.returncode == 0, done
    browser = Browser(folder, bus, team)
    command = [str(launcher), *driver.sign_in_arguments]
    with Terminal(command, repo.root, {**repo.env, **repo.extra_env, **browser.variables}) as terminal:
        driver.begin_sign_in(terminal)
        client_id = browser.consent(terminal, "read")
        terminal.wait_for(driver.signed_in_pattern)
        log(f"$ {' '.join(command)}\n{terminal.describe()}\n")
    script = stub.book.add(
        [Step("read", "whats_new"), Step("write", "post", {"body": "Beyond its rights"}), Step("end", text="Done")]
    )
    ended = run_client(repo, launcher, *driver.session_arguments(f"{script.marker} Go."))
    log(f"$ {driver.name} after the sign-in\n{ended.stdout}{ended.stderr}\n")
    return SignInRecord(not urlsplit(client_id).scheme, script)
