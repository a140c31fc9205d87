import pytest

from mesh.stack.databases import ServiceDatabase


def a_database(server: str) -> ServiceDatabase:
    return ServiceDatabase(service="svc_order", server=server, password="pa/ss", owner_password="ow@ner")


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("postgresql://postgres:x@/postgres?host=/run/pg", "postgresql://svc_order:pa%2Fss@/shop_order?host=/run/pg"),
        ("postgresql://root@db.example:5433/postgres", "postgresql://svc_order:pa%2Fss@db.example:5433/shop_order"),
        (
            "postgresql://db/postgres?sslmode=require&user=root&password=x",
            "postgresql://svc_order:pa%2Fss@db/shop_order?sslmode=require",
        ),
    ],
)
def test_a_service_connects_to_the_same_server_as_itself(server, expected):
    assert a_database(server).url == expected


def test_the_owner_connects_as_another_role():
    assert a_database("postgresql://a:b@c/d").owner_url == "postgresql://svc_order_owner:ow%40ner@c/shop_order"


def test_passwords_stay_out_of_the_representation():
    shown = repr(a_database("postgresql://postgres:secret@/postgres"))
    assert not [word for word in ("pa/ss", "ow@ner", "secret") if word in shown]
