"""The state folder of a stack: its record, secrets, logs and data, private to its user."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mesh.errors import StackError

Phase = Literal["starting", "ready", "stopping", "stopped", "failed"]


@dataclass(kw_only=True)
class ProcessRecord:
    """The state of one supervised process, as `status` shows it."""

    name: str
    pid: int | None = None
    state: str = "waiting"
    address: str = ""
    metrics: str = ""
    restarts: int = 0
    #: The start time, which with the pid identifies the process, also after the pid is reused.
    started: str | None = None


@dataclass(kw_only=True)
class Record:
    """The state of a stack, written by its supervisor and read by every command."""

    phase: Phase
    supervisor: ProcessRecord
    edge: str
    grpc: str | None
    services: dict[str, str]
    #: The folder of its Unix sockets.
    run: str
    processes: list[ProcessRecord] = field(default_factory=list)
    #: The programs that are being started or stopped, including those that run once.
    busy: list[str] = field(default_factory=list)
    problem: str = ""

    def public(self) -> dict[str, Any]:
        """Return the part that `--json` prints."""
        processes = [{k: v for k, v in asdict(one).items() if k != "started"} for one in self.processes]
        return {
            "state": self.phase,
            "edge": self.edge,
            "grpc": self.grpc,
            "services": self.services,
            "processes": processes,
        }


class State:
    """The folder of one stack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @classmethod
    def default_folder(cls) -> Path:
        """Return the user's state folder. Raises StackError without a home folder."""
        if base := os.environ.get("XDG_STATE_HOME"):
            return Path(base, "shopmesh")
        try:
            return Path.home() / ".local" / "state" / "shopmesh"
        except RuntimeError:
            raise StackError(
                "there is no home folder to keep a stack in", fix="name a folder with --state-dir"
            ) from None

    def create(self) -> None:
        """Create the folder. Raises StackError when it is not writable, or used for something else."""
        try:
            if not self.folder.exists():
                # PostgreSQL does not run as root: its account must be able to traverse the folder.
                self.folder.mkdir(0o711 if os.geteuid() == 0 else 0o700, parents=True)
            if any(self.folder.iterdir()) and not self.exists:
                raise StackError(
                    f"{self.folder} is used for something else", fix="name another folder with --state-dir"
                )
            self._lock.touch(mode=0o600)
            self._lock.chmod(0o600)  # others could lock a file that they can open
            (self.folder / "logs").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StackError(
                f"cannot keep a stack in {self.folder}: {error.strerror}", fix="name another folder with --state-dir"
            ) from None

    @property
    def exists(self) -> bool:
        """Whether this is the folder of a stack, running or not."""
        return self._lock.is_file()

    @property
    def _lock(self) -> Path:
        return self.folder / "lock"

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.folder / "logs" / f"{name}.log"

    @property
    def scrapes(self) -> Path:
        """The folder of the metrics that its processes had in the last minutes."""
        return self.folder / "scrapes"

    @property
    def running(self) -> bool:
        """Whether a supervisor has the lock of this folder."""
        try:
            with self._lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def require_stopped(self) -> None:
        """Raise StackError when a stack runs in this folder."""
        if self.running:
            raise StackError(
                f"a stack is already running in {self.folder}",
                fix="see `shopmesh status`, stop it with `shopmesh down`, or start another with --state-dir",
            )

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock of this folder's one supervisor; the kernel releases it when the process ends."""
        with self._lock.open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    self.require_stopped()  # `running` of another process may have had the lock for a moment
            yield

    def read(self) -> Record | None:
        """Return the last record; None when there is none."""
        try:
            raw = json.loads((self.folder / "stack.json").read_text())
        except FileNotFoundError:
            return None
        processes = [ProcessRecord(**one) for one in raw.pop("processes")]
        return Record(**raw | {"supervisor": ProcessRecord(**raw["supervisor"]), "processes": processes})

    @property
    def restart_request(self) -> Path:
        """The file that names the process which `shopmesh restart` asks the supervisor to replace."""
        return self.folder / "restart"

    def write(self, record: Record) -> None:
        """Replace the record."""
        self._write("stack.json", asdict(record))

    def secret(self, name: str, make: Callable[[], str]) -> str:
        """Return the secret of this name; the first call generates it, also when several run at the same time."""
        path = self.folder / "secrets.json"
        with os.fdopen(os.open(self.folder / "secrets.lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
            os.fchmod(lock.fileno(), 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
            if name not in known:
                known[name] = make()
                self._write("secrets.json", known)
        return known[name]

    def _write(self, name: str, content: dict[str, Any]) -> None:
        """Replace a file atomically; only the user can read it."""
        part = self.folder / f"{name}.new"
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(content, file, indent=1)
        part.replace(self.folder / name)
