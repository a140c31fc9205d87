"""What a reply says of the shop's state, as the history stores it."""

from typing import Any

from mesh.qa.shop_client import state


def observed(reply: dict[str, Any]) -> dict[str, Any]:
    """Return the ids, states, versions, prices and stock that a reply contains."""
    line: dict[str, Any] = {"order_id": reply["orderId"]} if "orderId" in reply else {}
    if "reservationId" in reply:  # an order
        line |= {"state": state(reply), "version": int(reply["etag"])}
        line |= {"user_id": reply["userId"], "lines": _lines(reply)}
    elif "returnId" in reply:
        line["return_id"] = reply["returnId"]
    elif "shipmentId" in reply:
        line |= {"shipment_id": reply["shipmentId"], "shipment_state": state(reply)}
    elif "variants" in reply:
        line |= {"version": int(reply["etag"]), "skus": [variant["sku"] for variant in reply["variants"]]}
    elif "locations" in reply:
        line["stock"] = [[reply["sku"], one["locationId"], one["available"]] for one in reply["locations"]]
    return line


def _lines(order: dict[str, Any]) -> list[list[Any]]:
    return [[line["sku"], line["quantity"], _amount(line["unitPrice"])] for line in order["lines"]]


def _amount(money: dict[str, Any]) -> str:
    """Return an amount as text that is equal for equal amounts."""
    return f"{int(money['units'])}.{int(money['nanos']):09}"
