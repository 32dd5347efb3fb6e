"""The files in deploy/ agree with the Procfile and with the programs that read them."""

import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from cli import procfile

_PROJECT_ROOT = Path(__file__).resolve().parents[2]
_DEPLOY = _PROJECT_ROOT / "deploy"
_UNITS = sorted((_DEPLOY / "systemd").iterdir())


def _read_unit(path: Path) -> RawConfigParser:
    # systemd allows a key several times; the values that are checked here occur once.
    unit = RawConfigParser(strict=False, comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(path.read_text())
    return unit


def test_each_process_of_the_split_procfile_has_a_unit() -> None:
    lines = procfile.parse((_PROJECT_ROOT / "Procfile.split").read_text())
    commands = {line.name.replace("release", "migrate"): " ".join(line.command) for line in lines}
    units = {
        path.stem.removeprefix("llm-bus-"): _read_unit(path)["Service"]["ExecStart"].removeprefix(
            "/opt/llm-bus/.venv/bin/"
        )
        for path in _UNITS
        if path.suffix == ".service"
    }
    assert units == commands
    target = _read_unit(_DEPLOY / "systemd" / "llm-bus.target")["Unit"]["Wants"].split()
    assert {name.removeprefix("llm-bus-").removesuffix(".service") for name in target} == set(units) - {"migrate"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed.")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for path in _UNITS:
        (tmp_path / path.name).write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={program}", path.read_text()))
    verified = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / path.name) for path in _UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed.")
def test_nginx_accepts_its_configuration(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=bus.example.org",
         "-keyout", str(tmp_path / "privkey.pem"), "-out", str(tmp_path / "fullchain.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    text = (_DEPLOY / "nginx.conf").read_text()
    text = text.replace("/etc/ssl/bus.example.org", str(tmp_path)).replace("/var/log/nginx", str(tmp_path))
    (tmp_path / "bus.conf").write_text(text)
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}} http {{ include {tmp_path}/bus.conf; }}"
    )
    tested = subprocess.run(["nginx", "-t", "-c", str(tmp_path / "nginx.conf")], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr


@pytest.mark.skipif(shutil.which("caddy") is None, reason="Caddy is not installed.")
def test_caddy_accepts_its_configuration(tmp_path: Path) -> None:
    command = ["caddy", "adapt", "--validate", "--adapter", "caddyfile", "--config", str(_DEPLOY / "Caddyfile")]
    adapted = subprocess.run(command, env={"HOME": str(tmp_path)}, capture_output=True, text=True)
    assert adapted.returncode == 0, adapted.stderr
