"""A load on a stack whose processes fail, and the verdict at its end."""

import asyncio
import json
import signal
import subprocess
from contextlib import contextmanager
from functools import partial

from chassis import testing
from tests.e2e.stacks import COMMAND

#: What was killed may take its time to come back.
patiently = partial(testing.eventually, seconds=120)


class Shopping:
    """A load that runs until it is stopped."""

    def __init__(self, child, history):
        self._child = child
        self.history = history

    def end(self):
        """Let the shoppers complete their current action, and return the summary."""
        self._child.send_signal(signal.SIGINT)
        output, complaint = self._child.communicate(timeout=120)
        assert self._child.returncode == 0, complaint
        return json.loads(output)


@contextmanager
def shopping(stack, folder, *arguments):
    history = folder / "history.jsonl"
    arguments = ("load", "--json", "--seconds", "290", "--history", str(history), *arguments)
    with subprocess.Popen(
        [COMMAND, *arguments], env=stack.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            yield Shopping(child, history)
        finally:
            child.kill()


def record_of(stack, name):
    return next(one for one in stack.state.read().processes if one.name == name)


async def back(stack, name, restarts):
    """Wait until a process was restarted so often and is ready."""

    def is_back():
        one = record_of(stack, name)
        return one.restarts >= restarts and one.state == "ready"

    await patiently(is_back)


async def all_is_well(stack, history):
    verdict = await asyncio.to_thread(stack.run, "verify", "--json", "--wait", "90", "--history", str(history))
    assert verdict.stdout, verdict.stderr
    broken = {one["name"]: one["rows"] for one in json.loads(verdict.stdout)["checks"] if one["rows"]}
    assert broken == {}
    assert verdict.returncode == 0
