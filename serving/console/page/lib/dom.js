// Elements from plain calls: h("p", {class: "quiet"}, "text", other). Text is text: nothing that comes from a log is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

export function h(tag, props = {}, ...children) {
  return built(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
  return built(document.createElementNS(SVG, tag), props, children);
}

function built(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style" && typeof value === "object") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name === "value" || name === "checked" || name === "selected") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Put children in the place of what an element held.
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// What stands where there is nothing yet: what it is, and what to do next. command: shown as something to type.
export function empty(what, next, command) {
  return h("div", { class: "empty" }, h("p", {}, h("strong", {}, what)), next && h("p", {}, next), command && h("pre", {}, command));
}

export function card(title, ...children) {
  return h("section", { class: "card" }, title && h("h2", {}, title), ...children);
}

// columns: [{name, value: row => child, number: true for figures, title: explanation}]. label: how a reader of the screen hears of it, the caption where it has one.
export function table(columns, rows, { caption, label = caption, row: props = () => ({}) } = {}) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label ?? "table" },
    h("table", {},
      caption && h("caption", {}, caption),
      h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col", class: column.number && "number", title: column.title }, column.name)))),
      h("tbody", {}, rows.map((row) => h("tr", props(row), columns.map((column) => h("td", { class: column.number && "number" }, column.value(row))))))));
}

// Ask before something that others will see. Resolves to true or false; Escape is no.
export function confirmed(question, detail, yes) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-label": question },
      h("form", { method: "dialog" }, h("h2", {}, question), detail && h("p", {}, detail),
        h("div", { class: "actions" }, h("button", { value: "no" }, "Cancel"), h("button", { value: "yes", class: "primary" }, yes))));
    dialog.addEventListener("close", () => { resolve(dialog.returnValue === "yes"); dialog.remove(); });
    document.body.append(dialog);
    dialog.showModal();
  });
}
