"""The account that runs PostgreSQL when the bus runs as root, since PostgreSQL refuses to run as root."""

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
    """Return the account for servers that refuse root; None if the present user is not root.

    Args:
        data: the data folder. The owner of an existing cluster is kept, since PostgreSQL insists on owning its
            files; a new cluster gets the system account `postgres`, or else `nobody`.

    Raises:
        LookupError: this machine has neither account.
    """
    if os.geteuid() != 0:
        return None
    for folder in (data / "postgres", data):
        try:
            owner = folder.stat().st_uid
        except OSError:
            continue
        # PostgreSQL looks up the name of its user; the owner of a mounted folder may have none.
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
    """Return whether `account` can enter the folder or run the program `path`, as the kernel decides it."""
    if account is None:
        return os.access(path, os.X_OK)
    result = subprocess.run(
        ["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        check=False,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return result.returncode == 0


def change_owner(path: Path, account: UnixAccount | None) -> None:
    """Make `account` the owner of a new file or folder."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def _find_passwd_entry(look_up: Callable[[_Key], pwd.struct_passwd], key: _Key) -> pwd.struct_passwd | None:
    try:
        return look_up(key)
    except KeyError:
        return None
