"""Every request is found by its id, in the log and where its failure is reported; and nothing that was said leaves."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bus.db import Database
from tests import servers
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess, running_gateways
from tests.mcp_gateway.raw_http import build_tool_call, open_raw_connection
from tests.webhook_server import WebhookServer, running_webhook_server

_KEY = "c0ffee5ec2e7c0ffee5ec2e7c0ffee5e"
_SAID = "call ada@example.org, the password is tr0ub4dor"


@dataclass(frozen=True)
class Reported:
    """A gateway that reports to a receiver, and whose ledger takes no claims."""

    process: GatewayProcess
    team: Team
    receiver: WebhookServer


@pytest.fixture(scope="module")
def reported() -> Iterator[Reported]:
    with servers.cloned_database() as url, running_webhook_server() as receiver, closing(Database(url)) as db:
        team = make_team(db)
        with db.connection() as conn:
            # The text of this error quotes the row that was refused.
            conn.raw.execute("ALTER TABLE event ADD CONSTRAINT planted CHECK (type <> 'claim')")
        env = {
            "SENTRY_DSN": receiver.url.replace("http://", f"http://{_KEY}@") + "/7",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        with running_gateways(url, **env) as (process,):
            yield Reported(process, team, receiver)


def _lines(process: GatewayProcess) -> list[dict[str, object]]:
    return [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]


def test_a_request_is_found_in_the_log_by_its_id(reported: Reported) -> None:
    """By the id that it brought, on every path; and what goes wrong while it runs is logged under it."""
    process = reported.process
    seen = {}
    with httpx2.Client(timeout=30) as client:
        wire = McpClient(process.url, reported.team.alice.token, http_client=client)

        def call(sent: str | None, tool: str = "whoami", **more: str) -> str:
            arguments = {"sequence": "adr", "note": _SAID} if tool == "claim" else {}
            content = json.dumps(wire.body("tools/call", {"name": tool, "arguments": arguments})).encode()
            headers = wire.headers("tools/call", tool) | more | ({} if sent is None else {"X-Request-Id": sent})
            answer = client.post(process.url, content=content, headers=headers)
            seen[sent or "none"] = answer.headers["x-request-id"]
            return answer.text

        # A stranger to the process takes the longer way, and so does who accepts answers in unusual words.
        call("first-1")
        call("plain.2")
        call("sdk_3", Accept="text/event-stream;q=1, application/json")
        call(None)
        call("two words")
        call("x" * 65)
        assert "Internal error" in call("fails-4", "claim")
        assert "Internal error" in call("fails-5", "claim", Accept="text/event-stream;q=1, application/json")
        nowhere = client.get(f"{process.url}/nowhere", headers={"X-Request-Id": "lost"})
        seen["lost"] = nowhere.headers["x-request-id"]
    brought = ("first-1", "plain.2", "sdk_3", "fails-4", "fails-5", "lost")
    assert [seen[one] for one in brought] == list(brought)
    made = [seen[one] for one in ("none", "two words", "x" * 65)]
    assert len(set(made)) == 3
    assert all(3 < len(one) <= 64 and one.isprintable() and " " not in one for one in made)

    def asked() -> list[object]:
        # The gateway serves the other tests of this file too.
        found = [line["request_id"] for line in _lines(process) if line["message"] == "request"]
        return [one for one in found if one in seen.values()]

    # The line is written when the answer is on its way.
    reported.receiver.wait_until(lambda: len(asked()) >= len(seen))
    assert asked() == list(seen.values())
    lines = _lines(process)
    failures = [line for line in lines if line.get("exception") and line["request_id"] in seen.values()]
    assert [line["request_id"] for line in failures] == ["fails-4", "fails-5"]
    assert all("CheckViolation" in str(line["exception"]) for line in failures)


def test_what_is_reported_outside_holds_nothing_that_was_said(reported: Reported) -> None:
    receiver, team = reported.receiver, reported.team
    wire = McpClient(reported.process.url, team.alice.token)
    before = len(receiver.bodies("/api/7/envelope/"))
    for one in ("post", "claim"):
        arguments = {"body": _SAID, "to_actor": "bob"} if one == "post" else {"sequence": "adr", "note": _SAID}
        content = json.dumps(wire.body("tools/call", {"name": one, "arguments": arguments})).encode()
        wire.send(content, wire.headers("tools/call", one) | {"X-Request-Id": f"outside-{one}"})
    wire.close()
    receiver.wait_until(lambda: len(receiver.bodies("/api/7/envelope/")) > before)
    receiver.wait_until(lambda: "outside-claim" in {span["request_id"] for span in _spans(receiver)})
    whole = b"\n".join(head.encode() + body for head, body in receiver.requests)
    for secret in (_SAID, "ada@example.org", "tr0ub4dor", team.alice.token, "lbus_", "Failing row", "postgresql://"):
        assert secret.encode() not in whole, secret
    # What is of use is there: what kind of failure, where in our code, and under which id it is in the log.
    event = _event(receiver.bodies("/api/7/envelope/")[-1])
    assert event["tags"] == {"kind": "gateway", "request_id": "outside-claim"}
    assert event["logentry"] == {"message": "%s failed"}
    (failure,) = event["exception"]["values"][-1:]
    assert failure["type"] == "CheckViolation"
    assert {"claim", "raise_as_bus_error"} <= {frame["function"] for frame in failure["stacktrace"]["frames"]}
    assert event.keys() & {"user", "request", "extra", "breadcrumbs", "server_name", "modules"} == set()
    spans = {span["request_id"]: (span["name"], span["outcome"]) for span in _spans(receiver)}
    assert spans["outside-claim"] == ("claim", "error")
    assert spans["outside-post"] == ("post", "ok")


def _event(envelope: bytes) -> dict[str, object]:
    _, _, event = envelope.split(b"\n")[:3]
    return json.loads(event)


def _spans(receiver: WebhookServer) -> list[dict[str, str]]:
    found = []
    for body in receiver.bodies("/v1/traces"):
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {one.key: one.value.string_value for one in resource.resource.attributes}
            assert service["service.name"] == "llm-bus-gateway"
            for scope in resource.scope_spans:
                for span in scope.spans:
                    attributes = {one.key: one.value.string_value for one in span.attributes}
                    assert attributes.keys() == {"outcome", "request_id"}
                    assert span.end_time_unix_nano > span.start_time_unix_nano
                    found.append({"name": span.name, **attributes})
    return found


def test_a_call_that_waits_says_which_request_it_answers(gateways: list[GatewayProcess], team: Team) -> None:
    call = build_tool_call(team.alice.token, tool="wait_for", kind="inbox", timeout_seconds=1)
    call = call.replace(b"Host: localhost\r\n", b"Host: localhost\r\nX-Request-ID: early-1\r\n")
    with open_raw_connection(gateways[0]) as line:
        line.socket.sendall(call)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += line.socket.recv(4096)
    assert b"\r\nx-request-id: early-1\r\n" in answer


@pytest.mark.parametrize(
    ("setting", "package", "said"),
    [
        ("SENTRY_DSN", "sentry_sdk", "sentry-sdk is not installed"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "opentelemetry.sdk", "opentelemetry-sdk"),
    ],
)
def test_a_setting_without_its_package_is_one_clear_line(setting: str, package: str, said: str) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from bus import telemetry\nfrom bus.settings import SettingError\n"
        "try:\n    telemetry.start('web', {sys.argv[1]: 'http://key@127.0.0.1:1/1'})\n"
        "except SettingError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, setting], capture_output=True, text=True, check=True)
    assert said in done.stdout
    assert "llm-bus[observe]" in done.stdout
