// The reference: a list of operations to search, and one operation at a time to read and to try.

import { call, token } from "./http.js";
import { $, h, paragraphs, prose, readToken, signInForm, startTheme } from "./page.js";
import { Schemas } from "./schema.js";
import { Try } from "./try.js";

const METHODS = ["get", "post", "put", "patch", "delete", "head", "options"];

let api;
let schemas;
let operations = [];

const main = $("#main");
const search = $("#search");

function collect() {
  const found = [];
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS) if (item[method]) found.push({ method: method.toUpperCase(), path, ...item[method] });
  }
  return found;
}

const byTag = (tag) => operations.filter((it) => it.tags[0] === tag);
const isMain = (operation) => !operation["x-additional-binding-of"];
const title = (tag) => tag.replace(/Service$/, "");

// --- the list ---------------------------------------------------------------------------------------------

function showList() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (it) => words.every((word) => `${it.operationId} ${it.method} ${it.path} ${it.summary}`.toLowerCase().includes(word));
  const groups = api.tags
    .map((tag) => [tag, byTag(tag.name).filter((it) => (words.length ? fits(it) : isMain(it)))])
    .filter(([, found]) => found.length);
  $("#operations").replaceChildren(
    ...groups.map(([tag, found]) =>
      h("section", {}, h("h2", {}, title(tag.name)), h("ul", {}, found.sort(inOrder).map((it) => h("li", {}, listed(it, words.length > 0))))),
    ),
  );
  if (!groups.length) $("#operations").replaceChildren(h("p", { class: "soft small" }, "No operation fits."));
  markCurrent();
}

function inOrder(one, two) {
  return one.path.localeCompare(two.path) || METHODS.indexOf(one.method.toLowerCase()) - METHODS.indexOf(two.method.toLowerCase());
}

function listed(operation, withPath) {
  return h("a", { href: `#${operation.operationId}`, title: `${operation.method} ${operation.path}` }, badge(operation.method), h("span", {}, nameOf(operation), withPath && h("small", {}, operation.path)));
}

/** `Create Order` of `OrderService_CreateOrder`. */
function nameOf(operation) {
  return operation.operationId.split("_")[1].replace(/([a-z])([A-Z])/g, "$1 $2");
}

function badge(method) {
  return h("span", { class: `method ${method.toLowerCase()}` }, method === "DELETE" ? "DEL" : method);
}

function markCurrent() {
  const id = decodeURIComponent(location.hash.slice(1));
  for (const link of document.querySelectorAll("#operations a")) {
    const isHere = link.getAttribute("href") === `#${id}`;
    if (!isHere) link.removeAttribute("aria-current");
    else link.setAttribute("aria-current", "page");
    if (isHere) link.scrollIntoView({ block: "nearest" });
  }
}

// --- one operation ----------------------------------------------------------------------------------------

function show() {
  const id = decodeURIComponent(location.hash.slice(1));
  const operation = operations.find((it) => it.operationId === id);
  main.replaceChildren(...(operation ? [detail(operation)] : overview()));
  document.title = operation ? `${nameOf(operation)} · ${api.info.title}` : api.info.title;
  closeMenu();
  markCurrent();
  window.scrollTo(0, 0);
}

function overview() {
  return [
    h("div", { class: "lead" }, h("h1", {}, api.info.title), paragraphs(api.info.description)),
    ...api.tags.map((tag) => {
      const found = byTag(tag.name).filter(isMain);
      return h(
        "section",
        { class: "service" },
        h("h2", {}, title(tag.name)),
        h("p", { class: "soft" }, prose(tag.description ?? "")),
        h("ul", { class: "cards" }, found.sort(inOrder).map((it) => h("li", {}, h("a", { href: `#${it.operationId}` }, badge(it.method), h("code", {}, it.path), h("span", { class: "soft" }, prose(it.summary)))))),
      );
    }),
  ];
}

function detail(operation) {
  const others = operations.filter((it) => bindingOf(it) === bindingOf(operation) && it !== operation);
  return h(
    "article",
    {},
    h(
      "header",
      { class: "head" },
      h("p", { class: "soft small" }, title(operation.tags[0]), operation["x-grpc-method"] && [" · ", h("code", {}, operation["x-grpc-method"])]),
      h("h1", {}, nameOf(operation)),
      isTold(operation) ? null : h("p", { class: "lede" }, prose(operation.summary), "."),
      h("p", { class: "path" }, badge(operation.method), h("code", {}, operation.path.split(/(\{[^}]*\})/).map((part) => (part.startsWith("{") ? h("em", {}, part) : part)))),
      others.length > 0 && h("p", { class: "small soft" }, "Also at ", others.map((it, at) => [at ? ", " : "", h("a", { href: `#${it.operationId}` }, `${it.method} ${it.path}`)])),
      h("p", { class: "row chips" }, chips(operation)),
    ),
    h(
      "div",
      { class: "columns" },
      h("div", { class: "read" }, paragraphs(operation.description), parameters(operation), body(operation), reply(operation), failures(operation)),
      h("div", { class: "do" }, new Try(schemas, operation.method, operation.path, operation).element),
    ),
  );
}

/** Whether the description begins with the summary, which is then a part of it. */
const isTold = (operation) => operation.description?.startsWith(operation.summary);

const bindingOf = (operation) => operation["x-additional-binding-of"] ?? operation.operationId;

function chips(operation) {
  const rate = operation["x-rate-limit"];
  const access = { public: ["good", "for everyone"], user: ["accent", "signed in"], roles: ["warn", (operation["x-roles"] ?? []).join(" or ")] }[operation["x-access"]];
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

function parameters(operation) {
  const found = operation.parameters ?? [];
  const sections = [["path", "In the path"], ["query", "In the query"], ["header", "Headers"]];
  return sections.map(([place, heading]) => {
    const here = found.filter((it) => it.in === place);
    if (!here.length) return null;
    const rows = here.map((it) => schemas.row(it.name, { ...it.schema, description: it.description, deprecated: it.deprecated }, place !== "path", it.required));
    return h("section", {}, h("h2", {}, heading), h("ul", { class: "tree" }, rows));
  });
}

function body(operation) {
  const found = operation.requestBody;
  if (!found) return null;
  const [mediaType, content] = Object.entries(found.content)[0];
  return h("section", {}, heading("Body", mediaType, schemas.typeName(content.schema)), found.description && h("p", {}, prose(found.description)), schemas.tree(content.schema, true));
}

function reply(operation) {
  const found = schemas.resolve(operation.responses["200"]);
  const types = Object.entries(found.content ?? {});
  if (!types.length) return h("section", {}, heading("Reply"), h("p", {}, prose(found.description)));
  const [mediaType, content] = types[0];
  const message = schemas.flatten(content.schema).properties?.result ?? content.schema;
  const shown = operation["x-streaming"] === "server_streaming" || operation["x-streaming"] === "bidi_streaming" ? message : content.schema;
  return h(
    "section",
    {},
    heading("Reply", types.map(([type]) => type).join(", ") || mediaType, schemas.typeName(shown)),
    h("p", {}, prose(found.description)),
    schemas.tree(shown, false),
    content.example !== undefined && h("details", { class: "example" }, h("summary", {}, "example"), h("pre", { tabIndex: 0 }, JSON.stringify(content.example, null, 2))),
    next(found.links),
  );
}

function next(links) {
  const found = Object.entries(links ?? {});
  if (!found.length) return null;
  return h("p", { class: "small" }, "Goes on with ", found.map(([name, link], at) => [at ? ", " : "", h("a", { href: `#${link.operationId}` }, name)]), ".");
}

function failures(operation) {
  const statuses = Object.entries(operation.responses).filter(([status]) => /^[45]/.test(status));
  return h("section", {}, heading("Failures"), statuses.map(([status, response]) => failure(status, schemas.resolve(response))), h("p", { class: "small soft" }, schemas.resolve(operation.responses.default).description));
}

function failure(status, response) {
  const examples = response.content?.["application/json"]?.examples ?? {};
  return h(
    "details",
    { class: "failure" },
    h("summary", {}, h("span", { class: `chip ${status < 500 ? "warn" : "bad"}` }, status), " ", h("span", { class: "soft small" }, Object.keys(examples).join(", "))),
    h("div", { class: "inset" }, paragraphs(response.description), Object.values(examples).slice(0, 1).map((it) => h("pre", { tabIndex: 0 }, JSON.stringify(schemas.resolve(it).value, null, 2)))),
  );
}

function heading(text, mediaType, type) {
  return h("h2", {}, text, " ", type && h("span", { class: "soft" }, type), mediaType && h("span", { class: "aside" }, mediaType));
}

// --- around it --------------------------------------------------------------------------------------------

function closeMenu() {
  document.body.classList.remove("open");
  $("#menu").setAttribute("aria-expanded", "false");
}

function startMenu() {
  $("#menu").addEventListener("click", () => {
    const isOpen = document.body.classList.toggle("open");
    $("#menu").setAttribute("aria-expanded", String(isOpen));
    if (isOpen) search.focus();
  });
}

function startKeys() {
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches("input, textarea, select");
    if (event.key === "/" && !isTyping) {
      event.preventDefault();
      document.body.classList.add("open");
      search.focus();
      search.select();
    } else if (event.key === "Escape" && event.target === search) {
      search.value = "";
      showList();
      closeMenu();
    }
  });
  search.addEventListener("input", showList);
  search.addEventListener("keydown", (event) => {
    const links = [...document.querySelectorAll("#operations a")];
    if (event.key === "Enter" && links.length) links[0].click();
    if (event.key === "ArrowDown" && links.length) links[0].focus();
  });
  $("#operations").addEventListener("keydown", (event) => {
    const links = [...document.querySelectorAll("#operations a")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const to = links.indexOf(document.activeElement) + step;
    (to < 0 ? search : (links[to] ?? links.at(-1))).focus();
  });
}

function startAccount() {
  const button = $("#account");
  const dialog = $("#signing");
  token.onChange((text) => (button.textContent = text ? "Signed in" : "Sign in"));
  button.addEventListener("click", () => {
    const text = h("textarea", { rows: 4, spellcheck: "false", "aria-label": "Bearer token", placeholder: "A bearer token" });
    text.value = token.value;
    const { subject, expires } = readToken(token.value);
    const hasLogin = Boolean(api.paths["/v1/auth/login"]);
    dialog.replaceChildren(
      h("h2", { id: "signing-title" }, "Who is calling"),
      h("p", { class: "soft small" }, token.value ? `${subject || "A token"}${expires ? `, until ${expires.toLocaleTimeString()}` : ""}.` : "Calls that need a user send this token. It stays in this tab."),
      hasLogin && !token.value && signInForm(() => dialog.close()),
      hasLogin && !token.value && h("hr", {}),
      h(
        "form",
        { method: "dialog", onsubmit: () => (token.value = text.value.trim()) },
        h("label", { class: "field" }, h("span", {}, "Bearer token"), text),
        h("div", { class: "row end" }, token.value && h("button", { type: "button", onclick: () => ((token.value = ""), dialog.close()) }, "Sign out"), h("button", { type: "button", onclick: () => dialog.close() }, "Close"), h("button", { class: hasLogin && !token.value ? "" : "main", type: "submit" }, "Use token")),
      ),
    );
    dialog.showModal();
  });
}

async function start() {
  startTheme($("#theme"));
  try {
    api = await call("GET", "/openapi.json");
  } catch {
    main.replaceChildren(h("p", { class: "problem" }, "The document /openapi.json cannot be read."));
    return;
  }
  schemas = new Schemas(api);
  operations = collect();
  $("#title").textContent = api.info.title;
  $("#version").textContent = api.info.version;
  $("#live").hidden = !operations.some((it) => it.operationId === "OrderService_WatchOrder");
  startMenu();
  startKeys();
  startAccount();
  showList();
  show();
  addEventListener("hashchange", show);
}

start();
