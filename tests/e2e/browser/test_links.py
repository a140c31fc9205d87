"""schemathesis against the running shop, from the document that the shop itself serves: calls chained by its links."""

import re
import uuid
from collections import defaultdict
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import load_all_checks

from tests.e2e.browser.conftest import Shop

PASSWORD = "correct horse battery"
#: What a chain must never meet, whatever it sends.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


def signed_in(url: str) -> str:
    """The token of a new customer."""
    email = f"{uuid.uuid4().hex}@example.com"
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        account = {"email": email, "password": PASSWORD, "requestId": uuid.uuid4().hex}
        client.post("/v1/auth/register", json=account).raise_for_status()
        tokens = client.post("/v1/auth/login", json={"email": email, "password": PASSWORD}).raise_for_status()
        return str(tokens.json()["accessToken"])


def on_sale(url: str) -> dict[str, Any]:
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        return dict(client.get("/v1/products?pageSize=1").raise_for_status().json()["products"][0]["variants"][0])


def order_of(variant: dict[str, Any]) -> dict[str, Any]:
    """A body of CreateOrder for one piece of a variant."""
    recipient = {
        "recipient": "Ada",
        "line1": "1 Road",
        "city": "Bangkok",
        "postalCode": "10110",
        "countryCode": "TH",
        "phone": "+66812345678",
    }
    return {
        "requestId": uuid.uuid4().hex,
        "lines": [{"sku": variant["sku"], "quantity": 1}],
        "currencyCode": variant["price"]["currencyCode"],
        "shippingAddress": recipient,
        "paymentMethodToken": "tok_ok",
    }


def test_calls_chained_by_links_meet_nothing_that_the_document_does_not_say(shop: Shop) -> None:
    token, variant = signed_in(shop.url), on_sale(shop.url)
    schema = schemathesis.openapi.from_url(f"{shop.url}/openapi.json").include(tag="OrderService")
    schema = schema.exclude(operation_id_regex="Watch|Saga")
    load_all_checks()
    checks = [check for check in schemathesis.checks.CHECKS.get_all() if check.__name__ in CHECKS]
    assert len(checks) == len(CHECKS)
    answers: dict[str, set[int]] = defaultdict(set)

    class Shopping(schema.as_state_machine()):  # type: ignore[misc]
        """A customer whose orders are real, and whose every request has a key of its own."""

        def before_call(self, case: schemathesis.Case) -> None:
            if case.operation.label == "POST /v1/orders":
                case.body["lines"] = [{"sku": variant["sku"], "quantity": 1}]
                case.body["currencyCode"] = variant["price"]["currencyCode"]
                case.body["shippingAddress"].update(countryCode="TH", postalCode="10110")
                case.body["paymentMethodToken"] = "tok_ok"
                case.body.pop("slotId", None)
                case.body.pop("expectedTotal", None)
            if isinstance(case.body, dict) and "requestId" in case.body:
                case.body["requestId"] = uuid.uuid4().hex

        def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, Any]:  # noqa: ARG002
            return {"headers": {"authorization": f"Bearer {token}"}, "timeout": 20}

        def after_call(self, response: schemathesis.Response, case: schemathesis.Case) -> None:
            answers[case.operation.label].add(response.status_code)

        def validate_response(self, response: schemathesis.Response, case: schemathesis.Case, **_: Any) -> None:
            case.validate_response(response, checks=checks)

    Shopping.run(
        settings=settings(
            max_examples=25,
            stateful_step_count=6,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
    )

    assert 200 in answers["POST /v1/orders"]
    followed = {label for label, statuses in answers.items() if "{orderId}" in label and 200 in statuses}
    assert followed, f"no chain followed a link of a placed order: {dict(answers)}"


def test_every_link_of_a_placed_order_leads_to_that_order(shop: Shop) -> None:
    token, variant = signed_in(shop.url), on_sale(shop.url)
    with httpx.Client(
        base_url=shop.url, headers={"authorization": f"Bearer {token}"}, timeout=20, trust_env=False
    ) as client:
        paths = client.get("/openapi.json").raise_for_status().json()["paths"]
        routes = {
            operation["operationId"]: (method, path)
            for path, methods in paths.items()
            for method, operation in methods.items()
            if isinstance(operation, dict)
        }
        placed = client.post("/v1/orders", json=order_of(variant))
        order_id = placed.raise_for_status().json()["orderId"]
        links = paths["/v1/orders"]["post"]["responses"]["200"]["links"].values()
        assert all(link["parameters"] == {"orderId": "$response.body#/orderId"} for link in links)
        followed = {}
        for link in links:
            method, path = routes[link["operationId"]]
            body = None if method == "get" else {"requestId": uuid.uuid4().hex}
            answer = client.request(method, path.replace("{orderId}", order_id), json=body)
            assert answer.status_code != 404, f"{link['operationId']} does not know the order"
            followed[link["operationId"]] = answer.status_code
    for operation in ("OrderService_GetOrder", "OrderService_GetOrderTimeline", "OrderService_CancelOrder"):
        assert followed[operation] == 200, f"{operation} refused a link of the order just placed: {followed}"


def test_no_operation_fails_on_a_deeply_nested_body(shop: Shop) -> None:
    schema = schemathesis.openapi.from_url(f"{shop.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    with httpx.Client(base_url=shop.url, timeout=20, trust_env=False) as client:
        for operation in (it for it in operations if len(it.body)):
            path = re.sub(r"\{[^}]*\}", "x", operation.path)
            for body in ("[" * 16_000, '{"a":' * 16_000):
                response = client.request(
                    operation.method, path, content=body, headers={"content-type": "application/json"}
                )
                assert 400 <= response.status_code < 500, operation.label
