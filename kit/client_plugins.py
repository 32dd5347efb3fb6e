"""The plugin of OpenCode, which runs no commands as hooks: a file between two marks that starts the kit inside .git."""

from __future__ import annotations

import json

from kit import marks, text_files
from kit.client_commands import HOOK_LAUNCHER
from kit.client_files import RARE_TOOLS, InstallOptions
from kit.file_edits import FileEdits

# OpenCode runs every file of this folder.
OPENCODE_PLUGIN = ".opencode/plugin/llm-bus.js"
_MARKS = ("// >>> llm-bus >>>", "// <<< llm-bus <<<")
_SOURCE = "kit/plugins/opencode.js"


def write_opencode_plugin(options: InstallOptions, edits: FileEdits) -> None:
    """Write the plugin, unless the user has another file of this name."""
    path = options.repo.top / OPENCODE_PLUGIN
    with edits.place(path):
        content = edits.read(path)
        text = "" if content is None else text_files.decode(content)
        if not text_files.is_blank(text) and _MARKS[0] not in text:
            raise ValueError("this is another plugin")
        block = _build(options)
        edits.write(path, marks.insert_block(text, block, *_MARKS, [block]).encode("utf-8"), remove_plugin)


def remove_plugin(content: bytes, original: bytes | None) -> bytes | None:
    """Return the file without the plugin; None if nothing else is left."""
    text = marks.remove_blocks(text_files.decode(content), *_MARKS, [])
    return None if text_files.is_blank(text) else text.encode("utf-8")


def _build(options: InstallOptions) -> str:
    hidden_tools = [] if options.all_tools else list(RARE_TOOLS)
    source = options.files[_SOURCE].replace("__LAUNCHER__", json.dumps(HOOK_LAUNCHER))
    return source.replace("__HIDDEN_TOOLS__", json.dumps(hidden_tools))
