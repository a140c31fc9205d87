import json
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex

import pytest

from mesh.errors import StackError
from mesh.stack.secrets import Secrets
from mesh.stack.state import ProcessRecord, Record, State


@pytest.fixture
def state(tmp_path):
    state = State(tmp_path / "stack")
    state.create()
    return state


def a_record(**changes):
    supervisor = ProcessRecord(name="supervisor", pid=1, started="2", state="ready")
    process = ProcessRecord(name="svc_order", pid=3, state="ready", address="127.0.0.1:1", restarts=4, started="5")
    services = {"svc_order": "127.0.0.1:1"}
    return Record(
        **{
            "phase": "ready",
            "supervisor": supervisor,
            "edge": "http://127.0.0.1:80",
            "grpc": "127.0.0.1:80",
            "services": services,
            "run": "/nowhere",
            "processes": [process],
        }
        | changes
    )


def test_a_record_is_read_as_it_was_written(state):
    state.write(a_record())
    assert state.read() == a_record()


def test_there_is_no_record_before_the_first(state):
    assert state.read() is None


def test_the_public_form_of_a_process_has_exactly_the_documented_fields():
    (process,) = a_record().public()["processes"]
    assert process == {
        "name": "svc_order",
        "pid": 3,
        "state": "ready",
        "address": "127.0.0.1:1",
        "metrics": "",
        "restarts": 4,
    }


def test_a_secret_is_the_same_at_every_start_and_differs_between_stacks(state, tmp_path):
    other = State(tmp_path / "other")
    other.create()
    first = Secrets(state).key("courier")
    assert Secrets(State(state.folder)).key("courier") == first
    assert Secrets(other).key("courier") != first


def test_concurrent_requests_for_a_secret_generate_it_once(state):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: State(state.folder).secret(f"name-{number % 4}", token_hex), range(64)))
    assert len(set(made)) == 4


def test_each_use_has_a_secret_of_its_own(state):
    secrets = Secrets(state)
    made = [secrets.database("svc_order"), secrets.database_owner("svc_order"), secrets.key("courier")]
    made += [
        secrets.webhook("courier"),
        secrets.webhook("payment_provider"),
        secrets.random_key("svc_user.signing_key"),
    ]
    assert len(set(made)) == len(made)


def test_webhook_secrets_have_the_form_of_standard_webhooks(state):
    assert Secrets(state).webhook("courier").startswith("whsec_")


def test_files_with_secrets_are_readable_by_their_owner_alone(state):
    assert Secrets(state).admin_password
    state.write(a_record())
    for name in ("secrets.json", "stack.json"):
        assert stat.S_IMODE((state.folder / name).stat().st_mode) == 0o600


def test_a_file_is_replaced_atomically(state):
    state.write(a_record())
    state.write(a_record(phase="stopped"))
    assert json.loads((state.folder / "stack.json").read_text())["phase"] == "stopped"
    assert not list(state.folder.glob("*.new"))


def test_a_folder_has_one_supervisor_at_a_time(state):
    assert not state.running
    with state.hold():
        assert state.running
        with pytest.raises(StackError, match="already running") as it, State(state.folder).hold():
            pass
        assert "shopmesh down" in it.value.fix
    assert not state.running


def test_a_check_whether_a_stack_runs_does_not_keep_one_from_starting(state):
    done = threading.Event()

    def look():
        while not done.is_set():
            assert state.running in (True, False)

    with ThreadPoolExecutor() as pool:
        lookers = [pool.submit(look) for _ in range(4)]
        try:
            for _ in range(300):
                with state.hold():
                    pass
        finally:
            done.set()
    for looker in lookers:
        looker.result()


def test_a_folder_that_cannot_be_created_is_reported_with_a_fix(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="cannot keep a stack in") as it:
        State(tmp_path / "file" / "stack").create()
    assert "--state-dir" in it.value.fix


def test_a_folder_of_something_else_is_not_changed(tmp_path):
    (tmp_path / "mine").write_text("precious")
    tmp_path.chmod(0o755)
    with pytest.raises(StackError, match="is used for something else"):
        State(tmp_path).create()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_an_existing_state_folder_is_reused(state):
    assert state.exists
    State(state.folder).create()


def test_the_default_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert State.default_folder() == tmp_path / "shopmesh"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert State.default_folder() == tmp_path / "home" / ".local" / "state" / "shopmesh"


def test_no_other_account_can_open_the_files_that_are_locked(state):
    """Flock needs only a file that can be opened for reading: another account could block every start."""
    state.secret("one", lambda: "x")
    for name in ("lock", "secrets.lock", "secrets.json"):
        assert stat.S_IMODE((state.folder / name).stat().st_mode) == 0o600
