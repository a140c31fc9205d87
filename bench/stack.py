"""The whole stack on this machine: how soon it is ready, what it weighs, and what one order costs each process.

`python -m bench.stack [ORDERS]` starts a stack of its own, measures, and stops it. CPU time survives a busy machine
better than wall-clock time; both are printed.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import psutil

COMMAND = Path(sys.executable).with_name("shopmesh")
PASSWORD = "a long enough password"
ADDRESS = {"recipient": "Ann", "line1": "1 Road", "city": "Bangkok", "postalCode": "10500", "countryCode": "TH"}


def main() -> None:
    orders = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory(prefix="shopmesh-bench-") as folder:
        Path(folder).chmod(0o711)  # or PostgreSQL, as another user, would have to keep its data elsewhere
        try:
            began = time.monotonic()
            shopmesh(folder, "up", "--detach", "--json", "--port-base", "0")
            print(f"first start, sample data included   {time.monotonic() - began:6.1f} s")
            shopmesh(folder, "down")
            began = time.monotonic()
            told = shopmesh(folder, "up", "--detach", "--json", "--port-base", "0")
            print(f"every later start                   {time.monotonic() - began:6.1f} s")
            status = shopmesh(folder, "status", "--json")
            buy(told["edge"], status["processes"], orders)
            weigh(status["processes"])
        finally:
            shopmesh(folder, "down")


def shopmesh(folder: str, *words: str) -> Any:
    done = subprocess.run([COMMAND, *words, "--state-dir", folder], capture_output=True, text=True, check=True)
    return json.loads(done.stdout) if "--json" in words else None


def tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_seconds(processes: list[dict[str, Any]]) -> dict[str, float]:
    """Return user and system time so far, of each process with its children."""
    used = {}
    for one in processes:
        times = [process.cpu_times() for process in tree(one["pid"])]
        used[one["name"]] = sum(each.user + each.system for each in times)
    return used


def buy(edge: str, processes: list[dict[str, Any]], orders: int) -> None:
    """One order after the other, each answered when it is CONFIRMED."""
    with httpx.Client(base_url=edge, timeout=30) as shop:
        sign_up(shop)
        products = shop.get("/v1/products", params={"pageSize": 50}).json()["products"]
        skus = [variant["sku"] for product in products for variant in product["variants"]]
        for warm_up in range(30):
            order(shop, skus[warm_up % len(skus)])
        before = cpu_seconds(processes)
        took = []
        for number in range(orders):
            if number % 200 == 0:
                sign_up(shop)  # the next customer, within the rate limit of one
            took.append(order(shop, skus[number % len(skus)]))
        took.sort()
        after = cpu_seconds(processes)
    print(f"CreateOrder to CONFIRMED, p50           {statistics.median(took) * 1000:6.1f} ms")
    print(f"                          p99           {took[int(len(took) * 0.99)] * 1000:6.1f} ms")
    for name in after:
        print(f"  CPU of {name:20} {(after[name] - before[name]) / orders * 1e6:14,.0f} us an order")
    print(f"  in all {'':20} {(sum(after.values()) - sum(before.values())) / orders * 1e6:14,.0f} us an order")


def sign_up(shop: httpx.Client) -> None:
    """Make the calls that follow as a new customer."""
    email = f"{uuid.uuid4().hex}@example.com"
    shop.headers.pop("authorization", None)
    shop.post("/v1/auth/register", json={"email": email, "password": PASSWORD, "requestId": uuid.uuid4().hex})
    signed_in = shop.post("/v1/auth/login", json={"email": email, "password": PASSWORD}).json()
    shop.headers["authorization"] = f"Bearer {signed_in['accessToken']}"


def customer(shop: httpx.Client) -> list[str]:
    """Register and sign in a customer, who makes all further requests; return what is on sale."""
    email = f"{uuid.uuid4().hex}@example.com"
    shop.post("/v1/auth/register", json={"email": email, "password": PASSWORD, "requestId": uuid.uuid4().hex})
    signed_in = shop.post("/v1/auth/login", json={"email": email, "password": PASSWORD}).json()
    shop.headers["authorization"] = f"Bearer {signed_in['accessToken']}"
    products = shop.get("/v1/products", params={"pageSize": 50}).json()["products"]
    return [variant["sku"] for product in products for variant in product["variants"]]


def order(shop: httpx.Client, sku: str) -> float:
    """Buy one, and return the seconds that it took."""
    began = time.perf_counter()
    answer = shop.post(
        "/v1/orders",
        headers={"idempotency-key": uuid.uuid4().hex},
        json={
            "lines": [{"sku": sku, "quantity": 1}],
            "currencyCode": "THB",
            "shippingAddress": ADDRESS,
            "paymentMethodToken": "tok_ok",
        },
    )
    took = time.perf_counter() - began
    if answer.json().get("state") != "ORDER_STATE_CONFIRMED":
        sys.exit(f"not CONFIRMED: {answer.status_code} {answer.text[:300]}")
    return took


def weigh(processes: list[dict[str, Any]]) -> None:
    """Resident memory: RSS counts shared pages once for each process, PSS once in all."""
    rss = pss = 0
    for one in processes:
        for process in tree(one["pid"]):
            memory = process.memory_full_info()
            rss, pss = rss + memory.rss, pss + memory.pss
    print(f"resident, all processes             {rss >> 20:6} MB (PSS {pss >> 20} MB)")


if __name__ == "__main__":
    main()
