"""What the connections of a run play: claims, the mix of a busy project, reads."""

import random
import re
from collections import defaultdict, deque
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from bench.checks import ClaimedNumbers
from bench.fixtures import Agent
from bench.load import RequestSource
from bench.requests import MODERN, Address, build_tool_call

# Inside the text of an answer quotes are escaped, inside the structured content they are not.
_CLAIMED_NUMBER_PATTERN = re.compile(rb'"number\\?":(\d+)')
_POST_ID_PATTERN = re.compile(rb'"post_id\\?":(\d+)')
_RECIPIENTS_PATTERN = re.compile(rb'"recipients\\?":(\d+)')


def extract_int(pattern: re.Pattern[bytes], response: bytes) -> int:
    """The first integer that the pattern finds in an answer; an answer without one is a wrong answer."""
    found = pattern.search(response)
    if found is None:
        raise ValueError(f"no {pattern.pattern!r} in {response!r}")
    return int(found.group(1))


@dataclass
class ClaimWorkload:
    """Every connection claims from one sequence again and again.

    Attributes:
        agents: who claims on connection i: `agents[i % len(agents)]`.
        sequences: from which sequence: `sequences[i % len(sequences)]`.
    """

    agents: list[Agent]
    sequences: list[str]
    era: str = MODERN
    claimed_numbers: ClaimedNumbers = field(default_factory=lambda: defaultdict(list))

    def make_request_sources(self, targets: list[Address], count: int) -> list[RequestSource]:
        made: list[RequestSource] = []
        for index in range(count):
            agent = self.agents[index % len(self.agents)]
            sequence = self.sequences[index % len(self.sequences)]
            content = build_tool_call(targets[index % len(targets)], agent.token, "claim", self.era, sequence=sequence)
            made.append(_ClaimRequestSource(content, self.claimed_numbers[agent.project_id, sequence]))
        return made

    def collect_results(self) -> dict[str, Any]:
        return {"numbers": dict(self.claimed_numbers)}


class _ClaimRequestSource:
    def __init__(self, content: bytes, numbers: list[int]) -> None:
        self._request = ("claim", content)
        self._claimed_numbers = numbers

    def next_request(self) -> tuple[str, bytes]:
        return self._request

    def record_response(self, kind: str, response: bytes) -> None:
        self._claimed_numbers.append(extract_int(_CLAIMED_NUMBER_PATTERN, response))


READ_CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "whats_new": ("whats_new", {}),
    "read_posts": ("read_posts", {"to_me": True, "unacked_only": True}),
    "who_holds": ("who_holds", {}),
    "list_tasks": ("list_tasks", {}),
}
"""What an agent looks at after each step, by kind of call: tool and arguments."""

ALL_READ_CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    **READ_CALLS,
    "whoami": ("whoami", {}),
    "who_is_active": ("who_is_active", {}),
    "latest_claims": ("latest_claims", {}),
    "query_events": ("query_events", {"type": "claim", "limit": 20}),
}


@dataclass
class ReadWorkload:
    """Every connection reads, one kind after the other."""

    agents: list[Agent]
    era: str = MODERN

    def make_request_sources(self, targets: list[Address], count: int) -> list[RequestSource]:
        made: list[RequestSource] = []
        for index in range(count):
            agent = self.agents[index % len(self.agents)]
            target = targets[index % len(targets)]
            calls = [
                (kind, build_tool_call(target, agent.token, tool, self.era, **what))
                for kind, (tool, what) in ALL_READ_CALLS.items()
            ]
            # Connections begin at different places, so that kinds are mixed at every moment.
            first = index % len(calls)
            made.append(_RotatingRequestSource(calls[first:] + calls[:first]))
        return made

    def collect_results(self) -> dict[str, Any]:
        return {}


class _RotatingRequestSource:
    def __init__(self, calls: list[tuple[str, bytes]]) -> None:
        self._requests = cycle(calls)

    def next_request(self) -> tuple[str, bytes]:
        return next(self._requests)

    def record_response(self, kind: str, response: bytes) -> None:
        return


_POST_BODY = (
    "The parser now keeps comments; please look at the error recovery in the second commit before you go on with the"
    " formatter, since both touch the token stream. Tests for nested blocks are still missing and I would like your"
    " opinion on whether the grammar should allow trailing separators. Everything else is ready to merge."
)


@dataclass
class MixedWorkload:
    """What agents do all day: post 40 %, ack 37 %, lease and release 12 %, claim 7 %, register and others 4 %.

    After each write come two reads: whats_new, read_posts to_me unacked, who_holds and list_tasks in turn. An agent
    acks what was posted to it; while nothing waits for it, it posts instead. Every fourth post goes to a lane.
    """

    agents: list[Agent]
    seed: int = 1
    era: str = MODERN
    unacked_posts: dict[int, deque[int]] = field(default_factory=lambda: defaultdict(deque))
    claimed_numbers: ClaimedNumbers = field(default_factory=lambda: defaultdict(list))
    recipients_by_post: dict[tuple[int, int], int] = field(default_factory=dict)
    acked_posts: set[tuple[int, int, int]] = field(default_factory=set)

    def make_request_sources(self, targets: list[Address], count: int) -> list[RequestSource]:
        by_project: dict[int, list[Agent]] = defaultdict(list)
        for agent in self.agents:
            by_project[agent.project_id].append(agent)
        made: list[RequestSource] = []
        for index in range(count):
            agent = self.agents[index % len(self.agents)]
            mates = [one for one in by_project[agent.project_id] if one is not agent]
            made.append(_AgentRequestSource(self, agent, mates, targets[index % len(targets)], index))
        return made

    def collect_results(self) -> dict[str, Any]:
        return {"numbers": dict(self.claimed_numbers), "posted": self.recipients_by_post, "acked": self.acked_posts}


class _AgentRequestSource:
    """One agent at work on one connection."""

    def __init__(
        self, workload: MixedWorkload, agent: Agent, teammates: list[Agent], target: Address, index: int
    ) -> None:
        self._workload = workload
        self._agent = agent
        self._teammates = teammates
        self._target = target
        self._random = random.Random(f"{workload.seed}:{index}")
        self._read_requests = _RotatingRequestSource(
            [(kind, self._build_call(tool, what)) for kind, (tool, what) in READ_CALLS.items()]
        )
        self._reads_left = 0
        self._recipients: list[Agent] = []
        self._acked_post_id = 0
        self._leased_surface: str | None = None
        self._step = 0

    def _build_call(self, tool: str, arguments: dict[str, Any]) -> bytes:
        return build_tool_call(self._target, self._agent.token, tool, self._workload.era, **arguments)

    def next_request(self) -> tuple[str, bytes]:
        if self._reads_left:
            self._reads_left -= 1
            return self._read_requests.next_request()
        self._reads_left = 2
        self._step += 1
        chance = self._random.random() * 100
        if chance < 40:
            return self._next_post()
        if chance < 77:
            return (
                self._next_ack()
                if self._workload.unacked_posts[self._agent.ctx.participation_id]
                else self._next_post()
            )
        if chance < 89:
            return self._next_lease_or_release()
        if chance < 96:
            return "claim", self._build_call("claim", {"sequence": f"seq-{self._random.randrange(5)}"})
        return self._next_other()

    def _next_post(self) -> tuple[str, bytes]:
        what: dict[str, Any] = {"body": _POST_BODY, "subject": "Parser and formatter", "ref": f"PR {self._step}"}
        if self._random.random() < 0.25:
            lane = self._random.choice(self._teammates).lane
            self._recipients = [mate for mate in self._teammates if mate.lane == lane]
            what["to_lane"] = lane
        else:
            self._recipients = [self._random.choice(self._teammates)]
            what["to_actor"] = self._recipients[0].label
        return "post", self._build_call("post", what)

    def _next_ack(self) -> tuple[str, bytes]:
        self._acked_post_id = self._workload.unacked_posts[self._agent.ctx.participation_id].popleft()
        return "ack", self._build_call("ack", {"post_id": self._acked_post_id})

    def _next_lease_or_release(self) -> tuple[str, bytes]:
        if self._leased_surface is None:
            self._leased_surface = f"src/module_{self._random.randrange(40)}/file_{self._random.randrange(10)}.py"
            return "lease", self._build_call("lease", {"surface": self._leased_surface})
        surface, self._leased_surface = self._leased_surface, None
        return "release", self._build_call("release", {"surface": surface})

    def _next_other(self) -> tuple[str, bytes]:
        if self._step % 2:
            status = f"at step {self._step}"
            return "register", self._build_call("register", {"lane": self._agent.lane, "status": status})
        return "task_create", self._build_call("task_create", {"title": f"Look into step {self._step}"})

    def record_response(self, kind: str, response: bytes) -> None:
        script, project_id = self._workload, self._agent.project_id
        if kind == "post":
            post_id = extract_int(_POST_ID_PATTERN, response)
            script.recipients_by_post[project_id, post_id] = extract_int(_RECIPIENTS_PATTERN, response)
            for mate in self._recipients:
                script.unacked_posts[mate.ctx.participation_id].append(post_id)
        elif kind == "ack":
            script.acked_posts.add((project_id, self._agent.ctx.participation_id, self._acked_post_id))
        elif kind == "claim":
            # Which sequence it was is in the answer's text, before the number.
            found = _CLAIM_PATTERN.search(response)
            assert found is not None, response
            script.claimed_numbers[project_id, found.group(1).decode()].append(int(found.group(2)))


_CLAIM_PATTERN = re.compile(rb'"sequence\\?":\\?"([a-z0-9_-]+)\\?","number\\?":(\d+)')
