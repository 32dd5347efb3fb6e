"""nginx and Caddy with the files of deploy/: TLS, long waits, streams, restarts in turn, removed headers, logs."""

import asyncio
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import listen

from bus.db import Database
from tests import servers
from tests.concurrency import wait_until
from tests.factories import Agent
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.processes import GatewayProcess, running_gateways
from tests.metrics_scrape import METRICS_TOKEN, scrape

_DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
_NAME = "bus.example.org"
_CLIENTS = 3
# More than an interval of Caddy's checks, and than the time for which nginx leaves out a gateway that refused.
_DRAIN_SECONDS = "3"


@dataclass
class _Web:
    """A web process that records what reaches it."""

    server: http.server.ThreadingHTTPServer
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.server.server_port

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def _running_web() -> Iterator[_Web]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/healthz":
                web.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web = _Web(server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.stop()
        thread.join()


def _configure_nginx(folder: Path, port: int, web: int, gateways: list[int]) -> list[str]:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={_NAME}",
         "-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    text = (_DEPLOY / "nginx.conf").read_text()
    for old, new in {
        "server 127.0.0.1:8787;": f"server 127.0.0.1:{web};",
        "server 127.0.0.1:8788 fail_timeout=1s;": "".join(
            f"server 127.0.0.1:{gateway} fail_timeout=1s;" for gateway in gateways
        ),
        "listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
        "listen [::]:443 ssl http2;": "",
        "listen 80;": f"listen 127.0.0.1:{servers.free_port()};",
        "listen [::]:80;": "",
        f"/etc/ssl/{_NAME}": str(folder),
        "/var/log/nginx/llm-bus": str(folder / "access"),
    }.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "bus.conf").write_text(text)
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid; error_log {folder}/error.log; events {{}} http {{ {paths} include {folder}/bus.conf; }}"
    )
    return ["nginx", "-c", str(folder / "nginx.conf"), "-g", "daemon off; user root;"]


def _configure_caddy(folder: Path, port: int, web: int, gateways: list[int]) -> list[str]:
    text = (_DEPLOY / "Caddyfile").read_text()
    options = (
        f"admin off\nlocal_certs\ndefault_sni {_NAME}\nskip_install_trust\nauto_https disable_redirects\n"
        f"storage file_system {folder}/storage"
    )
    for old, new in {
        f"{_NAME} {{": f"{_NAME}:{port} {{",
        "{\n\t#": f"{{\n{options}\n\t#",
        "log {": f"log {{\noutput file {folder}/access.log",
        "reverse_proxy 127.0.0.1:8787": f"reverse_proxy 127.0.0.1:{web}",
        "reverse_proxy 127.0.0.1:8788": "reverse_proxy " + " ".join(f"127.0.0.1:{gateway}" for gateway in gateways),
    }.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "Caddyfile").write_text(text)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


_CONFIGURE = {"nginx": _configure_nginx, "caddy": _configure_caddy}


@dataclass
class _Proxy:
    port: int
    folder: Path

    def read_logs(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("*.log"))

    def client(self) -> httpx2.Client:
        # As a browser names a port that is not 443; Caddy chooses the log by it.
        return httpx2.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            headers={"Host": f"{_NAME}:{self.port}", "Accept": "application/json"},
            verify=False,
            timeout=60,
        )

    def call(self, client: httpx2.Client, agent: Agent, tool: str, **arguments: object) -> httpx2.Response:
        return client.post(
            "/mcp",
            headers={"Authorization": f"Bearer {agent.token}"},
            json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}},
            extensions={"sni_hostname": _NAME},
        )


@contextmanager
def _running_proxy(name: str, folder: Path, web: int, gateways: list[int]) -> Iterator[_Proxy]:
    port = servers.free_port()
    proxy = _Proxy(port, folder)
    command = _CONFIGURE[name](folder, port, web, gateways)
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/bin"}
        )

    def is_ready() -> bool:
        assert process.poll() is None, (folder / "output.log").read_text()
        # Caddy listens before it has a certificate.
        try:
            with proxy.client() as client:
                return client.get("/", extensions={"sni_hostname": _NAME}).status_code == 200
        except httpx2.TransportError:
            return False

    try:
        wait_until(is_ready)
        yield proxy
    finally:
        # A stream that a client has left would hold up the end of Caddy.
        process.terminate()
        process.wait(30)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["nginx", "caddy"])
def test_a_proxy_with_several_gateways(name: str, database_url: str, tmp_path: Path) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed.")
    with closing(Database(database_url, pool_size=1)) as db:
        team = make_team(db)
    with (
        running_gateways(
            database_url,
            2,
            ALLOWED_HOSTS=f"{_NAME},{_NAME}:*",
            DRAIN_SECONDS=_DRAIN_SECONDS,
            METRICS_TOKEN=METRICS_TOKEN,
        ) as gateways,
        _running_web() as web,
        _running_proxy(
            name, tmp_path, web.port, [int(gateway.url.rpartition(":")[2].partition("/")[0]) for gateway in gateways]
        ) as proxy,
    ):
        _check_headers_and_log(proxy, web)
        _check_long_wait(proxy, team)
        asyncio.run(_check_stream(proxy, team))
        _check_restart_in_turn(proxy, team, gateways)
        _check_logs_of_failures(proxy, web)


def _check_headers_and_log(proxy: _Proxy, web: _Web) -> None:
    # A request that names no port reaches the site at any port.
    for host in (f"{_NAME}:{proxy.port}", _NAME):
        with proxy.client() as client:
            answer = client.get(
                "/join/inv_SECRETCODE",
                headers={"Host": host, "X-LLM-Bus-Proxy-Secret": "forged", "X-Forwarded-For": "192.0.2.1"},
                extensions={"sni_hostname": _NAME},
            )
            assert answer.status_code == 200
    headers = web.headers[-1]
    assert not headers.get("x-llm-bus-proxy-secret")
    assert headers["x-forwarded-for"].split(", ")[-1] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["host"].partition(":")[0] == _NAME
    wait_until(lambda: proxy.read_logs().count("/join/") == 2)
    assert "SECRETCODE" not in proxy.read_logs()


def _check_long_wait(proxy: _Proxy, team: Team) -> None:
    with proxy.client() as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(proxy.call, client, team.bob, "wait_for", timeout_seconds=25)
        with proxy.client() as other:
            assert (
                proxy.call(other, team.alice, "post", subject="wake up", body="Text.", to_lane="web").status_code == 200
            )
        answer = waiting.result()
    assert answer.status_code == 200
    assert "wake up" in answer.text


async def _check_stream(proxy: _Proxy, team: Team) -> None:
    """An event reaches a subscriber while its stream goes on."""
    headers = {"Authorization": f"Bearer {team.bob.token}", "Host": f"{_NAME}:{proxy.port}"}
    async with (
        httpx2.AsyncClient(headers=headers, verify=False, timeout=60) as http,
        Client(streamable_http_client(f"https://127.0.0.1:{proxy.port}/mcp", http_client=http)) as client,
        listen(client.session, resource_subscriptions=["bus://inbox"]) as subscription,
        asyncio.timeout(60),
    ):
        with proxy.client() as other:
            for subject in ("first", "second"):
                answer = await asyncio.to_thread(
                    proxy.call, other, team.alice, "post", subject=subject, body="Text.", to_lane="web"
                )
                assert answer.status_code == 200
                assert getattr(await anext(subscription), "uri", None) == "bus://inbox"


def _check_restart_in_turn(proxy: _Proxy, team: Team, gateways: list[GatewayProcess]) -> None:
    """Each gateway is replaced while agents claim; the proxy uses the other, and no call fails."""
    numbers: list[int] = []
    has_ended = threading.Event()

    def claim() -> None:
        with proxy.client() as client:
            while not has_ended.is_set():
                answer = proxy.call(client, team.alice, "claim", sequence="adr", note="docs/adr/x.md")
                assert answer.status_code == 200, answer.text
                numbers.append(json.loads(answer.text)["result"]["structuredContent"]["number"])

    with ThreadPoolExecutor(_CLIENTS) as pool:
        clients = [pool.submit(claim) for _ in range(_CLIENTS)]

        def has_failed() -> bool:
            return any(client.done() for client in clients)

        def have_all_answered() -> bool:
            return has_failed() or all(map(_count_calls, gateways))

        try:
            wait_until(have_all_answered)
            for gateway in gateways:
                gateway.restart()
            wait_until(have_all_answered)
        finally:
            has_ended.set()
        for client in clients:
            client.result()
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


def _count_calls(gateway: GatewayProcess) -> float:
    calls = scrape(gateway.url.removesuffix("/mcp")).group_by("llm_bus_tool_calls_total", "tool")
    return calls.get(("claim",), 0)


def _check_logs_of_failures(proxy: _Proxy, web: _Web) -> None:
    web.stop()
    with proxy.client() as client:
        answer = client.get("/join/inv_SECRETCODE", extensions={"sni_hostname": _NAME})
    assert answer.status_code in (502, 503)
    wait_until(lambda: proxy.read_logs().count("/join/") >= 3)
    assert "SECRETCODE" not in proxy.read_logs()
