"""Executes another program that ends with its parent and, if requested, runs without root privileges.

mesh.stack.process runs this file by path with `python -I -S`: a fresh interpreter can do safely what is unsafe between
fork and exec in a parent with threads. Arguments: PARENT_PID ORPHAN_SIGNAL ACCOUNT PROGRAM ARGUMENT...
ACCOUNT is UID:GID; or UID:GID:alias for our own account under that name; or - for no change.
"""

import ctypes
import os
import resource
import sys

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000
_OPEN_FILES = 65_536

libc = ctypes.CDLL(None, use_errno=True)


def become(parent: int, orphan_signal: int, account: str, argv: list[str]) -> None:
    """Replace this process by the program."""
    if account != "-":
        uid, gid, *alias = account.split(":")
        if alias:
            appear_as(int(uid), int(gid))
        else:
            os.setgroups([])
            os.setgid(int(gid))
            os.setuid(int(uid))
    os.umask(0o077)
    # A core dump would contain every secret of the process.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Each live stream is an open file, and the usual soft limit is 1,024.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, _OPEN_FILES), most))
    if sys.platform == "linux":
        # After setuid, which clears it; it survives exec.
        libc.prctl(PR_SET_PDEATHSIG, orphan_signal)
        if os.getppid() != parent:
            sys.exit("the parent process has ended")
    try:
        os.execv(argv[0], argv)  # noqa: S606  executing another program is the purpose of this file
    except OSError as error:
        sys.exit(f"cannot run {argv[0]}: {error.strerror}")


def appear_as(uid: int, gid: int) -> None:
    """Appear as another account in a new user namespace, with our own privileges."""
    ours = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER):
        sys.exit(f"cannot make a user namespace: {os.strerror(ctypes.get_errno())}")
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {ours[0]} 1"), ("gid_map", f"{gid} {ours[1]} 1")):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123  pathlib takes long to load
            file.write(line)


if __name__ == "__main__":
    become(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
