// What the compiler has to refuse: each of these lines is a mistake.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const shop = createClient<paths>({ baseUrl: "" });
const line = { sku: "A", quantity: 1 };

// @ts-expect-error: there is no such path
await shop.GET("/v1/ordres");
// @ts-expect-error: the path needs its parameter
await shop.GET("/v1/orders/{orderId}");
// @ts-expect-error: quantity is a number
await shop.POST("/v1/orders:preview", { body: { lines: [{ sku: "A", quantity: "1" }], currencyCode: "EUR" } });
// @ts-expect-error: a currency is needed
await shop.POST("/v1/orders:preview", { body: { lines: [line] } });
// @ts-expect-error: 64-bit integers are text
const money: components["schemas"]["Money"] = { currencyCode: "EUR", units: 5, nanos: 0 };
// @ts-expect-error: not a state of an order
const state: components["schemas"]["OrderState"] = "ORDER_STATE_LOST";
// @ts-expect-error: what the server says is not to be changed
((order: components["schemas"]["Order"]) => (order.orderId = ""))({} as components["schemas"]["Order"]);

export { money, state };
