"""A repository in which the installer runs inside the test's own process, for many small files."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from kit import install

URL = "https://bus.example.org/mcp"


@dataclass
class Workplace:
    """A work tree that is the current folder, with a home folder of its own."""

    top: Path
    home: Path
    capture: pytest.CaptureFixture[str]

    def install(self, clients: str = "none", *options: str) -> tuple[int, str]:
        """Run the installer. Returns its exit code and its output."""
        return self.run("--endpoint", URL, "--client", clients, *options)

    def uninstall(self, *options: str) -> tuple[int, str]:
        return self.run("--uninstall", *options)

    def run(self, *arguments: str) -> tuple[int, str]:
        code = install.main(list(arguments))
        output = self.capture.readouterr()
        assert output.err == ""
        return code, output.out

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
        return subprocess.run(command, cwd=self.top, check=True, capture_output=True, text=True).stdout

    def write(self, name: str, content: bytes | str, mode: int = 0o644) -> Path:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def read(self, name: str) -> bytes:
        return (self.top / name).read_bytes()

    def forget(self) -> None:
        """Remove the record of the installation, as in another clone of the branch."""
        (self.top / ".git" / "llm-bus" / "installed.json").unlink()

    def listing(self) -> dict[str, tuple[int, bytes] | str]:
        """Return mode and content of each file of the work tree and of the hooks, and where each link leads."""
        files: dict[str, tuple[int, bytes] | str] = {}
        for path in sorted(self.top.rglob("*")):
            name = path.relative_to(self.top).as_posix()
            if name.startswith(".git/") and not name.startswith(".git/hooks"):
                continue
            if path.is_symlink():
                files[name] = f"link to {path.readlink()}"
            elif path.is_file():
                files[name] = (path.stat().st_mode & 0o777, path.read_bytes())
        return files


def make_workplace(folder: Path, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> Workplace:
    """Create a repository and go there."""
    top, home = folder / "repo", folder / "home"
    top.mkdir()
    home.mkdir()
    for name in ("LLM_BUS_TOKEN", "LLM_BUS_INVITE", "LLM_BUS_URL", "LLM_BUS_CONFIG", "GIT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.chdir(top)
    workplace = Workplace(top, home, capture)
    workplace.git("init", "-q", "-b", "main")
    return workplace
