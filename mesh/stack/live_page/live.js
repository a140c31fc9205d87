// The live page: sign in, place or pick an order, and watch it.

import { call, newKey, token } from "./http.js";
import { $, explain, h, signInForm, startTheme } from "./page.js";
import { OrderBoard, money, shortState, toneOf } from "./order.js";

// Tokens as the shop's test provider knows them.
const CARDS = [
  ["tok_ok", "A card that works"],
  ["tok_slow", "A card whose bank is slow"],
  ["tok_declined", "A card that is declined"],
  ["tok_500_then_charged", "A card whose bank forgets to answer"],
];

let board;
let me;

const entrance = $("#entrance");
const side = $("#side");
const place = $("#board");

// --- placing an order -------------------------------------------------------------------------------------

async function buildForm() {
  const [{ products }, { zones }, book] = await Promise.all([
    call("GET", "/v1/products?pageSize=100"),
    call("GET", "/v1/delivery/zones"),
    call("GET", "/v1/users/me/addresses?pageSize=1"),
  ]);
  const variants = products.flatMap((product) => product.variants.map((variant) => ({ product, variant })));
  const zone = zones[0];
  const address = book.savedAddresses?.[0]?.address ?? {
    recipient: me.displayName || "A customer",
    line1: "1 High Street",
    city: zone?.name ?? "",
    postalCode: (zone?.postalPrefixes?.[0] ?? "").padEnd(5, "0"),
    countryCode: zone?.countryCode ?? "",
  };
  const sku = h(
    "select",
    { name: "sku" },
    variants.map(({ product, variant }) => h("option", { value: variant.sku }, labelOf(product, variant))),
  );
  const quantity = h("input", { name: "quantity", type: "number", min: "1", max: "99", value: "1" });
  const card = h(
    "select",
    { name: "card" },
    CARDS.map(([value, text]) => h("option", { value }, text)),
  );
  const line1 = h("input", { name: "line1", value: address.line1, required: true });
  const postalCode = h("input", { name: "postalCode", value: address.postalCode, required: true });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const button = h("button", { class: "main", type: "submit" }, "Buy");
  const form = $("#buy");
  form.replaceChildren(
    h("label", { class: "field" }, h("span", {}, "What"), sku),
    h("label", { class: "field" }, h("span", {}, "How many"), quantity),
    h("label", { class: "field" }, h("span", {}, "Paid with"), card),
    h(
      "div",
      { class: "pair" },
      h("label", { class: "field" }, h("span", {}, "Street"), line1),
      h("label", { class: "field" }, h("span", {}, "Postal code"), postalCode),
    ),
    problem,
    button,
  );
  form.onsubmit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    problem.hidden = true;
    const { variant } = variants.find((it) => it.variant.sku === sku.value) ?? variants[0];
    try {
      const order = await call("POST", "/v1/orders", {
        lines: [{ sku: sku.value, quantity: Number(quantity.value) }],
        currencyCode: variant.price.currencyCode,
        shippingAddress: { ...address, line1: line1.value, postalCode: postalCode.value },
        paymentMethodToken: card.value,
        requestId: newKey(),
      });
      open(order);
    } catch (error) {
      problem.textContent = explain(error);
      problem.hidden = false;
    } finally {
      button.disabled = false;
    }
  };
}

function labelOf(product, variant) {
  const attributes = Object.values(variant.attributes ?? {}).join(", ");
  return `${product.name}${attributes ? `, ${attributes}` : ""} · ${money(variant.price)}`;
}

// --- orders -----------------------------------------------------------------------------------------------

async function listOrders() {
  const { orders } = await call("GET", "/v1/orders?pageSize=20");
  const list = $("#orders");
  list.replaceChildren(...orders.map(listed));
  if (!orders.length) list.replaceChildren(h("li", { class: "soft small" }, "None yet."));
  const wanted = orders.find((it) => it.orderId === location.hash.slice(1)) ?? orders[0];
  if (wanted) open(wanted);
  else place.replaceChildren(h("p", { class: "soft" }, "Place an order to watch it."));
}

function listed(order) {
  const time = order.createTime
    ? new Date(order.createTime).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" })
    : "";
  return h(
    "li",
    { "data-order": order.orderId },
    h(
      "button",
      { type: "button", class: "bare pick", onclick: () => open(order) },
      h(
        "span",
        { class: "grow" },
        h("span", {}, money(order.total) || "Order"),
        h("span", { class: "soft small" }, time),
      ),
      h("span", { class: `chip ${toneOf(order.state)}` }, shortState(order.state)),
    ),
  );
}

/** Keeps the list in step with the order that is watched. */
function onChange(order) {
  const list = $("#orders");
  const found = $(`[data-order="${CSS.escape(order.orderId)}"]`, list);
  const item = listed(order);
  $("button", item).setAttribute("aria-current", "true");
  if (found) found.replaceWith(item);
  else list.prepend(item);
  for (const other of list.querySelectorAll("[aria-current]"))
    if (other !== $("button", item)) other.removeAttribute("aria-current");
  for (const empty of list.querySelectorAll("li:not([data-order])")) empty.remove();
}

async function open(order) {
  if (board?.id === order.orderId) return;
  board?.close();
  history.replaceState(null, "", `#${order.orderId}`);
  board = new OrderBoard(order, { isStaff: me.roles.includes("staff") || me.roles.includes("admin"), onChange });
  place.replaceChildren(board.element);
}

// --- coming and going -------------------------------------------------------------------------------------

async function enter() {
  try {
    me = await call("GET", "/v1/users/me");
  } catch {
    token.value = "";
    return leave();
  }
  $("#who").textContent = me.displayName || me.email;
  entrance.hidden = true;
  for (const it of [side, place, $("#leave")]) it.hidden = false;
  // The list first: a late one would take the place of an order just placed.
  await listOrders();
  await buildForm();
}

function leave() {
  board?.close();
  board = undefined;
  token.value = "";
  $("#who").textContent = "";
  // The next one to sign in here may be somebody else.
  for (const it of [$("#buy"), $("#orders"), place]) it.replaceChildren();
  for (const it of [side, place, $("#leave")]) it.hidden = true;
  entrance.hidden = false;
  entrance.querySelector("form")?.remove();
  entrance.append(signInForm(enter));
}

startTheme($("#theme"));
$("#leave").addEventListener("click", leave);
if (token.value) enter();
else leave();
