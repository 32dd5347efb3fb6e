"""The programs that agents connect with: a closed set of names, from what a client sends about itself."""

UNKNOWN, OTHER = "unknown", "other"

CLIENT_LABELS = {
    "claude-code": "Claude Code",
    "codex": "Codex",
    "gemini-cli": "Gemini CLI",
    "opencode": "OpenCode",
    "cursor": "Cursor",
    "vscode": "VS Code",
    "windsurf": "Windsurf",
    OTHER: "Other clients",
    UNKNOWN: "Unknown client",
}
"""How interfaces show a client, by its stored name. Statistics have one row for each, so the set is closed."""

# The beginning of what a client sends, in lower case and without spaces, hyphens and underscores.
_BEGINNINGS = {
    "claudecode": "claude-code",
    "codex": "codex",
    "geminicli": "gemini-cli",
    "opencode": "opencode",
    "cursor": "cursor",
    "visualstudiocode": "vscode",
    "vscode": "vscode",
    "windsurf": "windsurf",
}
# The kit's hooks call beside the client, whose name they must not replace.
_KIT = "llmbuskit"
_IGNORED = str.maketrans("", "", " -_")


def identify_client(name: str) -> str | None:
    """Return the stored name of a client that names itself (`clientInfo`); None for the kit and an empty name."""
    known = identify_product(name)
    return known if known is not None or not name.strip() or _normalize(name).startswith(_KIT) else OTHER


def identify_product(name: str) -> str | None:
    """Return the stored name of a client whose name begins so, such as a User-Agent; None for all others.

    HTTP libraries name themselves there, so an unknown name says nothing about the client.
    """
    normalized = _normalize(name)
    return next((client for beginning, client in _BEGINNINGS.items() if normalized.startswith(beginning)), None)


def _normalize(name: str) -> str:
    return name[:80].lower().translate(_IGNORED)
