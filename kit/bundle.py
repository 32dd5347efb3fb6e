"""The kit as one file: what the web serves as /kit/install.py, to be piped into Python."""

from __future__ import annotations

import json
from pathlib import Path

from kit import VERSION

_KIT_DIR = Path(__file__).resolve().parent
_SCRIPT_TEMPLATE = '''\
#!/usr/bin/env python3
"""The LLM Bus kit {version} in one file: the installer, and what it puts into a repository.

    curl -fsSL {home}/kit/install.py | python3 -             # connect this repository
    curl -fsSL {home}/kit/install.py | python3 - --help      # what else it can do

FILES below is the whole of it, as readable text. Source: the folder kit/ of LLM Bus. AGPL-3.0-only.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("llm-bus: the kit needs Python 3.9 or newer; this is %d.%d." % sys.version_info[:2])

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


def read_files() -> dict[str, str]:
    """All that a repository gets, by path: `kit/main.py`, `kit/blocks/lead.md`."""
    found = {}
    for path in sorted([*_KIT_DIR.glob("*.py"), *_KIT_DIR.glob("blocks/*.md"), *_KIT_DIR.glob("okf/*.md")]):
        # Line ends as the repository has them, also from a checkout that changed them.
        found[f"kit/{path.relative_to(_KIT_DIR).as_posix()}"] = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    return found


def build_script(endpoint: str, home: str) -> str:
    """The file; the same for the same kit and addresses."""
    defaults = json.dumps({"endpoint": endpoint, "home": home}, indent=4)
    held = json.dumps(read_files(), indent=4, sort_keys=True)
    made = _SCRIPT_TEMPLATE.replace("{version}", VERSION).replace("{home}", home)
    return made.replace("{defaults}", defaults).replace("{files}", held)
