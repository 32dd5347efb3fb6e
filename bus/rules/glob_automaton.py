"""Glob automata: whether two sets of paths and patterns match a common path.

A set of paths and patterns becomes a nondeterministic finite automaton that reads a path character by character, each
segment followed by '/'. Two sets match a common path exactly if both automata can read the same text to an accepting
state. A breadth-first search over pairs of states decides that: a pair steps to each pair that its two states reach
by a common character. Each pair is visited once, so no pattern is slow.

The automaton is built from the ends of the patterns to their starts. Alternatives share states as long as they begin
alike or end alike, so 64 alternatives need few more states than one.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

# Searches of two surfaces of 200 characters visit up to some 30,000 pairs; their automata have below 300 states each.
MAX_VISITED_PAIRS = 250_000

# A ']' in first place is a member; a '[' without its ']' is a literal character, as in '[]' and '[!]'.
_CLASS_PATTERN = r"\[!?+[^/][^\]/]*\]"
_TOKEN_WITH_CLASSES = re.compile(rf"{_CLASS_PATTERN}|\*+|.")
_TOKEN_WITHOUT_CLASSES = re.compile(r"\*+|.")
WILDCARD_OR_CLASS = re.compile(rf"[*?]|{_CLASS_PATTERN}")

_DOUBLE_STAR = "**"
_STAR = "*"
_ANY_CHARACTER = "?"
_SEGMENT_END = "/"
_CODE_POINT_AFTER_SEGMENT_END = ord(_SEGMENT_END) + 1
_MAX_CODE_POINT = 0x10FFFF


@dataclass(frozen=True, slots=True, eq=False)
class CharacterClass:
    """A class such as `[a-z_]` or `[!0-9]`. Never matches '/', since wildcards stay within a segment.

    Attributes:
        ranges: inclusive ranges of code points; one whose end lies before its start matches nothing.
        negated: whether the class matches the characters outside all ranges.
    """

    ranges: tuple[tuple[int, int], ...]
    negated: bool

    def matches(self, code_point: int) -> bool:
        """Whether the class contains the character."""
        is_member = any(low <= code_point <= high for low, high in self.ranges)
        return is_member != self.negated and code_point != ord(_SEGMENT_END)

    def list_interval_starts(self) -> list[int]:
        """List code points that include the first one of each interval that the class matches."""
        bounds = [bound for low, high in self.ranges for bound in (low, high + 1)]
        return [0, _CODE_POINT_AFTER_SEGMENT_END, *(bound for bound in bounds if bound <= _MAX_CODE_POINT)]


# A text token is '*', '**', '?' for any character but '/', or a character, which matches itself. No surface can contain
# '*' or '?' literally. A token that matches one character is also the label of a transition.
Token = str | CharacterClass


@dataclass(slots=True, eq=False)
class State:
    """A state of an automaton, and as a start state the automaton.

    Attributes:
        transitions: which characters lead to which state; several may match the same character.
        accepting: whether the text that led here is a path that matches.
    """

    transitions: list[tuple[Token, "State"]]
    accepting: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Suffix:
    """The end of one or more sequences of tokens: a token and what follows it, None at the end."""

    token: Token
    rest: "_Suffix | None"


def intersects(start_a: State, start_b: State) -> bool:
    """Whether two automata accept a common path.

    A segment that both could match as empty they could also match as any character, so wildcards need not be kept
    from matching the empty segment. A search that is stopped by its cap counts as an intersection: for an advisory
    lease a false alarm is cheap and a missed overlap is not.
    """
    pairs = [(start_a, start_b)]
    visited = set(pairs)
    for state_a, state_b in pairs:  # grows while it is read
        if state_a.accepting and state_b.accepting:
            return True
        for label_a, next_a in state_a.transitions:
            for label_b, next_b in state_b.transitions:
                if label_a == label_b or _share_character(label_a, label_b):
                    pair = (next_a, next_b)
                    if pair not in visited:
                        visited.add(pair)
                        pairs.append(pair)
        if len(pairs) > MAX_VISITED_PAIRS:
            return True
    return False


def build_automaton(paths: Iterable[str]) -> State:
    """Build the automaton that accepts what any of the paths and patterns covers; their braces are literal."""
    suffixes: dict[tuple[Token, _Suffix | None], _Suffix] = {}
    initial_suffixes: set[_Suffix | None] = set()
    for tokens in _tokenise(paths):
        suffix: _Suffix | None = None
        for token in reversed(tokens):
            key = (token, suffix)
            suffix = suffixes.get(key) or suffixes.setdefault(key, _Suffix(token, suffix))
        initial_suffixes.add(suffix)
    return _Builder().build_state(frozenset(initial_suffixes))


class _Builder:
    """Builds one state for each set of suffixes that follow the same tokens."""

    def __init__(self) -> None:
        self._states: dict[frozenset[_Suffix | None], State] = {}
        self._repetitions: dict[tuple[Token, State], State] = {}

    def build_state(self, suffixes: frozenset[_Suffix | None]) -> State:
        """Build the state from which the automaton accepts what matches one of the suffixes."""
        if suffixes in self._states:
            return self._states[suffixes]
        rests_by_token: defaultdict[Token, set[_Suffix | None]] = defaultdict(set)
        for suffix in suffixes:
            if suffix is not None:
                rests_by_token[suffix.token].add(suffix.rest)
        state = State([], accepting=None in suffixes)
        for token, rests in rests_by_token.items():
            target = self.build_state(frozenset(rests))
            if token not in (_STAR, _DOUBLE_STAR):
                state.transitions.append((token, target))
                continue
            repetition = self._build_repetition(token, target)
            if len(rests_by_token) == 1 and not state.accepting:
                state = repetition
            else:
                state.transitions += repetition.transitions
                state.accepting |= repetition.accepting
        self._states[suffixes] = state
        return state

    def _build_repetition(self, token: Token, target: State) -> State:
        """Build the state before a '*' or '**': it reads one more character or segment, or does what `target` does."""
        repetition = self._repetitions.get((token, target))
        if repetition is None:
            repetition = self._repetitions[token, target] = State([], target.accepting)
            reader = repetition
            if token == _DOUBLE_STAR:
                # Within a segment: further characters, then the '/'.
                reader = State([(_SEGMENT_END, repetition)], accepting=False)
                reader.transitions.append((_ANY_CHARACTER, reader))
            repetition.transitions = [(_ANY_CHARACTER, reader), *target.transitions]
        return repetition


@lru_cache(maxsize=4096)
def _share_character(a: Token, b: Token) -> bool:
    """Whether two different labels match a common character."""
    if a == _ANY_CHARACTER:
        return b != _SEGMENT_END
    if b == _ANY_CHARACTER:
        return a != _SEGMENT_END
    if isinstance(a, str):
        return not isinstance(b, str) and b.matches(ord(a))
    return a.matches(ord(b)) if isinstance(b, str) else _classes_intersect(a, b)


def _classes_intersect(a: CharacterClass, b: CharacterClass) -> bool:
    # If they share characters, then also the first of an interval that one of them matches.
    candidates = a.list_interval_starts() + b.list_interval_starts()
    return any(a.matches(code_point) and b.matches(code_point) for code_point in candidates)


def _tokenise(paths: Iterable[str]) -> set[tuple[Token, ...]]:
    """Tokenise each path or pattern, with brackets as literal characters and, if it has classes, as classes."""
    sequences: set[tuple[Token, ...]] = set()
    for path in paths:
        sequences.add(_tokenise_path(path, _TOKEN_WITHOUT_CLASSES))
        if "[" in path:
            tokens = _tokenise_path(path, _TOKEN_WITH_CLASSES)
            classes = [token for token in tokens if isinstance(token, CharacterClass)]
            # A class of reversed ranges only, such as [z-a], matches nothing.
            if classes and all(_classes_intersect(token, token) for token in classes):
                sequences.add(tokens)
    return sequences


def _tokenise_path(path: str, pattern: re.Pattern[str]) -> tuple[Token, ...]:
    """Tokenise one path or pattern.

    Each segment ends with '/'; '**' matches whole segments including their '/'. A literal path is followed by '**',
    since it covers everything under it.

    Args:
        pattern: splits a segment into tokens, with brackets as classes or as literals.
    """
    tokens: list[Token] = []
    literal = True
    for segment in path.split("/"):
        if segment == _DOUBLE_STAR:
            literal = False
            if tokens[-1:] != [_DOUBLE_STAR]:
                tokens.append(_DOUBLE_STAR)
            continue
        texts = pattern.findall(segment)
        literal = literal and "*" not in segment and "?" not in segment and len(texts) == len(segment)
        tokens += [text if len(text) == 1 else _parse_token(text) for text in texts]
        tokens.append(_SEGMENT_END)
    if literal:
        tokens.append(_DOUBLE_STAR)
    return tuple(tokens)


def _parse_token(text: str) -> Token:
    return _STAR if text[0] == "*" else _parse_class(text[1:-1])


@lru_cache(maxsize=1024)
def _parse_class(members: str) -> CharacterClass:
    """Parse what stands between the brackets; the same text gives the same class, so that tokens compare equal."""
    ranges: list[tuple[int, int]] = []
    negated = members[0] == "!"
    position = int(negated)
    while position < len(members):
        low = high = ord(members[position])
        if members[position + 1 : position + 2] == "-" and position + 2 < len(members):
            high = ord(members[position + 2])
            position += 2
        position += 1
        ranges.append((low, high))
    return CharacterClass(tuple(ranges), negated)
