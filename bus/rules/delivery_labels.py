"""How interfaces show the reachability of a recipient when a post was written."""

from collections.abc import Mapping

WAKE_LABELS: Mapping[str, str] = {
    "waiting": "Waiting in a call",
    "listening": "Open stream",
    "hooks": "At its next tool call",
    "none": "At its next turn",
}
