// The reference: a list of operations to search, and one operation at a time to read and to try.

import { call, token } from "./http.js";
import { badge, detail, nameOf, title } from "./operation.js";
import { $, h, paragraphs, prose, readToken, signInForm, startTheme } from "./page.js";
import { Schemas } from "./schema.js";

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
const bindingOf = (operation) => operation["x-additional-binding-of"] ?? operation.operationId;

// --- the list ---------------------------------------------------------------------------------------------

function showList() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (it) =>
    words.every((word) => `${it.operationId} ${it.method} ${it.path} ${it.summary}`.toLowerCase().includes(word));
  const groups = api.tags
    .map((tag) => [tag, byTag(tag.name).filter((it) => (words.length ? fits(it) : isMain(it)))])
    .filter(([, found]) => found.length);
  $("#operations").replaceChildren(
    ...groups.map(([tag, found]) =>
      h(
        "section",
        {},
        h("h2", {}, title(tag.name)),
        h(
          "ul",
          {},
          found.sort(inOrder).map((it) => h("li", {}, listed(it, words.length > 0))),
        ),
      ),
    ),
  );
  if (!groups.length) $("#operations").replaceChildren(h("p", { class: "soft small" }, "No operation fits."));
  markCurrent();
}

function inOrder(one, two) {
  return (
    one.path.localeCompare(two.path) ||
    METHODS.indexOf(one.method.toLowerCase()) - METHODS.indexOf(two.method.toLowerCase())
  );
}

function listed(operation, withPath) {
  return h(
    "a",
    { href: `#${operation.operationId}`, title: `${operation.method} ${operation.path}` },
    badge(operation.method),
    h("span", {}, nameOf(operation), withPath && h("small", {}, operation.path)),
  );
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
  const others = operations.filter((it) => operation && bindingOf(it) === bindingOf(operation) && it !== operation);
  main.replaceChildren(...(operation ? [detail(operation, others, schemas)] : overview()));
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
        h(
          "ul",
          { class: "cards" },
          found
            .sort(inOrder)
            .map((it) =>
              h(
                "li",
                {},
                h(
                  "a",
                  { href: `#${it.operationId}` },
                  badge(it.method),
                  h("code", {}, it.path),
                  h("span", { class: "soft" }, prose(it.summary)),
                ),
              ),
            ),
        ),
      );
    }),
  ];
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
    const text = h("textarea", {
      rows: 4,
      spellcheck: "false",
      "aria-label": "Bearer token",
      placeholder: "A bearer token",
    });
    text.value = token.value;
    const { subject, expires } = readToken(token.value);
    const hasLogin = Boolean(api.paths["/v1/auth/login"]);
    dialog.replaceChildren(
      h("h2", { id: "signing-title" }, "Who is calling"),
      h(
        "p",
        { class: "soft small" },
        token.value
          ? `${subject || "A token"}${expires ? `, until ${expires.toLocaleTimeString()}` : ""}.`
          : "Calls that need a user send this token. It stays in this tab.",
      ),
      hasLogin && !token.value && signInForm(() => dialog.close()),
      hasLogin && !token.value && h("hr", {}),
      h(
        "form",
        { method: "dialog", onsubmit: () => (token.value = text.value.trim()) },
        h("label", { class: "field" }, h("span", {}, "Bearer token"), text),
        h(
          "div",
          { class: "row end" },
          token.value &&
            h("button", { type: "button", onclick: () => ((token.value = ""), dialog.close()) }, "Sign out"),
          h("button", { type: "button", onclick: () => dialog.close() }, "Close"),
          h("button", { class: hasLogin && !token.value ? "" : "main", type: "submit" }, "Use token"),
        ),
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
  startMenu();
  startKeys();
  startAccount();
  showList();
  show();
  addEventListener("hashchange", show);
}

start();
