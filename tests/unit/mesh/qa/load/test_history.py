"""The history of requests: one line for each, with its outcome."""

import json
from collections import Counter
from random import Random

import pytest

from mesh.qa.load.history import History
from mesh.qa.load.mixes import MIXES, Mix, endless
from mesh.qa.load.runner import Plan, summary_of
from mesh.qa.shop_client import OutcomeUnknown, RequestRejected

ORDER = {
    "orderId": "o",
    "userId": "u",
    "state": "ORDER_STATE_CONFIRMED",
    "reservationId": "r",
    "etag": "3",
    "lines": [{"sku": "A", "quantity": 2, "unitPrice": {"currencyCode": "THB", "units": "99", "nanos": 500000000}}],
}


async def answer(content):
    return content


async def refuse(error):
    raise error


@pytest.fixture
def lines(tmp_path):
    """A history, and what is in its file so far."""
    path = tmp_path / "deep" / "history.jsonl"
    with History.create(path) as history:
        yield history, lambda: [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_reply_is_recorded_as_ok_with_its_order(lines):
    history, read = lines
    reply = ORDER
    assert await history.record("order", answer(reply), key="k") == reply
    (line,) = read()
    assert (line["outcome"], line["order_id"], line["state"], line["key"]) == ("ok", "o", "CONFIRMED", "k")
    assert line["invoke"] <= line["complete"]
    assert (line["user_id"], line["version"], line["lines"]) == ("u", 3, [["A", 2, "99.500000000"]])
    assert history.orders == {"CONFIRMED": 1}


async def test_a_reply_with_stock_or_a_price_is_recorded_with_what_it_says(lines):
    history, read = lines
    stock = {"sku": "A", "available": 5, "locations": [{"locationId": "here", "available": 5}]}
    await history.record("stock", answer(stock), session="one")
    await history.record("price", answer({"productId": "p", "etag": "4", "variants": [{"sku": "A"}]}))
    first, second = read()
    assert (first["session"], first["stock"]) == ("one", [["A", "here", 5]])
    assert (second["skus"], second["version"]) == (["A"], 4)


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (RequestRejected(400, {"message": "no"}), "fail", "HTTP 400"),
        (OutcomeUnknown("HTTP 503"), "unknown", "HTTP 503"),
    ],
)
async def test_a_rejection_is_recorded_as_fail_and_a_timeout_as_unknown(lines, error, outcome, reason):
    history, read = lines
    with pytest.raises(type(error)):
        await history.record("order", refuse(error))
    assert [(line["outcome"], line["reason"]) for line in read()] == [(outcome, reason)]
    assert history.reasons == {reason: 1}


async def test_a_summary_counts_requests_and_ranks_their_durations(lines):
    history, _ = lines
    for _ in range(3):
        await history.record("list", answer({}))
    history.seconds["list"] = [0.004, 0.001, 0.002]
    told = summary_of(Plan(mix=Mix.browse, concurrency=2, seconds=9), history, 1.5)
    assert (told["operations"], told["per_second"], told["mix"]) == (3, 2.0, "browse")
    assert told["requests"]["list"] == {
        "count": 3,
        "ok": 3,
        "p50_ms": 2.0,
        "p90_ms": 4.0,
        "p99_ms": 4.0,
        "p100_ms": 4.0,
    }


def test_every_mix_has_weights():
    assert set(MIXES) == set(Mix)
    assert all(share > 0 for shares in MIXES.values() for share in shares.values())


def test_every_round_has_each_action_as_often_as_its_weight():
    actions = endless(Mix.trouble, Random(1))
    rounds = [[next(actions) for _ in range(sum(MIXES[Mix.trouble].values()))] for _ in range(2)]
    assert [Counter(one) for one in rounds] == [Counter(MIXES[Mix.trouble])] * 2
    assert rounds[0] != rounds[1]
    assert next(endless(Mix.trouble, Random(1))) is rounds[0][0]
