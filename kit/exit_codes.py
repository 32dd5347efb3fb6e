"""Exit codes of the kit's commands."""

from __future__ import annotations

OK = 0
# A check failed, or a command for people could not finish.
FAILED = 1
# Claude Code shows standard error to the model when a PostToolUse or background hook ends with this code.
SHOWN_TO_MODEL = 2
# The installer left a place as it is, and did everything else.
PARTLY = 3
# Reserved for a blocked commit: no crash of an interpreter ends with it.
BLOCKED_COMMIT = 77
# Ctrl-C, as shells report it.
INTERRUPTED = 130
