"""Whom PostgreSQL runs as when we are root: it refuses to run as root itself."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Account:
    """An unprivileged user of this machine."""

    name: str
    uid: int
    gid: int


def choose(existing: Path) -> Account | None:
    """Return the account for servers that refuse root; None when we are an ordinary user ourselves.

    Args:
        existing: the folder that may hold a cluster already. Its owner is kept, since PostgreSQL insists
            on owning its files; the system's `postgres`, else `nobody`, is for a new one.
    Raises:
        LookupError: this machine knows neither account.
    """
    if os.geteuid() != 0:
        return None
    for folder in (existing / "postgres", existing):
        try:
            owner = folder.stat().st_uid
        except OSError:
            continue
        if owner != 0:
            return _by_uid(owner)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise LookupError(
        "PostgreSQL refuses to run as root, and this machine has neither a user `postgres` nor `nobody`. "
        "Run llm-bus as an ordinary user, or add one of the two."
    )


def reaches(account: Account | None, path: Path) -> bool:
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


def hand_over(path: Path, account: Account | None) -> None:
    """Make `account` the owner of `path`, which we have just made."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def _by_uid(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        # A folder mounted from elsewhere may belong to a user whom this machine has no name for.
        return Account(str(uid), uid, uid)
    return Account(entry.pw_name, uid, entry.pw_gid)
