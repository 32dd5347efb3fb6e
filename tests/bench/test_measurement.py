"""The parts of the benchmark that everything it says rests on: reading answers, percentiles, judging."""

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


@pytest.mark.parametrize("answer", [_PLAIN, _CHUNKED], ids=["length", "chunked"])
def test_an_answer_is_complete_with_its_last_byte_and_not_before(answer: bytes) -> None:
    assert [is_complete_response(answer[:end]) for end in range(len(answer) + 1)] == [False] * len(answer) + [True]
    assert is_successful_response(answer)
    status, body = parse_response(answer)
    assert status == 200
    assert parse_message(body)["result"] == {"isError": False}


def test_refusals_and_errors_are_no_good_answers() -> None:
    assert not is_successful_response(_PLAIN.replace(b"200 OK", b"503 Service Unavailable"))
    assert not is_successful_response(_PLAIN.replace(b"false", b"true"))
    assert not is_successful_response(_PLAIN.replace(b"result", b"error"))


def test_a_request_says_how_long_it_is_and_mirrors_its_tool_in_the_modern_era_only() -> None:
    modern = build_tool_call(Address("127.0.0.1", 1), "t", "claim", "modern", sequence="adr")
    legacy = build_tool_call(Address("127.0.0.1", 1), "t", "claim", "legacy", sequence="adr")
    for sent in (modern, legacy):
        head, _, body = sent.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
    assert b"Mcp-Name: claim" in modern
    assert b"Mcp-" not in legacy
    assert b"_meta" not in legacy


def test_percentiles_are_latencies_that_were_measured() -> None:
    summary = stats.summarize_latencies([number / 1000 for number in range(1, 101)])
    assert (summary.count, summary.p50, summary.p95, summary.p99, summary.max) == (100, 51, 96, 100, 100)
    assert stats.summarize_latencies([]).count == 0


def test_targets_are_judged_against_the_limit_beside_them() -> None:
    around = {"rate": 5000.0, "cost": 300.0}
    spread = {
        "rate": 2000.0,
        "cost_modern": 900.0,
        "rate_modern": 2000.0,
        "rate_legacy": 1500.0,
        "tail_modern": 3.0,
        "tail_legacy": 4.1,
        "limit_modern": around,
        "limit_legacy": around,
    }
    judged = {one.name: one for one in targets.evaluate({"claim_spread": spread})}
    assert judged["claim_spread / claim limit"].reached
    assert not judged["claim_spread p99 / p50 at 32"].reached
    assert not judged["claim_spread: eras apart"].reached
    slower = targets.evaluate({"claim_spread": {**spread, "limit_modern": {**around, "rate": 5001.0}}})
    assert not slower[0].reached
    # Without a limit beside it there is nothing to compare with.
    alone = {name: value for name, value in spread.items() if not name.startswith("limit")}
    assert "claim_spread / claim limit" not in {one.name for one in targets.evaluate({"claim_spread": alone})}
    assert targets.evaluate({}) == []


def test_push_and_fairness_have_their_targets() -> None:
    one = {"p50": 5.0, "p99": 201.0, "max": 300.0, "rounds": 10}
    push = {"idle": one, "without Redis": {**one, "p99": 2400.0}, "streams": 10, "kib_each_stream": 81.0}
    fair = {"alone_p99": 10.0, "beside_p99": 20.0, "alone_p50": 2.0, "beside_p50": 3.0}
    judged = targets.evaluate({"push": push, "fair": fair})
    assert [target.reached for target in judged] == [False, True, False, True]


def test_tables_keep_their_columns() -> None:
    assert format_table(["a", "b"], [["long", "1"], ["x", "22"]]) == "a      b\nlong   1\nx     22"


def test_the_plot_has_a_line_for_every_tool() -> None:
    drawn = plot.render_svg({"a<b": {"1000": 1.0, "1000000": 2.0}, "c": {"1000": 3.0, "1000000": 3.0}}, "title")
    assert drawn.count("<polyline") == 2
    assert "a&lt;b" in drawn
