// One order as it stands now, on three tracks: the order, its payment, its parcel. Each is told by a stream of its own.

import { call, newKey, watch } from "./http.js";
import { explain, h } from "./page.js";

const TRACKS = {
  order: {
    title: "Order",
    prefix: "ORDER_STATE_",
    steps: ["PENDING", "CONFIRMED", "SHIPPED", "DELIVERED", "COMPLETED"],
    bad: ["REJECTED", "CANCELLED"],
  },
  payment: {
    title: "Payment",
    prefix: "PAYMENT_STATE_",
    steps: ["PROCESSING", "AUTHORIZED", "CAPTURED"],
    bad: ["FAILED", "EXPIRED", "CHARGED_BACK"],
  },
  shipment: {
    title: "Parcel",
    prefix: "SHIPMENT_STATE_",
    steps: ["CREATED", "LABELLED", "PICKED_UP", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED"],
    bad: ["FAILED", "RETURNED"],
  },
};

/** `Out for delivery` of `OUT_FOR_DELIVERY`. */
export const words = (state) => (state.charAt(0) + state.slice(1).toLowerCase()).replaceAll("_", " ");

/** The tone in which a state of an order is shown. */
export function toneOf(state) {
  const short = (state ?? "").replace(TRACKS.order.prefix, "");
  if (TRACKS.order.bad.includes(short)) return "bad";
  return { PENDING: "warn", RETURN_REQUESTED: "warn", RETURNED: "" }[short] ?? "good";
}

export const shortState = (state) => words((state ?? "").replace(/^.*_STATE_/, "") || "…");

export function money(it) {
  if (!it) return "";
  const amount = Number(it.units ?? 0) + (it.nanos ?? 0) / 1e9;
  try {
    return new Intl.NumberFormat("en", { style: "currency", currency: it.currencyCode }).format(amount);
  } catch {
    return `${amount} ${it.currencyCode}`;
  }
}

/** One thing that goes from state to state. */
class Track {
  constructor(kind, log) {
    Object.assign(this, TRACKS[kind], { kind, log, state: "" });
    this.now = h("strong", { class: "state" }, "—");
    this.note = h("span", { class: "soft small" });
    this.light = h("span", { class: "chip" }, "not yet");
    this.line = h("ol", { class: "steps" });
    this.element = h(
      "section",
      { class: "card track", "data-track": kind, "aria-label": this.title },
      h("header", {}, h("h2", {}, this.title), this.light),
      h("p", { class: "current", "aria-live": "polite" }, this.now, " ", this.note),
      this.line,
    );
    this.draw();
  }

  show(state, note) {
    const short = (state ?? "").replace(this.prefix, "");
    this.note.textContent = note ?? "";
    if (!short || short === this.state || short === "UNSPECIFIED") return;
    this.log(this.title, words(short));
    this.state = short;
    this.draw();
  }

  draw() {
    const at = this.steps.indexOf(this.state);
    const isAside = this.state && at < 0;
    const isBad = this.bad.includes(this.state);
    this.now.textContent = this.state ? words(this.state) : "Not begun";
    this.element.dataset.state = this.state;
    this.element.classList.toggle("bad", isBad);
    const steps = isAside ? [...this.steps.slice(0, this.reached ?? 1), this.state] : this.steps;
    const present = isAside ? steps.length - 1 : at;
    if (at >= 0) this.reached = at + 1;
    this.line.replaceChildren(
      ...steps.map((step, place) => {
        const kind = place < present ? "done" : place === present ? (isBad ? "here failed" : "here") : "";
        return h("li", { class: kind, "aria-current": place === present ? "step" : null }, h("span", {}, words(step)));
      }),
    );
  }

  /** Says that this will not begin any more. */
  none() {
    this.now.textContent = "None";
    this.light.textContent = "final";
  }

  connection(state, error) {
    const [tone, text] = {
      live: ["accent pulse", "live"],
      waiting: ["warn", "connecting again"],
      ended: ["", "final"],
    }[state];
    this.light.className = `chip ${tone}`;
    this.light.textContent = error ? explain(error) : text;
  }
}

/** Shows an order until it is closed. */
export class OrderBoard {
  constructor(order, { isStaff, onChange }) {
    this.abort = new AbortController();
    this.onChange = onChange;
    this.isStaff = isStaff;
    this.events = h("ol", { class: "log", "aria-live": "polite", "aria-label": "What happened" });
    this.tracks = Object.fromEntries(
      Object.keys(TRACKS).map((kind) => [kind, new Track(kind, (...said) => this.log(...said))]),
    );
    this.total = h("span", {});
    this.lines = h("ul", { class: "lines" });
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.cancel = h(
      "button",
      { type: "button", onclick: () => this.act("cancel", { requestId: newKey() }) },
      "Cancel order",
    );
    this.next = h("button", { type: "button", class: "main", hidden: true });
    this.watching = new Set();
    this.id = order.orderId;
    this.element = h(
      "div",
      { class: "stack" },
      h(
        "header",
        { class: "row title" },
        h("div", { class: "grow" }, h("h1", {}, this.total), h("code", { class: "soft" }, order.orderId)),
        this.next,
        this.cancel,
      ),
      this.problem,
      this.lines,
      Object.values(this.tracks).map((track) => track.element),
      h("section", { class: "card" }, h("h2", {}, "What happened"), this.events),
    );
    this.showOrder(order);
    this.follow("order", `/v1/orders/${order.orderId}/watch`, (message) => this.showOrder(message.order));
  }

  showOrder(order) {
    this.order = order;
    this.total.textContent = money(order.total) || "Order";
    const rows = [
      ...(order.lines ?? []).map((line) => [`${line.quantity} × ${line.name}`, line.total]),
      ["Delivery", order.shippingFee],
    ];
    this.lines.replaceChildren(
      ...rows
        .filter(([, price]) => price)
        .map(([what, price]) => h("li", {}, what, h("span", { class: "soft" }, money(price)))),
    );
    this.tracks.order.show(order.state, order.stateReason && words(order.stateReason));
    if (TRACKS.order.bad.some((state) => order.state.endsWith(state)) && !order.shipmentId) this.tracks.shipment.none();
    this.cancel.hidden =
      !["ORDER_STATE_PENDING", "ORDER_STATE_CONFIRMED"].includes(order.state) || Boolean(order.shipmentId);
    this.offerNext();
    if (order.paymentId)
      this.follow("payment", `/v1/payments/${order.paymentId}/watch`, ({ payment }) =>
        this.tracks.payment.show(payment.state, payment.declineCode),
      );
    if (order.shipmentId)
      this.follow("shipment", `/v1/shipments/${order.shipmentId}/watch`, ({ shipment }) => this.showShipment(shipment));
    this.onChange(order);
  }

  showShipment(shipment) {
    this.tracks.shipment.show(shipment.state, shipment.trackingNumber);
    this.offerNext();
  }

  /** What staff can do next: ship the order, then move its parcel one step at a time. */
  offerNext() {
    const { steps, state } = this.tracks.shipment;
    const next = steps[steps.indexOf(state) + 1];
    const canShip = this.order.state === "ORDER_STATE_CONFIRMED" && !this.order.shipmentId;
    const canMove = state && steps.includes(state) && state !== "CREATED" && next;
    this.next.hidden = !this.isStaff || !(canShip || canMove);
    this.next.textContent = canShip ? "Ship it" : `Mark as ${words(next ?? "").toLowerCase()}`;
    this.next.onclick = () =>
      canShip
        ? this.staff("/v1/shipments", { orderId: this.id })
        : this.staff(`/v1/shipments/${this.order.shipmentId}/status`, { state: `SHIPMENT_STATE_${next}` });
  }

  async staff(path, body) {
    this.problem.hidden = true;
    this.next.disabled = true;
    try {
      await call("POST", path, { ...body, requestId: newKey() });
    } catch (error) {
      this.complain(error);
    } finally {
      this.next.disabled = false;
    }
  }

  follow(kind, path, onMessage) {
    if (this.watching.has(kind)) return;
    this.watching.add(kind);
    const onState = (state, error) => {
      // A payment is made a moment after its order names it.
      if (error?.status === 404)
        setTimeout(() => !this.abort.signal.aborted && this.watching.delete(kind) && this.showOrder(this.order), 1000);
      else this.tracks[kind].connection(state, error);
    };
    watch(path, { onMessage, onState, signal: this.abort.signal });
  }

  async act(verb, body) {
    this.problem.hidden = true;
    this.cancel.disabled = true;
    try {
      this.showOrder(await call("POST", `/v1/orders/${this.id}/${verb}`, body));
    } catch (error) {
      this.complain(error);
    } finally {
      this.cancel.disabled = false;
    }
  }

  complain(error) {
    this.problem.textContent = explain(error);
    this.problem.hidden = false;
  }

  log(what, state) {
    const time = new Date().toLocaleTimeString("en-GB");
    this.events.prepend(
      h("li", {}, h("time", { class: "soft mono" }, time), h("span", {}, what), h("strong", {}, state)),
    );
  }

  close() {
    this.abort.abort();
  }
}
