"""Rotation of log files that running processes append to."""

import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True)
class LogRotation:
    """Limits of one process's logs: `name.log`, and the older `name.log.1`, `name.log.2` and so on."""

    #: The size at which a log begins anew.
    max_bytes: int
    #: The number of files, the current one included.
    files: int

    def rotate(self, log: Path) -> bool:
        """Begin the log anew if it is too large; return whether it was.

        The writer keeps its open file, so the content is copied and the file cut; what is written between the end of
        the copy and the cut, some microseconds, is lost.
        """
        if not log.exists() or log.stat().st_size <= self.max_bytes:
            return False
        older = [log.with_name(f"{log.name}.{number}") for number in range(1, self.files)]
        for source, target in reversed(list(pairwise(older))):
            if source.exists():
                source.replace(target)
        with log.open("r+b") as current:
            if older:
                older[0].touch(mode=0o600)
                with older[0].open("wb") as copy:
                    shutil.copyfileobj(current, copy)
            current.truncate(0)
        return True
