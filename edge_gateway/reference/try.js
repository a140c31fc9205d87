// Trying an operation: its parameters and body as a form, a curl command, and the response.

import { Failure, base, eventsOf, newKey, send, token, urlOf } from "./http.js";
import { copyButton, h } from "./page.js";

const MOST_EVENTS = 200;

export class Try {
  constructor(schemas, method, path, operation) {
    Object.assign(this, { schemas, method, path, operation });
    this.isStream =
      Boolean(operation["x-streaming"]) && "text/event-stream" in (operation.responses["200"].content ?? {});
    this.inputs = (operation.parameters ?? []).map((parameter) => this.input(parameter));
    this.body = this.bodyInput();
    this.curl = h("pre", { class: "curl", tabIndex: 0, "aria-label": "The request as a curl command" });
    this.result = h("div", { class: "result", role: "region", "aria-live": "polite", "aria-label": "Reply" });
    this.go = h("button", { class: "main", type: "submit" }, this.isStream ? "Watch" : "Send");
    this.stop = h("button", { type: "button", hidden: true, onclick: () => this.running?.abort() }, "Stop");
    this.element = this.build();
    this.refresh();
    token.onChange(() => this.refresh());
  }

  build() {
    const wanted = this.inputs.filter((it) => it.parameter.required);
    const others = this.inputs.filter((it) => !it.parameter.required);
    return h(
      "form",
      {
        class: "try stack",
        oninput: () => this.refresh(),
        onsubmit: (event) => this.run(event),
        onkeydown: (event) => this.keys(event),
      },
      h("h2", {}, "Try it"),
      wanted.map((it) => it.element),
      this.body?.element,
      others.length > 0 &&
        h(
          "details",
          {},
          h("summary", {}, `${others.length} optional parameter${others.length > 1 ? "s" : ""}`),
          h(
            "div",
            { class: "stack inset" },
            others.map((it) => it.element),
          ),
        ),
      h(
        "div",
        { class: "row" },
        this.go,
        this.stop,
        this.operation["x-idempotency-key"] && this.keyButton(),
        h("span", { class: "soft small hint" }, "Ctrl + Enter"),
      ),
      this.result,
      h(
        "div",
        { class: "row spread" },
        h("h3", {}, "curl"),
        copyButton(() => this.curl.textContent),
      ),
      this.curl,
    );
  }

  keyButton() {
    return h(
      "button",
      { type: "button", title: "A retry with the same key has no further effect", onclick: () => this.renewKey() },
      "New key",
    );
  }

  keys(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.element.requestSubmit();
  }

  // --- inputs ---------------------------------------------------------------------------------------------

  input(parameter) {
    const flat = this.schemas.flatten(parameter.schema);
    const isKey = parameter.name === this.operation["x-idempotency-key"];
    const value = isKey ? newKey() : parameter.in === "path" || parameter.required ? (parameter.example ?? "") : "";
    const choices = flat.enum ?? (flat.type === "boolean" ? ["true", "false"] : null);
    const field = choices
      ? h(
          "select",
          { name: parameter.name },
          h("option", { value: "" }, ""),
          choices.map((it) => h("option", { value: it }, it)),
        )
      : h("input", {
          name: parameter.name,
          value: String(value),
          autocomplete: "off",
          spellcheck: "false",
          placeholder: flat.type === "array" ? "one, another" : "",
        });
    if (choices && value !== "") field.value = String(value);
    const label = h(
      "label",
      { class: "field" },
      h("span", {}, h("code", {}, parameter.name), parameter.required ? " *" : ""),
      field,
    );
    return { parameter, field, isList: flat.type === "array", isMap: flat.type === "object", element: label };
  }

  bodyInput() {
    const content = this.operation.requestBody?.content;
    if (!content) return null;
    const [mediaType, { example = "" }] = Object.entries(content)[0];
    const text =
      typeof example === "string" && mediaType !== "application/json"
        ? example
        : JSON.stringify(this.fresh(example), null, 2);
    const field = h("textarea", {
      name: "body",
      rows: Math.min(Math.max(text.split("\n").length, 3), 22),
      spellcheck: "false",
    });
    field.value = text;
    return {
      field,
      mediaType: mediaType === "*/*" ? "application/octet-stream" : mediaType,
      element: h("label", { class: "field" }, h("span", {}, "Body"), field),
    };
  }

  fresh(example) {
    const key = this.operation["x-idempotency-key"];
    return example && typeof example === "object" && key in example ? { ...example, [key]: newKey() } : example;
  }

  renewKey() {
    const key = this.operation["x-idempotency-key"];
    for (const it of this.inputs) if (it.parameter.name === key) it.field.value = newKey();
    try {
      const value = JSON.parse(this.body.field.value);
      if (key in value) this.body.field.value = JSON.stringify({ ...value, [key]: newKey() }, null, 2);
    } catch {
      // A body that is not JSON has no key to renew.
    }
    this.refresh();
  }

  // --- the request ----------------------------------------------------------------------------------------

  request() {
    const headers = {};
    let path = this.path;
    const query = new URLSearchParams();
    for (const { parameter, field, isList, isMap } of this.inputs) {
      const value = field.value.trim();
      if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
      else if (!value) continue;
      else if (parameter.in === "header") headers[parameter.name.toLowerCase()] = value;
      else if (isList) for (const part of value.split(",")) query.append(parameter.name, part.trim());
      else if (isMap)
        for (const part of value.split(","))
          query.append(`${parameter.name}[${part.split("=")[0].trim()}]`, part.split("=")[1]?.trim() ?? "");
      else query.append(parameter.name, value);
    }
    const url = urlOf(path);
    url.search = query.toString();
    if (this.isStream) headers.accept = "text/event-stream";
    if (this.body) headers["content-type"] = this.body.mediaType;
    return { url, headers, body: this.body?.field.value };
  }

  refresh() {
    const { url, headers, body } = this.request();
    const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
    const lines = [
      `curl${this.isStream ? " -N" : ""} ${this.method === "GET" ? "" : `-X ${this.method} `}${quote(url.href)}`,
    ];
    if (token.value && this.operation.security?.length !== 0) lines.push(`-H "authorization: Bearer $TOKEN"`);
    for (const [name, value] of Object.entries(headers)) lines.push(`-H ${quote(`${name}: ${value}`)}`);
    if (body) lines.push(`-d ${quote(compact(body))}`);
    this.curl.textContent = lines.join(" \\\n  ");
  }

  async run(event) {
    event.preventDefault();
    this.running?.abort();
    const abort = (this.running = new AbortController());
    const { url, headers, body } = this.request();
    this.go.disabled = true;
    this.stop.hidden = !this.isStream;
    this.result.replaceChildren(h("p", { class: "soft" }, this.isStream ? "Connecting…" : "Sending…"));
    const start = performance.now();
    try {
      const response = await send(this.method, url, headers, body, abort.signal);
      if (this.isStream && response.ok) await this.showEvents(response);
      else await this.showReply(response, start);
    } catch (error) {
      if (!abort.signal.aborted)
        this.result.replaceChildren(
          h("p", { class: "problem" }, error instanceof Failure ? error.message : `No reply from ${base.host}.`),
        );
    } finally {
      this.go.disabled = false;
      this.stop.hidden = true;
    }
  }

  async showReply(response, start) {
    const blob = await response.blob();
    const took = Math.round(performance.now() - start);
    const type = response.headers.get("content-type") ?? "";
    const shown = /json|text/.test(type) ? pretty(await blob.text()) : `${blob.size} bytes of ${type || "nothing"}`;
    const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    this.result.replaceChildren(
      h(
        "div",
        { class: "row spread" },
        h("div", { class: "row" }, statusChip(response), h("span", { class: "soft small" }, `${took} ms`)),
        copyButton(() => shown),
      ),
      h("pre", { tabIndex: 0 }, shown || "No body."),
      h("details", {}, h("summary", {}, "headers"), h("pre", { tabIndex: 0 }, headers)),
    );
  }

  async showEvents(response) {
    const list = h("ol", { class: "events" });
    const note = h("p", { class: "soft small" }, "Live: no message yet.");
    this.result.replaceChildren(
      h("div", { class: "row" }, statusChip(response), h("span", { class: "chip accent live" }, "live")),
      note,
      list,
    );
    let count = 0;
    const live = this.result.querySelector(".live");
    try {
      for await (const { event, data } of eventsOf(response.body)) {
        if (event === "end") break;
        count += 1;
        note.textContent = `${count} message${count > 1 ? "s" : ""}, the latest first.`;
        const time = new Date().toLocaleTimeString();
        list.prepend(
          h(
            "li",
            {},
            h("span", { class: "soft small" }, event === "error" ? `${time}, the stream failed` : time),
            h("pre", { class: event === "error" ? "failed" : "" }, pretty(data)),
          ),
        );
        while (list.children.length > MOST_EVENTS) list.lastChild.remove();
      }
    } finally {
      live.textContent = "ended";
      live.classList.remove("accent");
    }
  }
}

function statusChip(response) {
  const tone = response.ok ? "good" : response.status < 500 ? "warn" : "bad";
  return h("span", { class: `chip ${tone}` }, `${response.status} ${response.statusText}`.trim());
}

function compact(text) {
  try {
    return JSON.stringify(JSON.parse(text));
  } catch {
    return text;
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
