"""A stand-in for systemctl where no systemd runs: starts the units of /etc/systemd/system as they say.

It knows `daemon-reload`, `enable --now`, `restart` and `reload`, and what the units of deploy/systemd use. Units of
other packages are nginx and Caddy.
"""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil

_UNITS = Path("/etc/systemd/system")
_STATE = Path(os.environ["SYSTEMCTL_STATE"])
_PACKAGES = {
    "nginx": (["nginx"], ["nginx", "-s", "reload"]),
    "caddy": (
        ["caddy", "start", "--config", "/etc/caddy/Caddyfile"],
        ["caddy", "reload", "--config", "/etc/caddy/Caddyfile"],
    ),
}


def main() -> None:
    command, *names = [word for word in sys.argv[1:] if word != "--now"]
    if command == "daemon-reload":
        subprocess.run(["systemd-analyze", "verify", *map(str, sorted(_UNITS.glob("llm-bus*")))], check=True)
    started: set[str] = set()
    for name in names:
        if name in _PACKAGES:
            start, reload = _PACKAGES[name]
            marker = _STATE / name
            subprocess.run(reload if marker.exists() else start, check=True, stdin=subprocess.DEVNULL)
            marker.touch()
        elif command == "reload":
            os.kill(int((_STATE / name).read_text()), signal.SIGHUP)
        elif not name.endswith(".target"):
            _restart(name, started)


def _restart(name: str, started: set[str]) -> None:
    """Start a unit after those that it requires, each once in a transaction."""
    if name in started:
        return
    started.add(name)
    pairs = [line.split("=", 1) for line in (_UNITS / f"{name}.service").read_text().splitlines() if "=" in line]
    values: dict[str, list[str]] = {}
    for key, value in pairs:
        values.setdefault(key, []).append(value)
    for required in values.get("Requires", []):
        _restart(required.removesuffix(".service"), started)
    pid_file = _STATE / name
    if pid_file.exists():
        _stop(int(pid_file.read_text()))
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": values["WorkingDirectory"][0]}
    for file in values["EnvironmentFile"]:
        lines = [line for line in Path(file).read_text().splitlines() if line and not line.startswith("#")]
        env |= dict(word.split("=", 1) for line in lines for word in shlex.split(line))
    env |= dict(word.split("=", 1) for line in values.get("Environment", []) for word in shlex.split(line))
    account = [f"--reuid={values['User'][0]}", f"--regid={values['Group'][0]}", "--init-groups", "--no-new-privs"]
    with (_STATE / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            ["setpriv", *account, *shlex.split(values["ExecStart"][0])],
            cwd=values["WorkingDirectory"][0], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    if values.get("Type") == ["oneshot"]:
        if process.wait() != 0:
            sys.exit(f"{name} failed: {(_STATE / f'{name}.log').read_text()}")
    else:
        pid_file.write_text(str(process.pid))


def _stop(pid: int) -> None:
    process = psutil.Process(pid)
    process.terminate()
    process.wait(60)


main()
