// Calls of the API from a page: the token of the signed-in user, plain requests, and streams that resume after a lost connection.

// Pages are served under /docs of the edge, which may itself be behind a prefix.
export const base = new URL("..", import.meta.url);

const KEY = "edge.token";
const listeners = new Set();

export const token = {
  get value() {
    return sessionStorage.getItem(KEY) ?? "";
  },
  set value(text) {
    if (text) sessionStorage.setItem(KEY, text);
    else sessionStorage.removeItem(KEY);
    for (const notify of listeners) notify(text);
  },
  onChange(notify) {
    listeners.add(notify);
    notify(this.value);
  },
};

export class Failure extends Error {
  constructor(status, body) {
    super(body?.message || `HTTP ${status}`);
    this.status = status;
    this.body = body;
    const details = body?.details ?? [];
    this.reason = details.find((detail) => detail.reason)?.reason ?? "";
    this.fields = details.flatMap((detail) => detail.fieldViolations ?? []);
  }
}

/** An idempotency key for retries of a request. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function urlOf(path) {
  return new URL(path.replace(/^\//, ""), base);
}

function headersWith(more) {
  return token.value ? { authorization: `Bearer ${token.value}`, ...more } : { ...more };
}

/** Makes a request and returns its JSON, or throws a Failure. */
export async function call(method, path, body) {
  const headers = headersWith(body === undefined ? {} : { "content-type": "application/json" });
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const response = await fetch(urlOf(path), { method, headers, body: sent });
  const text = await response.text();
  let value = null;
  try {
    value = text ? JSON.parse(text) : null;
  } catch {
    value = { message: text.slice(0, 200) };
  }
  if (!response.ok) throw new Failure(response.status, value);
  return value;
}

/** Sends a request as given, and returns the response before its body is read. */
export function send(method, url, headers, body, signal) {
  return fetch(url, { method, headers: headersWith(headers), body, signal });
}

/** The events of a text/event-stream body, as {event, data, id}. */
export async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const found = { event: "message", data: "", id: "" };
        for (const line of block.split("\n")) {
          const at = line.indexOf(":");
          const name = line.slice(0, at);
          if (at > 0 && name in found)
            found[name] = (found[name] && name === "data" ? `${found.data}\n` : "") + line.slice(at + 1).trimStart();
        }
        if (found.data) yield found;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Whether a failure is of the connection or of a server that may be back soon, or ends a stream whose time or token has
 * expired, rather than an error of the request.
 */
function isPassing({ status, body }) {
  return status === 0 ? [2, 4, 10, 13, 14, 16].includes(body?.code) : [429, 502, 503, 504].includes(status);
}

/**
 * Watches a stream: calls `onMessage` for each message and `onState` with "live", "waiting" or "ended". A connection that
 * breaks is resumed at its last event; an error response ends it.
 */
export async function watch(path, { onMessage, onState, signal }) {
  let last = "";
  let wait = 500;
  while (!signal.aborted) {
    try {
      const headers = { accept: "text/event-stream", ...(last && { "last-event-id": last }) };
      const response = await send("GET", urlOf(path), headers, undefined, signal);
      if (!response.ok) throw new Failure(response.status, await response.json().catch(() => null));
      onState("live");
      for await (const { event, data, id } of eventsOf(response.body)) {
        wait = 500;
        if (id) last = id;
        if (event === "end") return onState("ended");
        if (event === "error") throw new Failure(0, JSON.parse(data));
        onMessage(JSON.parse(data));
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Failure && !isPassing(error)) return onState("ended", error);
    }
    onState("waiting");
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, 8000);
  }
}
