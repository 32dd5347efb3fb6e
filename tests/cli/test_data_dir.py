"""Ports, small files, the Procfile and the lock: each alone."""

import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from cli import data_dir, procfile
from cli.exit_codes import CliError
from cli.files import read_or_create_secret, start_new_log, truncate_oversized_log, write_private
from cli.ports import PortAllocator, is_free


def test_a_port_is_kept_while_it_is_free(tmp_path: Path) -> None:
    memory = tmp_path / "ports.json"
    memory.write_text('{"web": 50123}')
    assert PortAllocator(memory).assign("web") == 50123
    with socket.create_server(("127.0.0.1", 50123)):
        other = PortAllocator(memory).assign("web")
        assert other != 50123
    assert PortAllocator(memory).assign("web") == other


def test_two_names_never_get_one_port(tmp_path: Path) -> None:
    ports = PortAllocator(tmp_path / "ports.json")
    chosen = {ports.assign(name) for name in ("web", "gateway", "postgres", "redis", "more", "still more")}
    assert len(chosen) == 6
    assert all(is_free(port) for port in chosen)


def test_a_spoiled_memory_of_ports_is_forgotten(tmp_path: Path) -> None:
    memory = tmp_path / "ports.json"
    for text in ("", "[]", '{"web": "x"}', '{"web": 99999999}'):
        memory.write_text(text)
        assert 0 < PortAllocator(memory).assign("web") < 65536


def test_a_secret_is_made_once_and_kept_private(tmp_path: Path) -> None:
    secret = read_or_create_secret(tmp_path / "secret")
    assert len(secret) == 32
    assert read_or_create_secret(tmp_path / "secret") == secret
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_private_file_leaves_no_draft(tmp_path: Path) -> None:
    write_private(tmp_path / "file", "one")
    write_private(tmp_path / "file", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "two"


def test_old_logs_are_kept_up_to_a_number(tmp_path: Path) -> None:
    for run in range(6):
        start_new_log(tmp_path, "web").write_text(f"run {run}")
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {"web.log": "run 5", "web.log.1": "run 4", "web.log.2": "run 3", "web.log.3": "run 2"}


def test_a_log_is_cut_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 2000)
        truncate_oversized_log(log, max_bytes=1000)
        writer.write(b"later")
    assert log.read_bytes() == b"later"
    assert (tmp_path / "web.log.1").stat().st_size == 2000


def test_the_procfile_of_this_bus_is_understood() -> None:
    _, kinds = procfile.read()
    assert "gateway" in [kind.name for kind in kinds]
    assert "release" not in [kind.name for kind in kinds]


@pytest.mark.parametrize("text", ["web", "web:", ": python", "web: a\nweb: b"])
def test_a_line_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(CliError):
        procfile.parse(text)


def test_comments_and_quotes_in_a_procfile() -> None:
    (kind,) = procfile.parse("# a comment\n\nweb: python -m webapp 'a b'\n")
    assert kind.command == ("python", "-m", "webapp", "a b")


def _hold_and_die(place: Path) -> None:
    assert data_dir.DataDirLock(place).acquire()
    os._exit(9)


def test_the_lock_of_a_process_that_died_is_free(tmp_path: Path) -> None:
    holder = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(tmp_path,))
    holder.start()
    holder.join()
    lock = data_dir.DataDirLock(tmp_path)
    assert lock.acquire()
    assert data_dir.is_locked(tmp_path)
    assert not data_dir.DataDirLock(tmp_path).acquire()
    lock.release()
    assert not data_dir.is_locked(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root has to find a folder that others can enter.")
def test_a_default_folder_out_of_reach_moves_always_to_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLM_BUS_DATA", raising=False)
    tmp_path.chmod(0o700)
    monkeypatch.setattr(data_dir, "_default", lambda: tmp_path / "deep" / ".data")
    moved = data_dir.locate(None)
    assert moved.parent == Path("/var/lib/llm-bus")
    assert moved == data_dir.locate(None)


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root has to find a folder that others can enter.")
def test_an_empty_folder_that_is_given_to_us_is_opened_but_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.servers import make_traversable_folder

    place = make_traversable_folder()
    place.chmod(0o700)
    assert data_dir.locate(place) == place
    data_dir.create(place)
    assert place.stat().st_mode & 0o777 == 0o711
    place.chmod(0o700)
    with pytest.raises(CliError, match=str(place)):
        data_dir.locate(place)


def test_the_lock_file_names_packages_and_nothing_else() -> None:
    text = (Path(__file__).resolve().parents[2] / "requirements.lock").read_text()
    for foreign in ("://", "file:", "--index", "--extra", "--find", "@ /", "--trusted"):
        assert foreign not in text
    assert all("--hash=sha256:" in entry for entry in text.split("\n\n") if "==" in entry)
