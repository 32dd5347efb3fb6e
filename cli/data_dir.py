"""The data folder: its location, its layout, and the lock that admits one `up` at a time."""

import fcntl
import hashlib
import os
import sys
import time
from pathlib import Path

from cli.embedded import account as accounts
from cli.exit_codes import CliError
from cli.files import chown_to_parent_owner
from cli.settings import DATA_FOLDER, read_variable

_SYSTEM_DATA_ROOT = Path("/var/lib/llm-bus")


def source_root() -> Path | None:
    """Return the checkout that this code runs from, or None if it is installed as a package."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").exists() and (root / "Procfile.split").exists() else None


def locate(explicit: Path | None) -> Path:
    """Return the data folder, which need not exist yet: `explicit`, LLM_BUS_DATA, or the default.

    A default folder that the account of PostgreSQL cannot enter moves to /var/lib, always to the same place.

    Raises:
        CliError: the process runs as root, and the account that will run PostgreSQL cannot enter the requested folder.
    """
    requested = explicit or (Path(text) if (text := read_variable(DATA_FOLDER)) else None)
    folder = (requested or _default_path()).expanduser().absolute()
    account = server_account(folder)
    if account is None:
        return folder
    blocked = _find_blocked_ancestor(folder, account)
    if blocked is None:
        return folder
    if requested is None:
        return _SYSTEM_DATA_ROOT / hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    raise CliError(
        f"PostgreSQL refuses to run as root. It runs as the user {account.name} instead, who cannot enter "
        f"{blocked}. Choose a folder that all users may enter, such as "
        f"--data {_SYSTEM_DATA_ROOT}/bus, or allow it: chmod o+x {blocked}"
    )


def server_account(folder: Path) -> accounts.UnixAccount | None:
    """Return the account that runs PostgreSQL of this data folder; None for the present user.

    Raises:
        CliError: the process runs as root, and there is no account to run PostgreSQL.
    """
    try:
        return accounts.choose_account(folder)
    except LookupError as error:
        raise CliError(str(error)) from error


def create(folder: Path) -> None:
    """Create the data folder with its subfolders and missing parents.

    Raises:
        CliError: it cannot be written to.
    """
    as_root = os.geteuid() == 0
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir()
            # The umask may be strict, and as root another account has to enter the folder.
            path.chmod((0o711 if as_root else 0o700) if path == folder else 0o755)
        if as_root and not missing and _is_empty_and_owned(folder):
            folder.chmod(folder.stat().st_mode & 0o777 | 0o011)
        for name in ("logs", "postgres", "redis"):
            subfolder = folder / name
            if not subfolder.exists():
                subfolder.mkdir(mode=0o711 if as_root else 0o700)
                chown_to_parent_owner(subfolder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError
    except OSError as error:
        raise CliError(
            f"The data folder {folder} cannot be used: {error.strerror or 'it belongs to another user'}. "
            "Run llm-bus as the user it belongs to, or choose another folder with --data."
        ) from error


class DataDirLock:
    """The lock that `up` holds on its data folder; the kernel releases it when the process ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock; return False if another `up` holds it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        chown_to_parent_owner(self._path)
        # Other commands hold the lock for an instant to check it (`is_locked`), so one failure is not final.
        for _ in range(10):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.05)
            else:
                self._descriptor = descriptor
                return True
        os.close(descriptor)
        return False

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_locked(folder: Path) -> bool:
    """Return whether an `up` holds the lock of the folder."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _default_path() -> Path:
    root = source_root()
    if root is not None:
        return root / ".data"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "llm-bus"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "llm-bus"


def _find_blocked_ancestor(folder: Path, account: accounts.UnixAccount) -> Path | None:
    """Return the outermost folder on the path to `folder` that the account cannot enter."""
    existing = [path for path in (folder, *folder.parents) if path.exists()]
    if _is_empty_and_owned(folder):
        existing.remove(folder)
    if accounts.can_execute(account, existing[0]):
        return None
    return next((path for path in reversed(existing) if not accounts.can_execute(account, path)), existing[0])


def _is_empty_and_owned(folder: Path) -> bool:
    """Return whether this is an empty folder of the present user, as of `mktemp -d`, whose mode may be changed."""
    try:
        return folder.stat().st_uid == os.geteuid() and not any(folder.iterdir())
    except OSError:
        return False
