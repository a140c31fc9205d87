import asyncio
import os
import signal
import socket
from contextlib import suppress

import pytest

from mesh.errors import StackError
from mesh.stack.log_rotation import LogRotation
from mesh.stack.ports import is_free
from mesh.stack.process import started_at
from mesh.stack.supervisor import Supervisor
from tests.integration.servers.programs import a_server, a_task, lines


class Stage:
    """A supervisor and the changes that it reported."""

    def __init__(self, folder, base):
        self.folder = folder
        self.base = base
        self.seen = []
        self._changed = asyncio.Event()

    def server(self, name, number, script="", **changes):
        return a_server(name, self.base + number, script, **changes)

    def supervise(self, *programs, **options):
        self.it = Supervisor(programs, self.log, self._note, **options)
        return self.it

    def log(self, name):
        return self.folder / f"{name}.log"

    def record(self, name):
        return next(one for one in self.it.records if one.name == name)

    def _note(self):
        for one in self.it.records:
            if not self.seen or (one.name, one.state) not in self.seen:
                self.seen.append((one.name, one.state))
        self._changed.set()

    async def until(self, condition, seconds=60):
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    @property
    def is_empty(self):
        return all(is_free(port) for port in range(self.base, self.base + 10))


@pytest.fixture
async def stage(tmp_path, ports):
    stage = Stage(tmp_path, ports.base)
    yield stage
    await stage.it.stop()
    assert stage.is_empty


async def test_a_program_starts_after_its_dependencies(stage):
    await stage.supervise(
        stage.server("last", 3, after=("middle",)),
        a_task("middle", "", after=("first",)),
        stage.server("first", 1),
    ).start()
    assert stage.seen.index(("first", "ready")) < stage.seen.index(("last", "starting"))
    assert [record.name for record in stage.it.records] == ["last", "first"]
    assert {record.state for record in stage.it.records} == {"ready"}


async def test_programs_stop_in_reverse_order(stage):
    await stage.supervise(stage.server("base", 1), stage.server("top", 2, after=("base",))).start()
    await stage.it.stop()
    assert stage.seen.index(("top", "stopped")) < stage.seen.index(("base", "stopping"))
    assert [record.pid for record in stage.it.records] == [None, None]


async def test_a_program_that_cannot_start_is_reported_and_its_dependents_never_start(stage):
    supervisor = stage.supervise(
        stage.server("good", 1),
        a_task("bad", "raise SystemExit('out of order')", after=("good",)),
        stage.server("needy", 2, after=("bad",)),
    )
    with pytest.raises(StackError, match="bad stopped with exit code 1") as it:
        await supervisor.start()
    assert it.value.log == "out of order"
    await supervisor.stop()
    assert stage.is_empty
    assert not stage.log("needy").exists()


async def test_a_killed_program_is_restarted_and_counted(stage):
    await stage.supervise(stage.server("it", 1)).start()
    first = stage.record("it").pid
    os.kill(first, signal.SIGKILL)
    await stage.until(lambda: stage.record("it").restarts == 1 and stage.record("it").state == "ready")
    assert stage.record("it").pid != first
    assert ("it", "restarting") in stage.seen


async def test_a_program_that_exits_is_restarted(stage):
    await stage.supervise(stage.server("it", 1, "signal.signal(signal.SIGALRM, lambda *_: sys.exit(0))")).start()
    os.kill(stage.record("it").pid, signal.SIGALRM)
    await stage.until(lambda: stage.record("it").restarts == 1)


async def test_children_of_a_killed_program_do_not_keep_it_from_restarting(stage):
    holder = (
        "import socket; s = socket.create_server(('127.0.0.1', port + 1))\n"
        "child = os.fork()\n"
        "if not child: signal.pause()\n"
        "s.close()"
    )
    await stage.supervise(stage.server("it", 1, holder)).start()
    for restarts in (1, 2):
        os.kill(stage.record("it").pid, signal.SIGKILL)
        await stage.until(lambda: stage.record("it").restarts == restarts and stage.record("it").state == "ready")  # noqa: B023


async def test_a_failed_restart_is_repeated_until_it_succeeds(stage, tmp_path):
    flag = tmp_path / "flag"
    await stage.supervise(stage.server("it", 1, f"os.path.exists({str(flag)!r}) and sys.exit('not now')")).start()
    flag.touch()
    os.kill(stage.record("it").pid, signal.SIGKILL)
    await stage.until(lambda: stage.record("it").restarts == 3)
    flag.unlink()
    await stage.until(lambda: stage.record("it").state == "ready")
    assert lines(stage.log("it")).count("not now") >= 2


async def test_a_stop_during_the_start_leaves_no_process(stage):
    never = stage.server("never", 2, "print(os.getpid(), flush=True); signal.pause()")
    supervisor = stage.supervise(stage.server("good", 1), never)
    starting = asyncio.create_task(supervisor.start())
    await stage.until(lambda: stage.record("never").pid is not None and stage.record("good").state == "ready")
    pid = stage.record("never").pid
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await supervisor.stop()
    assert started_at(pid) is None
    assert stage.is_empty


async def test_a_stop_during_a_restart_leaves_no_process(stage, tmp_path):
    flag = tmp_path / "flag"
    await stage.supervise(stage.server("it", 1, f"os.path.exists({str(flag)!r}) and signal.pause()")).start()
    flag.touch()
    os.kill(stage.record("it").pid, signal.SIGKILL)
    await stage.until(lambda: stage.record("it").restarts == 1 and stage.record("it").pid is not None)
    pid = stage.record("it").pid
    await stage.it.stop()
    assert started_at(pid) is None


async def test_a_kill_ends_programs_that_ignore_sigterm(stage):
    stubborn = stage.server("it", 1, "signal.signal(signal.SIGTERM, signal.SIG_IGN)", stop_seconds=60)
    await stage.supervise(stubborn).start()
    stopping = asyncio.create_task(stage.it.stop())
    await stage.until(lambda: stage.record("it").state == "stopping")
    stage.it.kill()
    async with asyncio.timeout(20):  # by itself it would give up after 30
        await stopping


async def test_a_program_that_hangs_is_killed_and_restarted(stage):
    async def answers():
        with socket.create_connection(("127.0.0.1", stage.base + 1), timeout=0.2) as connection:
            return connection.recv(1) == b""

    await stage.supervise(stage.server("it", 1, alive=answers), probe_seconds=0.05).start()
    first = stage.record("it").pid
    os.kill(first, signal.SIGSTOP)
    await stage.until(lambda: stage.record("it").restarts == 1 and stage.record("it").state == "ready")
    assert stage.record("it").pid != first


async def test_a_replaced_program_hands_over_without_a_gap(stage):
    script = (
        "create = socket.create_server\n"
        "socket.create_server = lambda where: create(where, reuse_port=True)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))"
    )
    await stage.supervise(stage.server("it", 1, script, hands_over=True)).start()
    first = stage.record("it").pid
    replacing = asyncio.create_task(stage.it.replace("it"))
    connected = 0
    while not replacing.done():
        # The kernel resets connections that wait in the queue of the one that stops; it never refuses any.
        with suppress(ConnectionResetError):
            _, writer = await asyncio.open_connection("127.0.0.1", stage.base + 1)
            writer.close()
            connected += 1
        await asyncio.sleep(0)
    await replacing
    assert connected
    assert started_at(first) is None
    assert (stage.record("it").state, stage.record("it").restarts) == ("ready", 0)
    second = stage.record("it").pid
    os.kill(second, signal.SIGKILL)  # the successor is supervised as its predecessor was
    await stage.until(lambda: stage.record("it").restarts == 1 and stage.record("it").state == "ready")


async def test_a_successor_that_does_not_start_leaves_the_running_one(stage, tmp_path):
    flag = tmp_path / "flag"
    script = f"os.path.exists({str(flag)!r}) and sys.exit('not now')"
    await stage.supervise(stage.server("it", 1, script, hands_over=True), stage.server("other", 2)).start()
    first = stage.record("it").pid
    flag.touch()
    with pytest.raises(StackError, match="it stopped with exit code 1 while starting"):
        await stage.it.replace("it")
    assert (stage.record("it").pid, stage.record("it").state) == (first, "ready")
    with pytest.raises(StackError, match="other is not a running service"):
        await stage.it.replace("other")


async def test_logs_are_rotated_while_they_are_written(stage):
    script = (
        "import threading\nthreading.Thread(target=lambda: [print('x' * 1000, flush=True) for _ in range(100)]).start()"
    )
    await stage.supervise(stage.server("it", 1, script), rotation=LogRotation(max_bytes=20_000, files=2)).start()
    older = stage.log("it").with_name("it.log.1")
    async with asyncio.timeout(20):
        while not older.exists() or stage.log("it").stat().st_size > 20_000:
            await asyncio.sleep(0.01)
    assert older.stat().st_size > 20_000
    assert not older.with_name("it.log.2").exists()
