"""Which integration tests `make quick` adds to the unit and contract tests."""

import subprocess
from pathlib import Path

import pytest

from tests import touched


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("svc_order/service.py", "tests/integration/svc_order"),
        ("svc_user/migrations/0001_create_accounts.sql", "tests/integration/svc_user"),
        ("protos/shop/payment/v1/payment_service.proto", "tests/integration/svc_payment"),
        ("tests/integration/svc_catalog/conftest.py", "tests/integration/svc_catalog"),
        ("tests/unit/svc_inventory/test_domain.py", "tests/integration/svc_inventory"),
    ],
)
def test_a_changed_file_of_a_service_adds_the_tests_of_that_service(path: str, folder: str) -> None:
    assert touched.folders([path, path]) == [folder]


@pytest.mark.parametrize("path", ["README.md", "chassis/app.py", "protos/shop/type/v1/address.proto", "svc_gone/x.py"])
def test_a_file_of_no_service_adds_nothing(path: str) -> None:
    assert touched.folders([path]) == []


def test_committed_uncommitted_and_new_files_are_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(touched, "ROOT", tmp_path)

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-b", "main")
    for name in ("same", "edited", "committed"):
        (tmp_path / name).write_text("before")
    git("add", ".")
    git("commit", "-m", "first")
    git("checkout", "-b", "topic")
    (tmp_path / "committed").write_text("after")
    git("commit", "-am", "second")
    (tmp_path / "edited").write_text("after")
    (tmp_path / "new").write_text("after")
    assert sorted(touched.changed_files(touched.branch_point())) == ["committed", "edited", "new"]
