import os
import resource
import signal
import subprocess
import sys

import psutil
import pytest

from chassis.testing import eventually
from mesh.errors import StackError
from mesh.stack.data_dirs import Account
from mesh.stack.ports import is_free
from mesh.stack.process import Process, Program, running, started_at, tail
from tests.integration.servers.programs import a_server, a_task, lines, python


@pytest.fixture
def port(ports):
    return ports.base


@pytest.fixture
def log(tmp_path):
    return tmp_path / "logs" / "it.log"


def is_gone(pid):
    return started_at(pid) is None


async def test_a_program_is_ready_inside_the_block_and_stopped_after_it(port, log):
    async with running(a_server("it", port), log) as process:
        assert process.running
        assert not is_free(port)
    assert not process.running
    assert is_free(port)


async def test_its_log_is_kept_over_several_starts(port, log):
    for _ in range(2):
        async with running(a_server("it", port), log):
            pass
    assert len([line for line in lines(log) if line.startswith("listening")]) == 2


async def test_a_program_that_exits_before_it_is_ready_is_reported_with_its_log(port, log):
    program = a_server("it", port, "sys.exit('no such table')", fix="migrate first")
    with pytest.raises(StackError, match="it stopped with exit code 1 while starting") as it:
        async with running(program, log):
            pass
    assert it.value.log == "no such table"
    assert it.value.fix == "migrate first"


async def test_a_program_that_is_killed_before_it_is_ready_is_reported_with_the_signal(port, log):
    with pytest.raises(StackError, match="it was killed by SIGKILL while starting"):
        async with running(a_server("it", port, "os.kill(os.getpid(), 9)"), log):
            pass


async def test_a_program_that_is_not_ready_in_time_is_ended(port, log):
    program, ours = a_server("it", port, "signal.pause()", start_seconds=0.5), psutil.Process()
    before = set(ours.children())
    with pytest.raises(StackError, match=r"it is not ready after 0\.5 s"):
        async with running(program, log):
            pass
    assert set(ours.children()) == before


async def test_a_program_that_cannot_be_run_is_named(log):
    with pytest.raises(StackError) as it:
        async with running(Program(name="it", argv=("/nowhere/envoy",)), log):
            pass
    assert "cannot run /nowhere/envoy: No such file or directory" in it.value.log


async def test_a_program_that_runs_once_is_ready_when_it_exits_with_0(log):
    async with running(a_task("it", "print('done')"), log):
        assert lines(log) == ["done"]


async def test_a_program_that_runs_once_and_fails_is_reported(log):
    with pytest.raises(StackError, match="it stopped with exit code 3"):
        async with running(a_task("it", "raise SystemExit(3)"), log):
            pass


async def test_a_program_that_ignores_sigterm_is_killed(port, log):
    program = a_server("it", port, "signal.signal(signal.SIGTERM, signal.SIG_IGN)", stop_seconds=0.2)
    async with running(program, log) as process:
        pid = process.pid
    assert is_gone(pid)


async def test_its_children_end_with_it(port, log):
    spawn = "child = os.fork() or signal.pause(); print(child, flush=True)"
    async with running(a_server("it", port, spawn), log):
        child = int(lines(log)[0])
        assert not is_gone(child)
    await eventually(lambda: is_gone(child))


async def test_a_signal_to_our_group_does_not_reach_it(port, log):
    async with running(a_server("it", port), log) as process:
        assert os.getpgid(process.pid) == process.pid


async def test_it_sees_only_its_own_environment(monkeypatch, log):
    monkeypatch.setenv("DATABASE_URL", "postgresql://admin")
    async with running(a_task("it", "import os; print(sorted(os.environ))", env={"MINE": "1"}), log):
        (seen,) = lines(log)
    assert "MINE" in seen
    assert "DATABASE_URL" not in seen


async def test_it_leaves_no_core_dump_and_no_open_files(log):
    script = "import os, resource; print(resource.getrlimit(resource.RLIMIT_CORE)[0], oct(os.umask(0)))"
    async with running(a_task("it", script), log):
        assert lines(log) == ["0 0o77"]


async def test_its_limit_of_open_files_is_raised(log):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    script = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        async with running(a_task("it", script), log):
            assert lines(log) == [str(min(hard, 65_536))]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
async def test_it_ends_when_we_are_killed(port, log, repository):
    ours = f"""
import asyncio, sys
from pathlib import Path
from mesh.stack.process import Process
from tests.integration.servers.programs import a_server
async def main():
    process = Process(a_server("it", {port}), Path({str(log)!r}))
    await process.start()
    await process.until_ready()
    print(process.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    child = subprocess.Popen([sys.executable, "-c", ours], stdout=subprocess.PIPE, cwd=repository, text=True)
    with child:
        pid = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
    await eventually(lambda: is_gone(pid))
    assert is_free(port)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_root_privileges_are_dropped_permanently(log):
    # Not Python, which may well lie where only root can go.
    argv = ("/bin/sh", "-c", "grep -E '^(Uid|Gid|Groups|CapPrm):' /proc/self/status")
    async with running(Program(name="it", argv=argv, account=Account(65_534, 65_533)), log):
        uids, gids, groups, rights = (line.split()[1:] for line in lines(log))
    assert set(uids) == {"65534"}
    assert set(gids) == {"65533"}
    assert groups == []
    assert int(rights[0], 16) == 0


async def test_a_process_may_be_started_again_after_its_end(port, log):
    process = Process(a_server("it", port), log)
    await process.start()
    await process.until_ready()
    first = process.pid
    os.kill(first, signal.SIGKILL)
    assert await process.until_ended() == -signal.SIGKILL
    await process.start()
    await process.until_ready()
    assert process.pid != first
    await process.stop()


def test_a_process_is_identified_by_its_start_time():
    child = subprocess.Popen(python("import signal; signal.pause()"))
    started = started_at(child.pid)
    assert started
    assert started == started_at(child.pid)
    child.kill()
    psutil.wait_procs([psutil.Process(child.pid)], timeout=0)
    child.wait()
    assert started_at(child.pid) is None


def test_the_end_of_a_log_is_shown_without_the_rest(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"first\nsecond\n\xff third\n")
    assert tail(log, 2) == "second\n� third"
    assert tail(tmp_path / "none") == ""


async def test_a_program_can_run_under_another_name_with_our_account(log, tmp_path):
    argv = ("/bin/sh", "-c", f"id -un && touch {tmp_path}/made")
    try:
        async with running(Program(name="it", argv=argv, account=Account(65_534, 65_534, alias=True)), log):
            assert lines(log) == ["nobody"]
    except StackError as error:
        if "user namespace" in error.log:
            pytest.skip(error.log)
        raise
    assert (tmp_path / "made").stat().st_uid == os.geteuid()
