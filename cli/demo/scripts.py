"""Scripts of simulated agents: short sequences of steps that run interleaved in a project."""

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

from cli.demo import texts
from cli.demo.model import ExpectedCounts, LabelRef, ResultRef, SimulatedAgent, Step

# Yields steps; `send` returns the index of the step in the plan.
Script: TypeAlias = Generator[Step, int, None]


@dataclass(frozen=True, slots=True)
class _ReplyCandidate:
    """An acknowledged post with a ref; `text_values` filled its text templates."""

    post: int
    sender: int
    reader: int
    subject: str
    text_values: dict[str, str]


class ProjectSimulation:
    """A project of the plan: its scripts and the state that they share.

    The state changes while a script waits for its turn, so a script makes its random choices when it runs.
    """

    def __init__(self, number: int, team: tuple[int, ...], agents: Sequence[SimulatedAgent], random: Random) -> None:
        self.team = team
        self.events: Counter[str] = Counter()
        self._project_index = number
        self._agents = agents
        self._random = random
        self._acked = self._anchored = self._collisions = 0
        # Each script takes an area of its own, so that leases collide only on purpose.
        self._free_areas = [path for _, path in texts.TOPICS]
        self._status_by_agent: dict[int, str] = {}
        self._pull_request = random.randint(40, 400)
        self._last_numbers = {name: random.randint(3, 60) for name, _, _ in texts.SEQUENCES}
        self._reply_candidates: list[_ReplyCandidate] = []

    def expected_counts(self) -> ExpectedCounts:
        """Return the expected content of the ledger after every script has run."""
        return ExpectedCounts(dict(self.events), self._acked, self._anchored, self._collisions)

    def register_team(self) -> Script:
        """Every agent reads the ledger and registers; the first one seeds the sequences."""
        for agent in self.team:
            yield self._make_step(agent, "whats_new")
            yield self._register_step(agent)
        for name, prefix, pad in texts.SEQUENCES:
            yield self._make_step(
                self.team[0],
                "seed_sequence",
                "seed",
                sequence=name,
                current=self._last_numbers[name],
                prefix=prefix,
                pad=pad,
            )

    def handoff(self, ack_count: int, is_anchored: bool) -> Script:
        """An agent posts, with a ref if `is_anchored`, and up to two others acknowledge the post."""
        if is_anchored and self._reply_candidates and self._random.random() < 0.25:
            original = self._random.choice(self._reply_candidates)
            sender, reader = original.reader, original.sender
            second_reader = self._random.choice([agent for agent in self.team if agent not in (sender, reader)])
            text_values, body = original.text_values, self._random.choice(texts.REPLY_BODIES)
            tag, subject = "reply", f"Re: {original.subject.removeprefix('Re: ')}"
            address: dict[str, Any] = {"to_actor": LabelRef(reader), "reply_to": ResultRef(original.post, "post_id")}
        else:
            sender, reader, second_reader = self._random.sample(self.team, 3)
            kind, ref = self._pick_artifact()
            tag, subject, body = self._random.choice(
                texts.ANCHORED_POSTS[kind] if is_anchored else texts.UNANCHORED_POSTS
            )
            text_values, address = {**self._pick_text_values(), "ref": ref}, self._pick_recipient(sender, reader)
        subject = subject.format_map(text_values)
        if is_anchored:
            address["ref"] = text_values["ref"]
            self._anchored += 1
        post = yield self._make_step(
            sender, "post", "post", subject=subject, body=body.format_map(text_values), tag=tag, **address
        )
        if ack_count:
            yield self._make_step(reader, "read_posts", to_me=True, unacked_only=True)
            self._acked += 1
        for agent in (reader, second_reader)[:ack_count]:
            yield self._make_step(agent, "ack", "ack", post_id=ResultRef(post, "post_id"))
        if ack_count and is_anchored:
            self._reply_candidates.append(_ReplyCandidate(post, sender, reader, subject, text_values))

    def claim(self) -> Script:
        """An agent claims the next number of a sequence."""
        name, _, _ = self._random.choice(texts.SEQUENCES)
        note = self._random.choice(texts.CLAIM_NOTES).format_map(self._pick_text_values())
        yield self._make_step(self._pick_agent(), "claim", "claim", sequence=name, note=note)
        self._last_numbers[name] += 1

    def colliding_leases(self) -> Script:
        """Two agents lease overlapping surfaces; the bus reports the contention and both release."""
        area = self._take_free_area()
        first, second = self._random.sample(self.team, 2)
        file = f"{area}/{self._random.choice(texts.FILE_NAMES)}"
        first_surface, second_surface = self._random.choice(
            [(area, file), (file, area), (file, file), (f"{area}/**", file)]
        )
        yield self._lease_step(first, first_surface)
        yield self._lease_step(second, second_surface)
        self._collisions += 1
        yield self._make_step(second, "release", "release", surface=second_surface)
        yield self._make_step(first, "release", "release", surface=first_surface)
        self._free_areas.append(area)

    def single_lease(self) -> Script:
        """An agent checks a surface, leases it and releases it."""
        area = self._take_free_area()
        agent = self._pick_agent()
        surface = f"{area}/{self._random.choice(texts.FILE_NAMES)}"
        yield self._make_step(agent, "who_holds", surface=surface)
        yield self._lease_step(agent, surface)
        yield self._make_step(agent, "release", "release", surface=surface)
        self._free_areas.append(area)

    def blocked_task(self) -> Script:
        """A task in progress is blocked on another and resolves when that one ships."""
        first, second = self._random.sample(self.team, 2)
        blocker = yield self._create_task_step(second, owner=first)
        blocked = yield self._create_task_step(first, owner=second)
        yield self._task_step(second, "task_start", blocked)
        reason = self._random.choice(texts.BLOCK_REASONS)
        yield self._task_step(second, "task_block", blocked, reason=reason, on=ResultRef(blocker, "task_id"))
        yield self._task_step(first, "task_start", blocker)
        yield self._ship_step(first, blocker, "task_resolve")
        yield self._ship_step(second, blocked)

    def dependent_tasks(self) -> Script:
        """A task is created with a blocker and started when that one has shipped."""
        first, second = self._random.sample(self.team, 2)
        blocker = yield self._create_task_step(second, owner=first)
        blocked = yield self._create_task_step(first, owner=second, blocked_on=[ResultRef(blocker, "task_id")])
        yield self._task_step(first, "task_start", blocker)
        yield self._ship_step(first, blocker)
        yield self._make_step(second, "list_tasks", ready=True, owner=LabelRef(second))
        yield self._task_step(second, "task_start", blocked)
        yield self._ship_step(second, blocked)

    def status_update(self) -> Script:
        """An agent changes its status."""
        yield self._register_step(self._pick_agent())

    def _make_step(self, agent: int, tool: str, *events: str, **arguments: Any) -> Step:
        return Step(self._project_index, agent, tool, arguments, events)

    def _register_step(self, agent: int) -> Step:
        # An unchanged status would add no event.
        status = self._random.choice([text for text in texts.STATUSES if text != self._status_by_agent.get(agent)])
        self._status_by_agent[agent] = status
        return self._make_step(agent, "register", "register", lane=self._agents[agent].lane, status=status)

    def _pick_recipient(self, sender: int, reader: int) -> dict[str, Any]:
        lane = self._agents[reader].lane
        if self._agents[sender].lane != lane and self._random.random() < 0.4:
            return {"to_lane": lane}
        return {"to_actor": LabelRef(reader)}

    def _lease_step(self, agent: int, surface: str) -> Step:
        note = self._random.choice(texts.LEASE_NOTES)
        return self._make_step(agent, "lease", "lease", surface=surface, ttl_seconds=3600, note=note)

    def _create_task_step(self, agent: int, owner: int, **arguments: Any) -> Step:
        title = self._random.choice(texts.TASK_TITLES).format_map(self._pick_text_values())
        lane = self._agents[owner].lane
        priority = self._random.randint(1, 3)
        return self._make_step(
            agent,
            "task_create",
            "task_create",
            title=title,
            lane=lane,
            owner=LabelRef(owner),
            priority=priority,
            **arguments,
        )

    def _task_step(self, agent: int, tool: str, task: int, **arguments: Any) -> Step:
        return self._make_step(agent, tool, tool, task_id=ResultRef(task, "task_id"), **arguments)

    def _ship_step(self, agent: int, task: int, *resolved_events: str) -> Step:
        ref = self._next_pull_request()
        return self._make_step(
            agent, "task_ship", "task_ship", *resolved_events, task_id=ResultRef(task, "task_id"), ref=ref
        )

    def _pick_agent(self) -> int:
        return self._random.choice(self.team)

    def _pick_text_values(self) -> dict[str, str]:
        thing, path = self._random.choice(texts.TOPICS)
        file = f"{path}/{self._random.choice(texts.FILE_NAMES)}"
        return {"thing": thing, "Thing": thing[0].upper() + thing[1:], "path": file}

    def _pick_artifact(self) -> tuple[str, str]:
        """Return the kind and the name of the artifact that a post refers to."""
        value = self._random.random()
        if value < 0.6:
            return texts.CODE_ARTIFACT, self._next_pull_request()
        if value < 0.8:
            return texts.CODE_ARTIFACT, f"{self._random.getrandbits(28):07x}"
        name, prefix, pad = self._random.choice(texts.SEQUENCES)
        return name, f"{prefix or f'{name} '}{self._last_numbers[name]:0{pad}}"

    def _next_pull_request(self) -> str:
        self._pull_request += self._random.randint(0, 2)
        return f"PR-{self._pull_request}"

    def _take_free_area(self) -> str:
        # There are more areas than concurrent scripts, so one is always free.
        return self._free_areas.pop(self._random.randrange(len(self._free_areas)))
