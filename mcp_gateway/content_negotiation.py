"""Content negotiation: which forms of an answer a client accepts, and which bodies are JSON.

Answers are JSON documents or event streams. A client that names no preference gets the form that its protocol
revision uses by default; one that does not name event streams (`*/*`, no Accept header) gets JSON.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

JSON = b"application/json"
SSE = b"text/event-stream"

_QUALITY = re.compile(rb"q\s*=\s*([01](?:\.[0-9]*)?|\.[0-9]+)")
# The HTTP library of Java writes `*` for `*/*`.
_JSON_RANGES = {JSON: 3, b"application/*": 2, b"*/*": 1, b"*": 1}
_SSE_RANGES = {SSE: 3, b"text/*": 2, b"*/*": 1, b"*": 1}
_JSON_MEDIA_TYPE = re.compile(rb"application/(?:json|json-rpc|jsonrequest|[\w.+-]+\+json)")
_CHARSET = re.compile(rb"charset\s*=\s*\"?([\w.:-]+)\"?")
_UTF_8_NAMES = frozenset({b"utf-8", b"utf8"})


@dataclass(frozen=True, slots=True)
class AcceptedForms:
    """The forms of an answer that a client accepts.

    Attributes:
        json, sse: whether it accepts JSON documents and event streams.
        prefers_sse: whether it names event streams and prefers nothing to them.
    """

    json: bool
    sse: bool
    prefers_sse: bool

    def answer_is_json(self, is_modern: bool) -> bool:
        """Whether an answer that consists of one message is JSON; 2026-07-28 prefers JSON, the older revisions SSE."""
        return self.json and (is_modern or not self.prefers_sse or not self.sse)


BOTH_FORMS = AcceptedForms(json=True, sse=True, prefers_sse=True)


def parse_accept(values: Iterable[bytes]) -> AcceptedForms:
    """Parse the Accept headers of a request, of which there may be several or none."""
    return _parse_ranges(b",".join(values).lower())


# Clients differ in few spellings.
@lru_cache(maxsize=256)
def _parse_ranges(joined: bytes) -> AcceptedForms:
    if not joined.strip(b", \t"):
        return AcceptedForms(json=True, sse=True, prefers_sse=False)
    ranges = [_parse_range(text) for text in joined.split(b",") if text.strip()]
    json_quality, _ = _find_quality(ranges, _JSON_RANGES)
    sse_quality, specificity = _find_quality(ranges, _SSE_RANGES)
    names_sse = specificity > 1
    return AcceptedForms(json_quality > 0, sse_quality > 0, names_sse and sse_quality >= json_quality)


def is_json_body(content_types: Iterable[bytes], body: bytes) -> bool:
    """Whether the Content-Type headers of a request describe a body that is JSON in UTF-8; one without any does."""
    for value in content_types:
        media_type, _, parameters = value.lower().partition(b";")
        if not media_type.strip():
            continue
        if not _JSON_MEDIA_TYPE.fullmatch(media_type.strip()):
            return False
        charset = _CHARSET.search(parameters)
        # In ASCII the usual charsets are the same.
        if charset and charset[1] not in _UTF_8_NAMES and (not body.isascii() or b"\0" in body):
            return False
    return True


def _parse_range(text: bytes) -> tuple[bytes, float]:
    media_range, *parameters = text.split(b";")
    for parameter in parameters:
        if quality := _QUALITY.fullmatch(parameter.strip()):
            return media_range.strip(), min(float(quality[1]), 1.0)
    return media_range.strip(), 1.0


def _find_quality(ranges: list[tuple[bytes, float]], specificities: dict[bytes, int]) -> tuple[float, int]:
    """Return the quality by the most specific range that matches, and how specific it is; 0 and 0 without one."""
    matching = [
        (specificities[media_range], quality) for media_range, quality in ranges if media_range in specificities
    ]
    if not matching:
        return 0.0, 0
    specificity, quality = max(matching)
    return quality, specificity
