"""The basis of all results of the benchmark: parsing of responses, percentiles, targets."""

import pytest

from bench import plot, stats, targets
from bench.report import format_table
from bench.requests import (
    Address,
    build_tool_call,
    is_complete_response,
    is_successful_response,
    parse_message,
    parse_response,
)

_JSON = b'{"jsonrpc":"2.0","id":1,"result":{"isError":false}}'
_PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(_JSON), _JSON)
_EVENT = b"event: message\r\ndata: " + _JSON + b"\r\n\r\n"
_CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(_EVENT), _EVENT)


@pytest.mark.parametrize("response", [_PLAIN, _CHUNKED], ids=["length", "chunked"])
def test_a_response_is_complete_with_its_last_byte_and_not_before(response: bytes) -> None:
    assert [is_complete_response(response[:end]) for end in range(len(response) + 1)] == [False] * len(response) + [
        True
    ]
    assert is_successful_response(response)
    status, body = parse_response(response)
    assert status == 200
    assert parse_message(body)["result"] == {"isError": False}


def test_refusals_and_errors_are_not_successful_responses() -> None:
    assert not is_successful_response(_PLAIN.replace(b"200 OK", b"503 Service Unavailable"))
    assert not is_successful_response(_PLAIN.replace(b"false", b"true"))
    assert not is_successful_response(_PLAIN.replace(b"result", b"error"))


def test_a_request_has_its_length_and_only_the_modern_era_repeats_the_tool_in_a_header() -> None:
    modern = build_tool_call(Address("127.0.0.1", 1), "t", "claim", "modern", sequence="adr")
    legacy = build_tool_call(Address("127.0.0.1", 1), "t", "claim", "legacy", sequence="adr")
    for request in (modern, legacy):
        head, _, body = request.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
    assert b"Mcp-Name: claim" in modern
    assert b"Mcp-" not in legacy
    assert b"_meta" not in legacy


def test_percentiles_are_measured_latencies() -> None:
    summary = stats.summarize_latencies([number / 1000 for number in range(1, 101)])
    assert (summary.count, summary.p50, summary.p95, summary.p99, summary.max) == (100, 51, 96, 100, 100)
    assert stats.summarize_latencies([]).count == 0


def test_targets_are_evaluated_against_the_limit_of_the_same_scenario() -> None:
    limit = {"rate": 5000.0, "cost": 300.0}
    spread = {
        "rate": 3000.0,
        "cost_modern": 900.0,
        "rate_modern": 3000.0,
        "rate_legacy": 2500.0,
        "tail_modern": 2.0,
        "tail_legacy": 2.6,
        "limit_modern": limit,
        "limit_legacy": limit,
    }
    by_name = {target.name: target for target in targets.evaluate({"claim_spread": spread})}
    assert by_name["claim_spread / claim limit"].reached
    assert not by_name["claim_spread p99 / p50 at 32"].reached
    assert not by_name["claim_spread: eras apart"].reached
    slower = targets.evaluate({"claim_spread": {**spread, "limit_modern": {**limit, "rate": 5001.0}}})
    assert not slower[0].reached
    # Without a limit of the same scenario there is no target.
    without_limit = {name: value for name, value in spread.items() if not name.startswith("limit")}
    assert "claim_spread / claim limit" not in {
        target.name for target in targets.evaluate({"claim_spread": without_limit})
    }
    assert targets.evaluate({}) == []


def test_push_and_fairness_have_their_targets() -> None:
    latency = {"p50": 5.0, "p99": 201.0, "max": 300.0, "rounds": 10}
    push = {"idle": latency, "without Redis": {**latency, "p99": 2400.0}, "streams": 10, "kib_each_stream": 81.0}
    fair = {"alone_p99": 10.0, "beside_p99": 20.0, "alone_p50": 2.0, "beside_p50": 3.0}
    fair |= {"project_p50": 6.0, "project_p99": 51.0}
    evaluated = targets.evaluate({"push": push, "fair": fair})
    assert [target.reached for target in evaluated] == [False, True, False, True, False]


def test_table_columns_are_aligned() -> None:
    assert format_table(["a", "b"], [["long", "1"], ["x", "22"]]) == "a      b\nlong   1\nx     22"


def test_the_plot_has_a_line_for_every_tool() -> None:
    svg = plot.render_svg({"a<b": {"1000": 1.0, "1000000": 2.0}, "c": {"1000": 3.0, "1000000": 3.0}}, "title")
    assert svg.count("<polyline") == 2
    assert "a&lt;b" in svg
