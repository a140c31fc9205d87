"""One shop with its sample data, for all purchases: each test brings customers and products of its own."""

import uuid
from dataclasses import dataclass

import pytest
import pytest_asyncio

from chassis.rpc.client import Clients
from chassis.testing import as_user
from mesh.qa.sample_data.people import courier, staff
from mesh.qa.shop_client import ShopApiClient, new_key
from mesh.qa.simulator_client import SimulatorClient
from mesh.stack.secrets import Secrets
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from tests.e2e.stacks import Cli, cleaned

PASSWORD = "a long enough password"
ADDRESS = {
    "recipient": "Malee Srisai",
    "line1": "88 Charoen Krung Road",
    "city": "Bangkok",
    "postalCode": "10500",
    "countryCode": "TH",
}


@pytest.fixture(scope="package")
def stack(tmp_path_factory):
    with cleaned(Cli(tmp_path_factory.mktemp("shop"))) as cli:
        cli.info = cli.json("up", "--detach", "--port-base", "0")
        yield cli


@pytest_asyncio.fixture
async def anonymous(stack):
    """The JSON edge, without a user."""
    async with ShopApiClient.open(stack.info["edge"], connections=40) as front:
        yield front


@dataclass
class Customer:
    """A new customer, through the JSON edge and by gRPC."""

    front: ShopApiClient

    def as_user(self):
        """Make the gRPC calls of a block as this customer."""
        return as_user(self.front.authorization)


@dataclass
class Stubs:
    """The services as gRPC clients reach them: through the ingress."""

    inventory: InventoryServiceStub
    orders: OrderServiceStub
    payments: PaymentServiceStub


@pytest_asyncio.fixture
async def stubs(stack):
    clients = Clients(f"*={stack.info['grpc']}", "edge")
    yield Stubs(
        inventory=clients.stub(InventoryServiceStub),
        orders=clients.stub(OrderServiceStub),
        payments=clients.stub(PaymentServiceStub),
    )
    await clients.close()


@pytest.fixture
def newcomer(anonymous):
    """Make customers."""

    async def make():
        email = f"{uuid.uuid4().hex}@example.com"
        account = {"email": email, "password": PASSWORD, "requestId": new_key()}
        await anonymous.post("/v1/auth/register", account)
        return Customer(await anonymous.sign_in(email, PASSWORD))

    return make


@pytest_asyncio.fixture
async def customer(newcomer):
    return await newcomer()


@dataclass
class Market:
    """The shop as staff and courier use it, with products of the test's own."""

    anonymous: ShopApiClient
    staff: ShopApiClient
    courier: ShopApiClient
    provider: SimulatorClient
    #: A place to be delivered at, in Bangkok.
    slot: dict[str, object]

    async def new_sku(self, units):
        """Create a product with stock, at 100.00 THB each, and return its SKU."""
        sku = f"E2E-{uuid.uuid4().hex[:12]}"
        price = {"currencyCode": "THB", "units": 100}
        variant = {"sku": sku, "price": price, "taxRateBasisPoints": 700, "weightGrams": 500}
        await self.staff.post(f"/v1/products?requestId={new_key()}", {"name": f"Thing {sku}", "variants": [variant]})
        await self.staff.put(f"/v1/stock/{sku}/locations/bangkok", {"onHand": units, "requestId": new_key()})
        return sku

    async def available(self, sku):
        return (await self.anonymous.get(f"/v1/stock/{sku}"))["available"]

    async def places(self):
        """Return the free places of the slot."""
        found = await self.anonymous.get("/v1/delivery/slots", zoneId=self.slot["zoneId"], pageSize=100)
        return next(one["available"] for one in found["slots"] if one["slotId"] == self.slot["slotId"])

    async def payments(self, order):
        """Return the status and captured amount of an order's payments at the provider."""
        found = await self.provider.get("/v1/payments", reference=order["paymentId"])
        return [(one["status"], one["amount_captured"]) for one in found["data"]]


@pytest_asyncio.fixture
async def market(stack, anonymous):
    secrets = Secrets(stack.state)
    people = (staff(secrets), courier(secrets))
    slots = await anonymous.get("/v1/delivery/slots", zoneId="bangkok", pageSize=100)
    return Market(
        anonymous,
        *[await anonymous.sign_in(person.email, person.password) for person in people],
        SimulatorClient.of(stack.state.read(), secrets, "payment_provider"),
        slots["slots"][-1],  # the first one may close at any moment
    )


def wish(sku, quantity=1, **changes):
    """Make the body of CreateOrder."""
    return {
        "lines": [{"sku": sku, "quantity": quantity}],
        "currencyCode": "THB",
        "shippingAddress": ADDRESS,
        "paymentMethodToken": "tok_ok",
        "requestId": new_key(),
    } | changes
