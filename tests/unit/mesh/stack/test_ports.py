import socket

import pytest

from mesh.errors import StackError
from mesh.stack.ports import SPAN, Ports, free_base, is_free, require_free


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def port_of(server: socket.socket) -> int:
    return server.getsockname()[1]


def test_every_process_of_a_stack_has_its_own_port():
    ports = Ports(8000)
    named = [ports.entry, ports.edge, ports.reflection, ports.inner, ports.payment_provider, ports.courier]
    named += [ports.kafka, ports.kafka_controller, ports.held, *(ports.service(number) for number in range(39))]
    named += [ports.metrics(ports.service(number)) for number in range(39)]
    assert len(set(named)) == len(named)
    assert all(8000 <= port < 8000 + SPAN for port in named)


def test_the_entry_port_of_the_default_range_is_8080():
    assert Ports(8000).entry == 8080


def test_more_service_processes_than_ports_are_an_error():
    with pytest.raises(StackError, match="39 service processes"):
        Ports(8000).service(39)


def test_a_port_in_use_is_reported_with_its_process(listener):
    with pytest.raises(
        StackError, match=rf"port {port_of(listener)}, which ingress needs, is in use by .*\(pid \d+\)"
    ) as it:
        require_free({"ingress": port_of(listener)})
    assert "--port-base" in it.value.fix


def test_a_port_with_connections_in_time_wait_is_free():
    port = free_base()  # not one that another connection may take meanwhile
    with socket.create_server(("127.0.0.1", port)) as server:
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # the server's side closes first, so the connection lingers on its port
        client.close()
    assert is_free(port)


def test_a_held_range_is_not_given_to_another_stack():
    ports = Ports(free_base())
    with ports.hold():
        assert not is_free(ports.held)
        with pytest.raises(StackError, match="belong to another stack"), ports.hold():
            pass
    with ports.hold():
        pass


def test_a_free_range_is_free_as_a_whole():
    base = free_base()
    assert all(is_free(port) for port in range(base, base + SPAN))
