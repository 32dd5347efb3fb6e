"""Request ids connect responses, log lines, error reports and traces; reports contain no text of users."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

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
_PRIVATE_TEXT = "call ada@example.org, the password is tr0ub4dor"


@dataclass(frozen=True)
class ReportingGateway:
    """A gateway that sends errors and traces to a test server, and whose ledger refuses claims."""

    process: GatewayProcess
    team: Team
    receiver: WebhookServer


@pytest.fixture(scope="module")
def reporting_gateway() -> Iterator[ReportingGateway]:
    with servers.cloned_database() as url, running_webhook_server() as receiver, closing(Database(url)) as db:
        team = make_team(db)
        with db.connection() as conn:
            # PostgreSQL's message for this error quotes the refused row.
            conn.raw.execute("ALTER TABLE event ADD CONSTRAINT planted CHECK (type <> 'claim')")
        env: dict[str, Any] = {
            "SENTRY_DSN": receiver.url.replace("http://", f"http://{_KEY}@") + "/7",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        with running_gateways(url, **env) as (process,):
            yield ReportingGateway(process, team, receiver)


def _lines(process: GatewayProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]


def test_a_request_is_found_in_the_log_by_its_id(reporting_gateway: ReportingGateway) -> None:
    """Every path accepts the id of the request, and failures are logged under it."""
    process = reporting_gateway.process
    returned_ids = {}
    with httpx2.Client(timeout=120) as client:
        mcp_client = McpClient(process.url, reporting_gateway.team.alice.token, http_client=client)

        def call(sent_id: str | None, tool: str = "whoami", **more: str) -> str:
            arguments = {"sequence": "adr", "note": _PRIVATE_TEXT} if tool == "claim" else {}
            content = json.dumps(mcp_client.body("tools/call", {"name": tool, "arguments": arguments})).encode()
            headers = (
                mcp_client.headers("tools/call", tool) | more | ({} if sent_id is None else {"X-Request-Id": sent_id})
            )
            response = client.post(process.url, content=content, headers=headers)
            returned_ids[sent_id or "none"] = response.headers["x-request-id"]
            return response.text

        # The SDK path serves the first call of a token and calls with an unusual Accept header.
        call("first-1")
        call("plain.2")
        call("sdk_3", Accept="text/event-stream;q=1, application/json")
        call(None)
        call("two words")
        call("x" * 65)
        assert "Internal error" in call("fails-4", "claim")
        assert "Internal error" in call("fails-5", "claim", Accept="text/event-stream;q=1, application/json")
        not_found = client.get(f"{process.url}/nowhere", headers={"X-Request-Id": "lost"})
        returned_ids["lost"] = not_found.headers["x-request-id"]
    sent_ids = ("first-1", "plain.2", "sdk_3", "fails-4", "fails-5", "lost")
    assert [returned_ids[name] for name in sent_ids] == list(sent_ids)
    new_ids = [returned_ids[name] for name in ("none", "two words", "x" * 65)]
    assert len(set(new_ids)) == 3
    assert all(3 < len(new_id) <= 64 and new_id.isprintable() and " " not in new_id for new_id in new_ids)

    def logged_ids() -> list[str]:
        # The log also contains the requests of the other tests of this module.
        all_ids = [line["request_id"] for line in _lines(process) if line["message"] == "request"]
        return [request_id for request_id in all_ids if request_id in returned_ids.values()]

    # The gateway writes the line after it sends the response.
    reporting_gateway.receiver.wait_until(lambda: len(logged_ids()) >= len(returned_ids))
    # The next request may be answered before the line of the previous one is written.
    assert sorted(map(str, logged_ids())) == sorted(returned_ids.values())
    lines = _lines(process)
    failures = [line for line in lines if line.get("exception") and line["request_id"] in returned_ids.values()]
    assert sorted(line["request_id"] for line in failures) == ["fails-4", "fails-5"]
    assert all("CheckViolation" in str(line["exception"]) for line in failures)


def test_error_reports_and_traces_contain_no_text_of_users(reporting_gateway: ReportingGateway) -> None:
    receiver, team = reporting_gateway.receiver, reporting_gateway.team
    mcp_client = McpClient(reporting_gateway.process.url, team.alice.token)
    before = len(receiver.bodies("/api/7/envelope/"))
    for tool, arguments in (
        ("post", {"body": _PRIVATE_TEXT, "to_actor": "bob"}),
        ("claim", {"sequence": "adr", "note": _PRIVATE_TEXT}),
    ):
        content = json.dumps(mcp_client.body("tools/call", {"name": tool, "arguments": arguments})).encode()
        mcp_client.send(content, mcp_client.headers("tools/call", tool) | {"X-Request-Id": f"outside-{tool}"})
    mcp_client.close()
    receiver.wait_until(lambda: len(receiver.bodies("/api/7/envelope/")) > before)
    receiver.wait_until(lambda: "outside-claim" in {span["request_id"] for span in _spans(receiver)})
    whole = b"\n".join(head.encode() + body for head, body in receiver.requests)
    for secret in (
        _PRIVATE_TEXT,
        "ada@example.org",
        "tr0ub4dor",
        team.alice.token,
        "lbus_",
        "Failing row",
        "postgresql://",
    ):
        assert secret.encode() not in whole, secret
    # The useful parts are there: the exception, its stack, and the request id in the log.
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


def _event(envelope: bytes) -> dict[str, Any]:
    _, _, event = envelope.split(b"\n")[:3]
    return json.loads(event)


def _spans(receiver: WebhookServer) -> list[dict[str, str]]:
    spans = []
    for body in receiver.bodies("/v1/traces"):
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
            assert service["service.name"] == "llm-bus-gateway"
            for scope in resource.scope_spans:
                for span in scope.spans:
                    attributes = {attribute.key: attribute.value.string_value for attribute in span.attributes}
                    assert attributes.keys() == {"outcome", "request_id"}
                    assert span.end_time_unix_nano > span.start_time_unix_nano
                    spans.append({"name": span.name, **attributes})
    return spans


def test_the_response_of_a_long_poll_carries_its_request_id(gateways: list[GatewayProcess], team: Team) -> None:
    call = build_tool_call(team.alice.token, tool="wait_for", kind="inbox", timeout_seconds=1)
    call = call.replace(b"Host: localhost\r\n", b"Host: localhost\r\nX-Request-ID: early-1\r\n")
    with open_raw_connection(gateways[0]) as connection:
        connection.socket.sendall(call)
        response = b""
        while b"\r\n\r\n" not in response:
            response += connection.socket.recv(4096)
    assert b"\r\nx-request-id: early-1\r\n" in response


@pytest.mark.parametrize(
    ("setting", "package", "message"),
    [
        ("SENTRY_DSN", "sentry_sdk", "sentry-sdk is not installed"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "opentelemetry.sdk", "opentelemetry-sdk"),
    ],
)
def test_a_setting_without_its_package_gives_one_clear_message(setting: str, package: str, message: str) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from bus.config.settings import SettingError\nfrom bus.operations import telemetry\n"
        "try:\n    telemetry.start_telemetry('web', {sys.argv[1]: 'http://key@127.0.0.1:1/1'})\n"
        "except SettingError as error:\n    print(error)\n"
    )
    completed = subprocess.run([sys.executable, "-c", program, setting], capture_output=True, text=True, check=True)
    assert message in completed.stdout
    assert "llm-bus[observe]" in completed.stdout
