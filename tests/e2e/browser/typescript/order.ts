import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

type Order = components["schemas"]["Order"];

const [url = "", email = ""] = process.argv.slice(2);
const shop = createClient<paths>({ baseUrl: url });

function must<T>(reply: { data?: T; error?: { message?: string } }): T {
  if (reply.data === undefined) throw new Error(reply.error?.message ?? "no reply");
  return reply.data;
}
const key = () => crypto.randomUUID().replaceAll("-", "");

const password = "correct horse battery";
must(await shop.POST("/v1/auth/register", { body: { email, password, requestId: key() } }));
const { accessToken } = must(await shop.POST("/v1/auth/login", { body: { email, password } }));
shop.use({
  onRequest({ request }) {
    request.headers.set("authorization", `Bearer ${accessToken}`);
    return request;
  },
});
const { products } = must(await shop.GET("/v1/products", { params: { query: { pageSize: 1 } } }));
const variant = products[0]?.variants[0];
if (variant?.price === undefined) throw new Error("nothing is on sale");
const { zones } = must(await shop.GET("/v1/delivery/zones"));
const order: Order = must(
  await shop.POST("/v1/orders", {
    body: {
      lines: [{ sku: variant.sku, quantity: 2 }],
      currencyCode: variant.price.currencyCode,
      shippingAddress: {
        recipient: "Ada",
        line1: "1 High Street",
        city: "Bangkok",
        postalCode: `${zones[0]?.postalPrefixes[0] ?? ""}110`,
        countryCode: zones[0]?.countryCode ?? "",
      },
      paymentMethodToken: "tok_ok",
      requestId: key(),
    },
  }),
);
const { data: seen, error } = await shop.GET("/v1/orders/{orderId}", { params: { path: { orderId: order.orderId } } });
const { error: refusal } = await shop.GET("/v1/orders/{orderId}", { params: { path: { orderId: "nope" } } });
console.log(JSON.stringify({ order, seen, error, reason: refusal?.details[0]?.reason }));
