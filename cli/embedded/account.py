"""Whom PostgreSQL runs as when we are root: it refuses to run as root itself."""

import os
import pwd
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

_Key = TypeVar("_Key", int, str)


@dataclass(frozen=True)
class UnixAccount:
    """An unprivileged user of this machine."""

    name: str
    uid: int
    gid: int


def choose_account(data: Path) -> UnixAccount | None:
    """Return the account for servers that refuse root; None when we are an ordinary user ourselves.

    Args:
        existing: the folder that may hold a cluster already. Its owner is kept, since PostgreSQL insists
            on owning its files; the system's `postgres`, else `nobody`, is for a new one.
    Raises:
        LookupError: this machine knows neither account.
    """
    if os.geteuid() != 0:
        return None
    for folder in (data / "postgres", data):
        try:
            owner = folder.stat().st_uid
        except OSError:
            continue
        # Users without a name, as of a mounted folder, will not do: PostgreSQL looks its own up.
        if owner != 0 and (entry := _find_passwd_entry(pwd.getpwuid, owner)) is not None:
            return UnixAccount(entry.pw_name, owner, entry.pw_gid)
    for name in ("postgres", "nobody"):
        entry = _find_passwd_entry(pwd.getpwnam, name)
        if entry is not None and entry.pw_uid != 0:
            return UnixAccount(name, entry.pw_uid, entry.pw_gid)
    raise LookupError(
        "PostgreSQL refuses to run as root, and this machine has neither a user `postgres` nor `nobody`. "
        "Run llm-bus as an ordinary user, or add one of the two."
    )


def can_execute(account: UnixAccount | None, path: Path) -> bool:
    """Whether `account` can enter (a folder) or run (a program) `path`, asked of the kernel itself."""
    if account is None:
        return os.access(path, os.X_OK)
    done = subprocess.run(
        ["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        check=False,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return done.returncode == 0


def change_owner(path: Path, account: UnixAccount | None) -> None:
    """Make `account` the owner of `path`, which we have just made."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def _find_passwd_entry(look_up: Callable[[_Key], pwd.struct_passwd], key: _Key) -> pwd.struct_passwd | None:
    try:
        return look_up(key)
    except KeyError:
        return None
