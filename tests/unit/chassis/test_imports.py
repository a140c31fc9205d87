"""The names of the chassis: each is imported when it is first used, so that settings can be read without a server."""

import subprocess
import sys

import chassis
from mesh.services import SERVICES

_SERVER = ("asyncpg", "google.protobuf", "grpc", "prometheus_client", "redis", "uvloop")


def test_every_name_of_the_chassis_is_there():
    assert [name for name in chassis.__all__ if getattr(chassis, name, None) is None] == []


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(chassis, "nonsense")


def test_the_settings_of_all_services_are_read_without_a_server():
    imports = "".join(f"import {service}.settings;" for service in SERVICES)
    code = f"import sys; {imports} print([name for name in {_SERVER} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
