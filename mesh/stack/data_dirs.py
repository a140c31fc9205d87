"""Where things may lie: accounts that own them, and folders that those accounts can reach.

Started as root, PostgreSQL must run as somebody else, who cannot see into a home folder of root's.
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

#: A Unix socket's path holds 107 characters; this leaves room for the longest name below a folder.
_FOLDER_LENGTH = 60


@dataclass(frozen=True)
class Account:
    """Whom a program runs as."""

    uid: int
    gid: int
    #: Only the name is another's: the program runs as ourselves.
    alias: bool = False

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}" + ":alias" * self.alias


def unprivileged_account() -> Account | None:
    """Whom a server runs as that refuses to run as root; None when we are not root ourselves."""
    return _nobody() if os.geteuid() == 0 else None


def named_account() -> Account | None:
    """Whom a program runs as that wants to know its user's name; None when we have one."""
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
            "PostgreSQL wants to run as a user with a name other than root, and there is not even `nobody`",
            fix="start the stack as an ordinary user who is in /etc/passwd",
        ) from None
    return Account(nobody.pw_uid, nobody.pw_gid)


def reachable(path: Path, account: Account | None) -> bool:
    """Whether the account may read `path` and pass every folder above it."""
    if account is None:
        return True
    path = path.resolve()
    return _permits(path, account, stat.S_IROTH | stat.S_IXOTH if path.is_dir() else stat.S_IROTH) and all(
        _permits(parent, account, stat.S_IXOTH) for parent in path.parents
    )


def hand_over(path: Path, account: Account | None) -> None:
    """Make the account the owner of `path`."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


@contextmanager
def socket_folder(account: Account | None) -> Iterator[Path]:
    """A private folder for Unix sockets, with a short path that the account reaches; gone at the end."""
    parents = map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"))  # noqa: S108  mkdtemp is safe there
    fit = (p for p in parents if len(str(p)) <= _FOLDER_LENGTH and os.access(p, os.W_OK) and _passable(p, account))
    if (parent := next(fit, None)) is None:
        raise StackError(
            "found no folder for sockets", fix="set TMPDIR to a folder with a short name that can be written"
        )
    folder = _new_folder(parent, account)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def home_for(folder: Path, account: Account | None) -> Path:
    """Where the account can keep what belongs in `folder`: there, or in a shelter that the link `home` there names."""
    folder.mkdir(parents=True, exist_ok=True)
    if account is None or _passable(folder, account):
        return folder
    link = folder / "home"
    if not link.exists():
        link.unlink(missing_ok=True)
        shelter = _new_shelter(folder, account)
        link.symlink_to(shelter)
        (shelter / "belongs-to").write_text(f"{link}\n")  # for whoever finds it
    return link.resolve()


def remove_home(folder: Path) -> None:
    """Delete the folder, and the shelter that stands in for it."""
    link = folder / "home"
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _new_shelter(folder: Path, account: Account) -> Path:
    """A folder from which programs may be run, and which lasts as long as `folder` does."""
    temporary = Path(tempfile.gettempdir()).resolve()
    lasting = map(Path, ("/var/lib", "/opt", "/var/tmp"))  # noqa: S108  mkdtemp is safe there
    for parent in [temporary] if folder.resolve().is_relative_to(temporary) else lasting:
        runs_programs = parent.is_dir() and not os.statvfs(parent).f_flag & os.ST_NOEXEC
        if runs_programs and os.access(parent, os.W_OK) and _passable(parent, account):
            return _new_folder(parent, account)
    raise StackError(
        "found no folder where PostgreSQL, which must not run as root, can keep its data",
        fix="choose a folder that everybody may enter with --state-dir, or start the stack as an ordinary user",
    )


def _new_folder(parent: Path, account: Account | None) -> Path:
    """A folder of ours, which the account may pass."""
    folder = Path(tempfile.mkdtemp(prefix="shopmesh-", dir=parent))
    folder.chmod(0o700 if account is None else 0o711)
    return folder


def _passable(folder: Path, account: Account | None) -> bool:
    return account is None or all(
        _permits(path, account, stat.S_IXOTH) for path in (folder.resolve(), *folder.resolve().parents)
    )


def _permits(path: Path, account: Account, bits: int) -> bool:
    """Whether the mode gives the account these bits, named as those of others."""
    status = path.stat()
    if status.st_uid == account.uid:
        return status.st_mode & bits << 6 == bits << 6
    if status.st_gid == account.gid:
        return status.st_mode & bits << 3 == bits << 3
    return status.st_mode & bits == bits
