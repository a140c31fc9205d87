// One operation on a page: its callers, parameters, replies and errors, and a form to try it.

import { h, paragraphs, prose } from "./page.js";
import { Try } from "./try.js";

/** `Order` of `OrderService`. */
export const title = (tag) => tag.replace(/Service$/, "");

/** `Create Order` of `OrderService_CreateOrder`. */
export function nameOf(operation) {
  return operation.operationId.split("_")[1].replace(/([a-z])([A-Z])/g, "$1 $2");
}

export function badge(method) {
  return h("span", { class: `method ${method.toLowerCase()}` }, method === "DELETE" ? "DEL" : method);
}

/** An operation with its form; `others` are the further paths of its method. */
export function detail(operation, others, schemas) {
  return h(
    "article",
    {},
    h(
      "header",
      { class: "head" },
      h(
        "p",
        { class: "soft small" },
        title(operation.tags[0]),
        operation["x-grpc-method"] && [" · ", h("code", {}, operation["x-grpc-method"])],
      ),
      h("h1", {}, nameOf(operation)),
      isTold(operation) ? null : h("p", { class: "lede" }, prose(operation.summary), "."),
      h(
        "p",
        { class: "path" },
        badge(operation.method),
        h(
          "code",
          {},
          operation.path.split(/(\{[^}]*\})/).map((part) => (part.startsWith("{") ? h("em", {}, part) : part)),
        ),
      ),
      others.length > 0 &&
        h(
          "p",
          { class: "small soft" },
          "Also at ",
          others.map((it, at) => [at ? ", " : "", h("a", { href: `#${it.operationId}` }, `${it.method} ${it.path}`)]),
        ),
      h("p", { class: "row chips" }, chips(operation)),
    ),
    h(
      "div",
      { class: "columns" },
      h(
        "div",
        { class: "read" },
        paragraphs(operation.description),
        parameters(operation, schemas),
        body(operation, schemas),
        reply(operation, schemas),
        failures(operation, schemas),
      ),
      h("div", { class: "do" }, new Try(schemas, operation.method, operation.path, operation).element),
    ),
  );
}

/** Whether the description begins with the summary, which is then a part of it. */
const isTold = (operation) => operation.description?.startsWith(operation.summary);

function chips(operation) {
  const rate = operation["x-rate-limit"];
  const access = {
    public: ["good", "for everyone"],
    user: ["accent", "signed in"],
    roles: ["warn", (operation["x-roles"] ?? []).join(" or ")],
  }[operation["x-access"]];
  const repeat = { IDEMPOTENT: "may be repeated", NO_SIDE_EFFECTS: "only reads" }[operation["x-idempotency-level"]];
  return [
    operation.deprecated && h("span", { class: "chip bad" }, "deprecated"),
    access && h("span", { class: `chip ${access[0]}` }, access[1]),
    operation["x-streaming"] && h("span", { class: "chip accent" }, "stream"),
    repeat && h("span", { class: "chip" }, repeat),
    operation["x-timeout-seconds"] && h("span", { class: "chip" }, `within ${operation["x-timeout-seconds"]} s`),
    rate && h("span", { class: "chip" }, `${rate.requests} in ${rate.seconds} s`),
  ];
}

function parameters(operation, schemas) {
  const found = operation.parameters ?? [];
  const sections = [
    ["path", "In the path"],
    ["query", "In the query"],
    ["header", "Headers"],
  ];
  return sections.map(([place, heading]) => {
    const here = found.filter((it) => it.in === place);
    if (!here.length) return null;
    const rows = here.map((it) =>
      schemas.row(
        it.name,
        { ...it.schema, description: it.description, deprecated: it.deprecated },
        place !== "path",
        it.required,
      ),
    );
    return h("section", {}, h("h2", {}, heading), h("ul", { class: "tree" }, rows));
  });
}

function body(operation, schemas) {
  const found = operation.requestBody;
  if (!found) return null;
  const [mediaType, content] = Object.entries(found.content)[0];
  return h(
    "section",
    {},
    heading("Body", mediaType, schemas.typeName(content.schema)),
    found.description && h("p", {}, prose(found.description)),
    schemas.tree(content.schema, true),
  );
}

function reply(operation, schemas) {
  const found = schemas.resolve(operation.responses["200"]);
  const types = Object.entries(found.content ?? {});
  if (!types.length) return h("section", {}, heading("Reply"), h("p", {}, prose(found.description)));
  const [mediaType, content] = types[0];
  const message = schemas.flatten(content.schema).properties?.result ?? content.schema;
  const shown =
    operation["x-streaming"] === "server_streaming" || operation["x-streaming"] === "bidi_streaming"
      ? message
      : content.schema;
  return h(
    "section",
    {},
    heading("Reply", types.map(([type]) => type).join(", ") || mediaType, schemas.typeName(shown)),
    h("p", {}, prose(found.description)),
    schemas.tree(shown, false),
    content.example !== undefined &&
      h(
        "details",
        { class: "example" },
        h("summary", {}, "example"),
        h("pre", { tabIndex: 0 }, JSON.stringify(content.example, null, 2)),
      ),
    next(found.links),
  );
}

function next(links) {
  const found = Object.entries(links ?? {});
  if (!found.length) return null;
  return h(
    "p",
    { class: "small" },
    "Goes on with ",
    found.map(([name, link], at) => [at ? ", " : "", h("a", { href: `#${link.operationId}` }, name)]),
    ".",
  );
}

function failures(operation, schemas) {
  const statuses = Object.entries(operation.responses).filter(([status]) => /^[45]/.test(status));
  return h(
    "section",
    {},
    heading("Failures"),
    statuses.map(([status, response]) => failure(status, schemas.resolve(response), schemas)),
    h("p", { class: "small soft" }, schemas.resolve(operation.responses.default).description),
  );
}

function failure(status, response, schemas) {
  const examples = response.content?.["application/json"]?.examples ?? {};
  return h(
    "details",
    { class: "failure" },
    h(
      "summary",
      {},
      h("span", { class: `chip ${status < 500 ? "warn" : "bad"}` }, status),
      " ",
      h("span", { class: "soft small" }, Object.keys(examples).join(", ")),
    ),
    h(
      "div",
      { class: "inset" },
      paragraphs(response.description),
      Object.values(examples)
        .slice(0, 1)
        .map((it) => h("pre", { tabIndex: 0 }, JSON.stringify(schemas.resolve(it).value, null, 2))),
    ),
  );
}

function heading(text, mediaType, type) {
  return h(
    "h2",
    {},
    text,
    " ",
    type && h("span", { class: "soft" }, type),
    mediaType && h("span", { class: "aside" }, mediaType),
  );
}
