"""Becomes another program, having tied its life to its parent's and, where asked, given up the rights of root.

mesh.process runs this file by path with `python -I -S`: a fresh interpreter may do safely what must not be done
between fork and exec in a parent with threads. Arguments: PARENT_PID ORPHAN_SIGNAL UID:GID|- PROGRAM ARGUMENT...
"""

import ctypes
import os
import resource
import sys

PR_SET_PDEATHSIG = 1


def become(parent: int, orphan_signal: int, account: str, argv: list[str]) -> None:
    if account != "-":
        uid, gid = map(int, account.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    os.umask(0o077)
    # A core dump would hold every secret that the process knows.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # After setuid, which clears it; it survives exec.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, orphan_signal)
        if os.getppid() != parent:
            sys.exit("the process that started this one is gone")
    try:
        os.execv(argv[0], argv)  # noqa: S606  becoming another program is what this file is for
    except OSError as error:
        sys.exit(f"cannot run {argv[0]}: {error.strerror}")


if __name__ == "__main__":
    become(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
