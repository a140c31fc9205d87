import os
import stat
import tempfile
from pathlib import Path

import pytest

from mesh.stack.data_dirs import Account, data_dir_for, reachable, remove_data_dir, socket_folder

NOBODY = Account(65_534, 65_534)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as somebody else")


@pytest.fixture
def open_folder():
    """A folder that every account can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_every_path_is_reachable_for_our_own_account(tmp_path):
    assert reachable(tmp_path, None)


def test_a_file_below_a_closed_folder_is_unreachable(open_folder):
    file = open_folder / "a" / "b" / "file"
    file.parent.mkdir(parents=True)
    file.touch(mode=0o644)
    assert reachable(file, NOBODY)
    file.parents[1].chmod(0o700)
    assert not reachable(file, NOBODY)


def test_a_file_without_read_permission_is_unreachable(open_folder):
    file = open_folder / "file"
    file.touch()
    file.chmod(0o600)
    assert not reachable(file, NOBODY)


def test_permissions_of_the_group_apply_to_its_members_only(open_folder):
    file = open_folder / "file"
    file.touch()
    file.chmod(0o640)
    group = file.stat().st_gid
    assert reachable(file, Account(65_534, group))
    assert not reachable(file, Account(65_534, group + 1))


def test_sockets_are_in_a_private_folder_with_a_short_path_that_is_deleted_afterwards():
    with socket_folder(None) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(str(folder / "postgres" / ".s.PGSQL.5432.lock")) < 107
        (folder / "socket").touch()
    assert not folder.exists()


def test_sockets_avoid_a_temporary_folder_with_a_long_name(monkeypatch, tmp_path):
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with socket_folder(None) as folder:
        assert not folder.is_relative_to(long)


@needs_root
def test_sockets_avoid_a_temporary_folder_that_the_account_cannot_enter(monkeypatch, open_folder):
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(closed))
    with socket_folder(NOBODY) as folder:
        assert reachable(folder.parent, NOBODY)
        assert not folder.is_relative_to(closed)


def test_data_are_in_the_folder_itself_when_the_account_can_enter_it(open_folder):
    assert data_dir_for(open_folder / "data", NOBODY) == open_folder / "data"


@needs_root
def test_data_of_a_closed_folder_are_elsewhere_and_deleted_with_it(open_folder):
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    home = data_dir_for(closed / "data", NOBODY)
    assert not home.is_relative_to(closed)
    assert data_dir_for(closed / "data", NOBODY) == home  # the next start finds the same
    remove_data_dir(closed / "data")
    assert not home.exists()
    assert not (closed / "data").exists()
