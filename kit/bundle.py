"""The kit as one script: the web serves it as /kit/install.py, to be piped into Python."""

from __future__ import annotations

import json
from pathlib import Path

from kit import VERSION

_SCRIPT_TEMPLATE = '''\
#!/usr/bin/env python3
"""The LLM Bus kit {version} in one file: the installer, and the files that it writes into a repository.

    curl -fsSL {home}/kit/install.py | python3 -             # connect this repository
    curl -fsSL {home}/kit/install.py | python3 - --help      # list all options

FILES below contains all of them as readable text. Source: the folder kit/ of LLM Bus. AGPL-3.0-only.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("llm-bus: the kit needs Python 3.9 or newer; this is %d.%d." % sys.version_info[:2])

import os

# The kit uses the standard library alone, and not modules of the repository that have the same names.
sys.path[:] = [folder for folder in sys.path if folder and os.path.abspath(folder) != os.getcwd()]

import importlib.abc
import importlib.util

DEFAULTS = {defaults}
FILES = {files}


class Bundle(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the kit from FILES."""

    def find_spec(self, name, path=None, target=None):
        file = self.file(name)
        if file not in FILES:
            return None
        return importlib.util.spec_from_loader(name, self, is_package=name == "kit")

    def file(self, name):
        return "kit/__init__.py" if name == "kit" else name.replace(".", "/") + ".py"

    def exec_module(self, module):
        file = self.file(module.__name__)
        exec(compile(FILES[file], "<%s>" % file, "exec"), module.__dict__)


sys.meta_path.insert(0, Bundle())

from kit.install import main

sys.exit(main(sys.argv[1:], FILES, DEFAULTS))
'''


def list_paths(kit_dir: Path) -> list[Path]:
    """List the files of the kit in a folder, sorted: its modules and the texts that the installer copies."""
    patterns = ("*.py", "blocks/*.md", "okf/*.md", "plugins/*.js")
    return sorted(path for pattern in patterns for path in kit_dir.glob(pattern))


def read_files() -> dict[str, str]:
    """Read the files that a repository gets, by path: `kit/main.py`, `kit/blocks/lead.md`."""
    # Not a constant of the module: the kit's modules have no __file__ in the script that this module builds.
    kit_dir = Path(__file__).resolve().parent
    # Line ends as the repository has them, also from a checkout that changed them.
    return {
        f"kit/{path.relative_to(kit_dir).as_posix()}": path.read_bytes().decode("utf-8").replace("\r\n", "\n")
        for path in list_paths(kit_dir)
    }


def build_script(endpoint: str, home: str) -> str:
    """Build the script; the result depends only on the kit and the two addresses.

    Args:
        endpoint: the MCP address of the bus.
        home: the web address of the bus.
    """
    defaults = json.dumps({"endpoint": endpoint, "home": home}, indent=4)
    files = json.dumps(read_files(), indent=4, sort_keys=True)
    script = _SCRIPT_TEMPLATE.replace("{version}", VERSION).replace("{home}", home)
    return script.replace("{defaults}", defaults).replace("{files}", files)
