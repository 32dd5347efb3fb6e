"""`sessions`: what it costs that a call names its session. Blocks of both kinds alternate, one call at a time."""

from collections import defaultdict

from bench import cpu
from bench.client import Client
from bench.fixtures import make_teams
from bench.requests import build_tool_call
from bench.scenario import Harness, Result
from bench.stats import lower_median

_BLOCK_CALLS = 100
_WITHOUT, _WITH = "without", "with"
_SESSION_HEADER = b"X-Bus-Session: 0193a7c2-7c1e-7000-8000-00005eed5eed\r\n"
_CALLS: dict[str, dict[str, object]] = {
    "claim": {"sequence": "adr"},
    "post": {"to_actor": "", "body": "The parser is done; please review it."},
    "ack": {"post_id": 0},
    "lease": {"surface": "src/api/routes.py"},
    "whats_new": {},
    "read_posts": {"to_me": True, "limit": 10},
    "whoami": {},
}


def run(harness: Harness) -> Result:
    """CPU time of a call that names its session, beside one that does not."""
    result = Result()
    (team,) = make_teams(harness.environment.database, 1, 2)
    sender, recipient = team.agents
    address = harness.environment.addresses[0]
    groups = harness.environment.process_groups
    micros: dict[tuple[str, str], list[float]] = defaultdict(list)
    rounds = max(4, harness.effort.samples // 20)
    with Client(address, sender.token) as client:
        # Posts to oneself, so that both kinds of ack and inbox have something to find.
        post_id = client.call("post", to_actor=recipient.label, body="x").structured_content["post_id"]
        requests = {}
        for tool, arguments in _CALLS.items():
            overrides = {"to_actor": recipient.label, "post_id": post_id}
            filled = {name: overrides.get(name, value) for name, value in arguments.items()}
            plain = build_tool_call(address, sender.token, tool, **filled)
            head, _, rest = plain.partition(b"\r\n")
            requests[tool] = {_WITHOUT: plain, _WITH: head + b"\r\n" + _SESSION_HEADER + rest}
        for number in range(rounds + 1):
            for tool, by_kind in requests.items():
                # The order changes, so that neither kind always runs on the caches of the other.
                for kind in (_WITHOUT, _WITH) if number % 2 else (_WITH, _WITHOUT):
                    before = cpu.take_snapshot(groups)
                    for _ in range(_BLOCK_CALLS):
                        client.send(by_kind[kind]).result  # noqa: B018 - checks the response
                    used = cpu.elapsed_seconds(before, cpu.take_snapshot(groups))
                    if number:
                        spent = sum(seconds for group, seconds in used.items() if group != cpu.OTHERS)
                        micros[tool, kind].append(spent / _BLOCK_CALLS * 1e6)
    rows = []
    for tool in _CALLS:
        plain_us, session_us = (sum(micros[tool, kind]) / len(micros[tool, kind]) for kind in (_WITHOUT, _WITH))
        ratios = [one / other for one, other in zip(micros[tool, _WITH], micros[tool, _WITHOUT], strict=True)]
        result.figures[f"ratio_{tool}"] = round(session_us / plain_us, 3)
        rows.append(
            [
                tool,
                f"{plain_us:.0f}",
                f"{session_us:.0f}",
                f"{session_us / plain_us:.3f}",
                f"{lower_median(ratios):.3f}",
            ]
        )
    total = {kind: sum(sum(micros[tool, kind]) for tool in _CALLS) for kind in (_WITHOUT, _WITH)}
    result.figures["ratio"] = round(total[_WITH] / total[_WITHOUT], 3)
    rows.append(["all", "", "", f"{result.figures['ratio']:.3f}", ""])
    header = ["call", "without: CPU µs", "with a session", "ratio", "median ratio of the blocks"]
    result.tables.append((header, rows))
    result.checked.append(f"sessions: {rounds * len(_CALLS) * 2 * _BLOCK_CALLS} calls were answered")
    return result
