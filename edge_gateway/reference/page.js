// Shared by all pages: making elements, prose, copying, the theme, and signing in.

import { call, Failure, newKey, token } from "./http.js";

/** Makes an element. Properties that begin with "on" are listeners; children are nodes or text. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (selector, within = document) => within.querySelector(selector);

/** Text with `code` and **strong** parts. */
export function prose(text) {
  return (text ?? "").split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (part.startsWith("`") && part.length > 2) return h("code", {}, part.slice(1, -1));
    if (part.startsWith("**") && part.length > 4) return h("strong", {}, part.slice(2, -2));
    return part;
  });
}

/** Paragraphs and lists. */
export function paragraphs(text) {
  return (text ?? "")
    .split(/\n\n+/)
    .filter(Boolean)
    .map((block) => {
      const lines = block.split("\n");
      if (lines.every((line) => line.startsWith("- ")))
        return h(
          "ul",
          {},
          lines.map((line) => h("li", {}, prose(line.slice(2)))),
        );
      return h("p", {}, prose(lines.join(" ")));
    });
}

export function copyButton(textOf, label = "Copy") {
  const button = h("button", { type: "button", class: "bare small", onclick: copy }, label);
  async function copy() {
    try {
      await navigator.clipboard.writeText(textOf());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Cannot copy here";
    }
    setTimeout(() => (button.textContent = label), 1500);
  }
  return button;
}

// --- theme ------------------------------------------------------------------------------------------------

const THEME = "edge.theme";

export function startTheme(button) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = localStorage.getItem(THEME);
  if (chosen) document.documentElement.dataset.theme = chosen;
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const show = () => {
    button.textContent = isDark() ? "☀" : "☾";
    button.setAttribute("aria-label", isDark() ? "Use light colours" : "Use dark colours");
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem(THEME, document.documentElement.dataset.theme);
    show();
  });
  dark.addEventListener("change", show);
  show();
}

// --- signing in -------------------------------------------------------------------------------------------

/** The user of a token, as far as its claims show. */
export function readToken(text) {
  try {
    const claims = JSON.parse(atob(text.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    return { subject: claims.sub, expires: claims.exp ? new Date(claims.exp * 1000) : null };
  } catch {
    return { subject: "", expires: null };
  }
}

/** Signs in by email and password; registers first if wanted. */
export async function signIn(email, password, isNew) {
  if (isNew) await call("POST", "/v1/auth/register", { email, password, requestId: newKey() });
  const tokens = await call("POST", "/v1/auth/login", { email, password });
  token.value = tokens.accessToken;
}

export function explain(error) {
  if (!(error instanceof Failure)) return "The server cannot be reached.";
  const fields = error.fields.map((it) => `${it.field}: ${it.description}`).join("; ");
  return [error.message, fields].filter(Boolean).join(" ");
}

/** A form that signs in. */
export function signInForm(onDone) {
  const email = h("input", { type: "email", name: "email", autocomplete: "username", required: true });
  const password = h("input", {
    type: "password",
    name: "password",
    autocomplete: "current-password",
    required: true,
    minLength: 8,
  });
  const isNew = h("input", { type: "checkbox", name: "new" });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const button = h("button", { class: "main", type: "submit" }, "Sign in");
  const form = h(
    "form",
    { class: "stack", onsubmit: submit },
    h("label", { class: "field" }, h("span", {}, "Email"), email),
    h("label", { class: "field" }, h("span", {}, "Password"), password),
    h("label", { class: "row small" }, isNew, "I have no account yet: create one"),
    problem,
    h("div", { class: "row end" }, button),
  );
  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    problem.hidden = true;
    try {
      await signIn(email.value, password.value, isNew.checked);
      onDone?.();
    } catch (error) {
      problem.textContent = explain(error);
      problem.hidden = false;
    } finally {
      button.disabled = false;
    }
  }
  return form;
}
