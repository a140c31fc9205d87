"""Files with private keys: for their owner alone, and written whole or not at all."""

import os
import stat
from pathlib import Path

from mesh.errors import StackError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class PkiError(StackError):
    """A key or a certificate cannot be used; the text names the file."""


def write(path: Path, content: bytes) -> None:
    """Write the file for its owner alone; a crash leaves the old content or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    # With these rights from its first moment on: a later chmod would leave a gap.
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read(path: Path) -> bytes:
    """Return the content. Raises PkiError when anyone but the owner may read or write the file."""
    try:
        with path.open("rb") as file:
            if (rights := os.fstat(file.fileno()).st_mode) & _OTHERS:
                raise PkiError(
                    f"{path} is accessible to other accounts ({stat.filemode(rights)})",
                    fix=f"delete {path.parent}: its keys may be known; new ones are made at the next start",
                )
            return file.read()
    except OSError as error:
        raise PkiError(f"{path} cannot be read: {error.strerror}") from error
