"""Data folders, and the accounts that own them.

A stack started as root runs PostgreSQL as another account, which cannot enter the home folder of root.
"""

import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mesh.errors import StackError

#: The path of a Unix socket has at most 107 characters; this leaves room for the longest name in a folder.
_FOLDER_LENGTH = 60


@dataclass(frozen=True)
class Account:
    """The account that a program runs as."""

    uid: int
    gid: int
    #: The program runs as our own account, under the name of this one.
    alias: bool = False

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}" + ":alias" * self.alias


def unprivileged_account() -> Account | None:
    """Return the account for a server that refuses to run as root; None when we are not root."""
    return _nobody() if os.geteuid() == 0 else None


def named_account() -> Account | None:
    """Return the account for a program that needs a user name; None when our own has one. Raises StackError."""
    if os.geteuid() == 0:
        return _nobody()
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return replace(_nobody(), alias=True)
    return None


def _nobody() -> Account:
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StackError(
            "PostgreSQL must run as a named user other than root, and there is no user `nobody`",
            fix="start the stack as an ordinary user who is in /etc/passwd",
        ) from None
    return Account(nobody.pw_uid, nobody.pw_gid)


def reachable(path: Path, account: Account | None) -> bool:
    """Return whether the account can read `path` and traverse every folder above it."""
    if account is None:
        return True
    path = path.resolve()
    return _permits(path, account, stat.S_IROTH | stat.S_IXOTH if path.is_dir() else stat.S_IROTH) and all(
        _permits(parent, account, stat.S_IXOTH) for parent in path.parents
    )


def give_to(path: Path, account: Account | None) -> None:
    """Make the account the owner of `path`."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


@contextmanager
def socket_folder(account: Account | None) -> Iterator[Path]:
    """Create a private folder for Unix sockets, with a short path that the account can reach; delete it at the end."""
    parents = map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"))  # noqa: S108  mkdtemp is safe there
    usable = (
        p for p in parents if len(str(p)) <= _FOLDER_LENGTH and os.access(p, os.W_OK) and _traversable(p, account)
    )
    if (parent := next(usable, None)) is None:
        raise StackError(
            "there is no usable folder for sockets", fix="set TMPDIR to a writable folder with a short name"
        )
    folder = _new_folder(parent, account)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def data_dir_for(folder: Path, account: Account | None) -> Path:
    """Return the folder for the account's data: `folder`, or another one that the link `home` in it names."""
    folder.mkdir(parents=True, exist_ok=True)
    if account is None or _traversable(folder, account):
        return folder
    link = folder / "home"
    if not link.exists():
        link.unlink(missing_ok=True)
        elsewhere = _new_data_dir(folder, account)
        link.symlink_to(elsewhere)
        (elsewhere / "belongs-to").write_text(f"{link}\n")  # so that an administrator can find the stack
    return link.resolve()


def remove_data_dir(folder: Path) -> None:
    """Delete the folder, and the other folder that its link names."""
    link = folder / "home"
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _new_data_dir(folder: Path, account: Account) -> Path:
    """Create a folder on a file system that can run programs and is as persistent as that of `folder`."""
    temporary = Path(tempfile.gettempdir()).resolve()
    persistent = map(Path, ("/var/lib", "/opt", "/var/tmp"))  # noqa: S108  mkdtemp is safe there
    for parent in [temporary] if folder.resolve().is_relative_to(temporary) else persistent:
        runs_programs = parent.is_dir() and not os.statvfs(parent).f_flag & os.ST_NOEXEC
        if runs_programs and os.access(parent, os.W_OK) and _traversable(parent, account):
            return _new_folder(parent, account)
    raise StackError(
        "there is no usable folder for the data of PostgreSQL, which must not run as root",
        fix="choose a folder that every user can enter with --state-dir, or start the stack as an ordinary user",
    )


def _new_folder(parent: Path, account: Account | None) -> Path:
    """Create a folder of ours that the account can traverse."""
    folder = Path(tempfile.mkdtemp(prefix="shopmesh-", dir=parent))
    folder.chmod(0o700 if account is None else 0o711)
    return folder


def _traversable(folder: Path, account: Account | None) -> bool:
    return account is None or all(
        _permits(path, account, stat.S_IXOTH) for path in (folder.resolve(), *folder.resolve().parents)
    )


def _permits(path: Path, account: Account, bits: int) -> bool:
    """Return whether the mode grants the account these bits, given as those of others."""
    status = path.stat()
    if status.st_uid == account.uid:
        return status.st_mode & bits << 6 == bits << 6
    if status.st_gid == account.gid:
        return status.st_mode & bits << 3 == bits << 3
    return status.st_mode & bits == bits
