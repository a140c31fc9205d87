// Schemas as trees: the parts of a value, and its constraints.

import { h, prose } from "./page.js";

const DEEPEST = 8;

export class Schemas {
  constructor(api) {
    this.api = api;
  }

  /** Follows references to their end. */
  resolve(node) {
    while (node?.$ref) {
      node = node.$ref
        .slice(2)
        .split("/")
        .reduce((place, step) => place?.[step], this.api);
    }
    return node ?? {};
  }

  /** One schema instead of a reference or of the parts of an `allOf`. */
  flatten(schema) {
    const flat = {};
    const parts = [schema];
    while (parts.length) {
      const part = parts.shift();
      if (part.$ref)
        parts.unshift({ ...this.resolve(part), description: part.description ?? this.resolve(part).description });
      parts.push(...(part.allOf ?? []));
      for (const [key, value] of Object.entries(part)) {
        if (key === "properties") flat[key] = this.joined(flat[key] ?? {}, value);
        else if (key === "required") flat[key] = [...new Set([...(flat[key] ?? []), ...value])];
        else if (key !== "$ref" && key !== "allOf" && !(key === "description" && flat[key])) flat[key] = value;
      }
    }
    return flat;
  }

  joined(ours, theirs) {
    const all = { ...ours };
    for (const [name, schema] of Object.entries(theirs))
      all[name] = name in ours ? { allOf: [ours[name], schema] } : schema;
    return all;
  }

  /** The name of what a schema refers to, or of its type. */
  typeName(schema) {
    const named = schema.$ref ?? schema.allOf?.find((part) => part.$ref)?.$ref;
    if (named) return named.split("/").pop();
    const flat = this.flatten(schema);
    if (flat.type === "array") return `list of ${this.typeName(flat.items ?? {})}`;
    if (flat.type === "object" && typeof flat.additionalProperties === "object")
      return `map to ${this.typeName(flat.additionalProperties)}`;
    const type = [flat.type ?? "any"]
      .flat()
      .filter((it) => it !== "null")
      .join(" or ");
    return flat.format && flat.format !== type ? `${type} (${flat.format})` : type;
  }

  /** The rules of a schema, each a few words. */
  rules(schema) {
    const flat = this.flatten(schema);
    const notes = [];
    const between = (low, high, unit) => {
      if (low !== undefined && high !== undefined)
        notes.push(low === high ? `${low} ${unit}` : `${low} to ${high} ${unit}`);
      else if (low !== undefined) notes.push(`at least ${low} ${unit}`);
      else if (high !== undefined) notes.push(`at most ${high} ${unit}`);
    };
    const wide = (number) => (Math.abs(number) >= 2 ** 31 - 1 ? undefined : number);
    between(flat.minLength, flat.maxLength, "characters");
    between(flat.minItems, flat.maxItems, "entries");
    between(flat.minProperties, flat.maxProperties, "entries");
    const low = wide(flat.minimum);
    const high = wide(flat.maximum);
    if (low !== undefined || high !== undefined)
      notes.push(low === undefined ? `≤ ${high}` : high === undefined ? `≥ ${low}` : `${low} … ${high}`);
    if (flat.exclusiveMinimum !== undefined) notes.push(`> ${flat.exclusiveMinimum}`);
    if (flat.exclusiveMaximum !== undefined) notes.push(`< ${flat.exclusiveMaximum}`);
    if (flat.uniqueItems) notes.push("all different");
    if (flat.const !== undefined) notes.push(`always ${JSON.stringify(flat.const)}`);
    if (flat.pattern && !["int64", "uint64", "google-duration", "google-fieldmask"].includes(flat.format)) notes.push(flat.pattern);
    return notes;
  }

  /**
   * A value as rows: one for each property, with what is below it folded away. `isInput` is whether the reader has to write
   * such a value, and so needs to see what is required.
   */
  tree(schema, isInput, depth = 0, above = []) {
    const flat = this.flatten(schema);
    const inner = this.below(schema);
    if (!inner) return this.enumeration(flat) ?? h("p", { class: "soft small" }, this.typeName(schema));
    const { properties = {}, required = [] } = inner.flat;
    if (!Object.keys(properties).length) return h("p", { class: "soft small" }, "An empty object.");
    return h(
      "ul",
      { class: "tree" },
      Object.entries(properties).map(([name, property]) =>
        this.row(name, property, isInput, required.includes(name), depth, above),
      ),
    );
  }

  row(name, schema, isInput, isRequired, depth = 0, above = []) {
    const flat = this.flatten(schema);
    const inner = this.below(schema);
    const type = this.typeName(schema);
    const marks = [
      isInput && isRequired && h("span", { class: "mark needed" }, "required"),
      isInput && flat.readOnly && h("span", { class: "mark" }, "read only"),
      flat.writeOnly && h("span", { class: "mark" }, "write only"),
      flat["x-immutable"] && h("span", { class: "mark" }, "never changes"),
      flat["x-oneof"] && h("span", { class: "mark" }, `one of ${flat["x-oneof"]}`),
      flat.deprecated && h("span", { class: "mark warn" }, "deprecated"),
    ];
    const folds = inner && depth < DEEPEST && !above.includes(inner.name);
    const values = this.enumeration(flat) ?? this.enumeration(this.flatten(flat.items ?? {}));
    return h(
      "li",
      {},
      h("div", { class: "line" }, h("code", { class: "name" }, name), h("span", { class: "type" }, type), marks),
      flat.description && h("p", { class: "small" }, prose(flat.description)),
      this.rules(schema).length > 0 &&
        h(
          "p",
          { class: "rules" },
          this.rules(schema).map((rule) => h("code", {}, rule)),
        ),
      values && h("details", {}, h("summary", {}, "values"), values),
      folds && this.fold(inner, isInput, depth, above),
    );
  }

  /** Builds the tree below a row when it is first unfolded, since messages may be recursive. */
  fold(inner, isInput, depth, above) {
    const details = h("details", {}, h("summary", {}, "fields"));
    const fill = () =>
      details.open && details.append(this.tree(inner.schema, isInput, depth + 1, [...above, inner.name]));
    details.addEventListener("toggle", fill, { once: true });
    return details;
  }

  /** The object that a schema is, or that its list or map holds. */
  below(schema) {
    const flat = this.flatten(schema);
    if (flat.type === "array") return this.below(flat.items ?? {});
    if (flat.type !== "object") return null;
    if (!flat.properties && typeof flat.additionalProperties === "object") return this.below(flat.additionalProperties);
    return flat.properties ? { flat, schema, name: this.typeName(schema) } : null;
  }

  enumeration(flat) {
    if (!flat.enum || flat.type !== "string") return null;
    const notes = flat["x-enum-descriptions"] ?? [];
    return h(
      "ul",
      { class: "values" },
      flat.enum.map((value, at) =>
        h("li", {}, h("code", {}, value || '""'), " ", h("span", { class: "soft small" }, prose(notes[at] ?? ""))),
      ),
    );
  }
}
