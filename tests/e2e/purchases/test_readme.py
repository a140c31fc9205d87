"""The README's tour, line by line, as a new user types it."""

import os
import re
import shutil
import subprocess

import pytest

from mesh.stack.secrets import Secrets

BLOCK = re.compile(r"<!-- tour( grpcurl)? -->\n```bash\n(.*?)```", re.DOTALL)


def walk(repository, stack, *, with_grpcurl):
    """Run the tour in one shell, and return what it printed."""
    blocks = BLOCK.findall((repository / "README.md").read_text())
    script = "\n".join(lines for grpcurl, lines in blocks if with_grpcurl or not grpcurl)
    script = script.replace("--max-time 3 ", "--max-time 10 ")  # a busy machine may take longer than a reader's
    environment = {"SHOP": stack.info["edge"], "ADMIN_PASSWORD": Secrets(stack.state).admin_password}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_command_of_the_tour_prints_what_the_readme_shows(repository, stack):
    output = walk(repository, stack, with_grpcurl=False)
    for word in (
        '"sku":"BEANS-NAN-VALLEY-250"',
        '"email":"ann@example.com"',
        '"state":"ORDER_STATE_CONFIRMED","paymentState":"ORDER_PAYMENT_STATE_AUTHORIZED"',
        '"name":"confirm_reservation","state":"SAGA_STEP_STATE_DONE"',
        '"state":"SHIPMENT_STATE_PICKED_UP"',
        '"state":"ORDER_STATE_SHIPPED"',
        "lines[0].quantity: must be greater than or equal to 1",
    ):
        assert word in output


@pytest.mark.foreign
@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="grpcurl is not installed")
def test_grpcurl_reaches_the_services_by_the_same_address(repository, stack):
    output = walk(repository, stack, with_grpcurl=True)
    assert "shop.order.v1.OrderService" in output
    assert '"state": "ORDER_STATE_' in output
