"""Loads the sample data into a running shop, through the public API only.

Existing data stay as they are, so a second run changes nothing, and an interrupted one can be resumed.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

from chassis import OutcomeUnknown
from chassis.context import Call, enter_call
from chassis.domain.backoff import backoff
from chassis.rpc.client import Clients
from mesh.errors import StackError
from mesh.qa.concurrency import run_concurrently
from mesh.qa.sample_data.people import Person
from mesh.qa.sample_data.shop import Level, Shop
from shop.catalog.v1 import catalog_service_pb2 as catalog_pb
from shop.catalog.v1 import category_service_pb2 as category_pb
from shop.catalog.v1.catalog_errors import CategoryIdTaken, ProductIdTaken, SkuTaken
from shop.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from shop.catalog.v1.category_service_pb2_grpc import CategoryServiceStub
from shop.delivery.v1 import delivery_service_pb2 as delivery_pb
from shop.delivery.v1.delivery_errors import PostalPrefixTaken, ZoneIdTaken
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from shop.errors import ShopError
from shop.inventory.v1 import inventory_service_pb2 as inventory_pb
from shop.inventory.v1.inventory_errors import VersionMismatch
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.user.v1 import auth_service_pb2 as auth_pb
from shop.user.v1 import user_service_pb2 as user_pb
from shop.user.v1.auth_service_pb2_grpc import AuthServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

_CONCURRENCY = 32
_ATTEMPTS = 6
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(milliseconds=200), timedelta(seconds=3)
_PAGE = 100
#: The errors for data that exist already.
_EXISTS = (CategoryIdTaken, ProductIdTaken, SkuTaken, ZoneIdTaken, PostalPrefixTaken, VersionMismatch)

T = TypeVar("T")


@dataclass(slots=True)
class Report:
    """How many rows were created and how many existed, by kind."""

    made: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, dict[str, int]]:
        """Return the report as JSON."""
        return {"made": dict(self.made), "kept": dict(self.kept)}


async def load(
    upstreams: str, admin: Person, people: Sequence[Person], shop: Shop, on_progress: Callable[[Report], None]
) -> Report:
    """Create what is missing. Raises StackError when the shop rejects it or does not answer."""
    async with _clients(upstreams) as clients:
        loader = _Loader(clients, on_progress)
        try:
            await loader.sign_in(admin)
            await loader.load_people(people)
            await loader.load_shop(shop)
        except (ShopError, OutcomeUnknown) as error:
            raise StackError(
                f"the sample data are not complete: {error}", fix="see `shopmesh logs`, then run `shopmesh sample-data`"
            ) from error
    return loader.report


@asynccontextmanager
async def _clients(upstreams: str) -> AsyncIterator[Clients]:
    clients = Clients(upstreams, "edge")
    try:
        yield clients
    finally:
        await clients.close()


class _Loader:
    def __init__(self, clients: Clients, on_progress: Callable[[Report], None]) -> None:
        self.report = Report()
        self._on_progress = on_progress
        self._auth = clients.stub(AuthServiceStub)
        self._users = clients.stub(UserServiceStub)
        self._catalog = clients.stub(CatalogServiceStub)
        self._categories = clients.stub(CategoryServiceStub)
        self._inventory = clients.stub(InventoryServiceStub)
        self._delivery = clients.stub(DeliveryServiceStub)

    async def sign_in(self, admin: Person) -> None:
        """Make all further calls as the admin."""
        tokens = await self._auth.Login(auth_pb.LoginRequest(email=admin.email, password=admin.password))
        enter_call(Call(method="sample-data", authorization=f"Bearer {tokens.access_token}"))

    async def load_people(self, people: Sequence[Person]) -> None:
        for person in people:
            # Register returns the existing account for a known request_id.
            user = await self._users.Register(
                user_pb.RegisterRequest(
                    email=person.email,
                    password=person.password,
                    display_name=person.name,
                    request_id=f"sample-{person.name.lower()}",
                )
            )
            if fresh := set(user.roles) != set(person.roles):
                await self._users.SetUserRoles(
                    user_pb.SetUserRolesRequest(user_id=user.user_id, roles=person.roles, request_id=_new_key())
                )
            self._count("people", made=fresh)

    async def load_shop(self, shop: Shop) -> None:
        # One at a time: a category needs its parent.
        await self._fill("categories", shop.categories, await self._category_ids(), self._create_category, limit=1)
        await self._fill("delivery zones", shop.zones, await self._zones(), self._create_zone, limit=4)
        await self._fill("products", shop.products, await self._products(), self._create_product)
        await self._fill("stock levels", shop.levels, await self._levels(shop), self._set_stock)

    async def _fill(
        self,
        what: str,
        wanted: Sequence[T],
        present: set[Any],
        create: Callable[[T], Awaitable[object]],
        limit: int = _CONCURRENCY,
    ) -> None:
        """Create the items that do not exist."""

        async def make(one: T) -> None:
            try:
                await _repeated(create, one)
            except _EXISTS:  # deleted data are in no list, but their ids are still taken; or an attempt took effect
                self._count(what, made=False)
            else:
                self._count(what, made=True)

        missing = [one for one in wanted if _key(one) not in present]
        self.report.kept[what] += len(wanted) - len(missing)
        await run_concurrently(missing, make, limit=limit)

    def _count(self, what: str, *, made: bool) -> None:
        (self.report.made if made else self.report.kept)[what] += 1
        self._on_progress(self.report)

    async def _category_ids(self) -> set[str]:
        lists = _pages(self._categories.ListCategories, category_pb.ListCategoriesRequest)
        return {one.category_id async for page in lists for one in page.categories}

    async def _zones(self) -> set[str]:
        lists = _pages(self._delivery.ListZones, delivery_pb.ListZonesRequest)
        return {one.zone_id async for page in lists for one in page.zones}

    async def _products(self) -> set[str]:
        lists = _pages(self._catalog.ListProducts, catalog_pb.ListProductsRequest)
        return {one.product_id async for page in lists for one in page.products}

    async def _levels(self, shop: Shop) -> set[tuple[str, str]]:
        found = set()
        for skus in _batches(dict.fromkeys(level.sku for level in shop.levels)):
            answer = await self._inventory.BatchGetStock(inventory_pb.BatchGetStockRequest(skus=skus))
            found |= {(stock.sku, at.location_id) for stock in answer.stocks for at in stock.locations}
        return found

    async def _create_category(self, category: category_pb.Category) -> None:
        await self._categories.CreateCategory(
            category_pb.CreateCategoryRequest(category=category, request_id=_new_key())
        )

    async def _create_zone(self, zone: delivery_pb.Zone) -> None:
        await self._delivery.CreateZone(delivery_pb.CreateZoneRequest(zone=zone, request_id=_new_key()))

    async def _create_product(self, product: catalog_pb.Product) -> None:
        await self._catalog.CreateProduct(catalog_pb.CreateProductRequest(product=product, request_id=_new_key()))

    async def _set_stock(self, level: Level) -> None:
        await self._inventory.SetStock(
            inventory_pb.SetStockRequest(
                sku=level.sku,
                location_id=level.location_id,
                on_hand=level.on_hand,
                reason="sample data",
                request_id=_new_key(),
            )
        )


async def _repeated(create: Callable[[T], Awaitable[object]], one: T) -> None:
    """Create an item, again while its outcome is unknown: on a busy machine a new stack may miss deadlines."""
    for attempt in range(1, _ATTEMPTS):
        try:
            await create(one)
        except OutcomeUnknown:
            await asyncio.sleep(backoff(attempt, _FIRST_PAUSE, _LONGEST_PAUSE).total_seconds())
        else:
            return
    await create(one)


def _key(one: Any) -> object:
    """Return the key of an item in its list."""
    if isinstance(one, Level):
        return one.sku, one.location_id
    return getattr(one, f"{type(one).__name__.lower()}_id")


async def _pages(rpc: Callable[[Any], Awaitable[Any]], request: Callable[..., Any]) -> AsyncIterator[Any]:
    token = ""
    while True:
        page = await rpc(request(page_size=_PAGE, page_token=token))
        yield page
        if not (token := page.next_page_token):
            return


def _batches(skus: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(skus)
    while batch := list(islice(rest, _PAGE)):
        yield batch


def _new_key() -> str:
    return uuid.uuid4().hex
