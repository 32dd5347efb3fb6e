"""`DRAIN_SECONDS`: after SIGTERM a gateway still answers, while its health checks send a balancer elsewhere."""

import signal
import sys

import httpx2
import psutil
import pytest

from tests.concurrency import wait_until
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.processes import running_gateways
from tests.mcp_gateway.raw_http import build_tool_call, open_raw_connection

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a drain begins with a POSIX signal")
# No test waits for its end.
_DRAIN_SECONDS = "300"


def test_a_gateway_answers_calls_and_fails_its_health_checks_until_another_signal(
    shared_database_url: str, team: Team
) -> None:
    with running_gateways(shared_database_url, DRAIN_SECONDS=_DRAIN_SECONDS) as (gateway,):
        base_url = gateway.url.removesuffix("/mcp")
        assert httpx2.get(f"{base_url}/readyz").status_code == 200
        with open_raw_connection(gateway) as connection:
            (before,) = connection.exchange(build_tool_call(team.alice.token))
            gateway.popen.terminate()
            wait_until(lambda: httpx2.get(f"{base_url}/healthz").status_code == 503)
            assert httpx2.get(f"{base_url}/readyz").json() == {"ok": False, "draining": True}
            # The connection goes on until its next answer, and new ones are accepted.
            (last,) = connection.exchange(build_tool_call(team.alice.token))
        with open_raw_connection(gateway) as connection:
            (new,) = connection.exchange(build_tool_call(team.alice.token))
        assert [answer[0] for answer in (before, last, new)] == [200, 200, 200]
        assert (b"connection", b"close") not in before[1]
        assert (b"connection", b"close") in last[1]
        gateway.stop()


def test_a_group_that_is_replaced_in_turn_does_not_drain(shared_database_url: str) -> None:
    with running_gateways(shared_database_url, WEB_CONCURRENCY="2", DRAIN_SECONDS=_DRAIN_SECONDS) as (group,):
        children = _find_children(group.popen.pid)
        group.popen.send_signal(signal.SIGHUP)
        wait_until(lambda: not children & _find_children(group.popen.pid))
        assert httpx2.get(group.url.removesuffix("/mcp") + "/healthz").status_code == 200
        group.popen.kill()
        group.popen.wait(30)


def _find_children(pid: int) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children()}
