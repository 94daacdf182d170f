// A field that finds something while one types, with arrow keys and Enter (the combobox pattern of WAI-ARIA).

import { fill, h } from "./dom.js";
import { pause } from "./api.js";

let serial = 0;

// search: async (text, signal) => {options: [{value, title, note, picture}], note}; choose: (value) => void; own: (text) => option or null, what was typed taken as it is.
export function picker({ label, placeholder, search, choose, own = () => null }) {
  const id = `picker-${(serial += 1)}`;
  const list = h("ul", { id, role: "listbox", class: "options", "aria-label": label });
  const note = h("p", { class: "options-note small quiet", role: "status" });
  const box = h("div", { class: "options-box", hidden: true }, list, note);
  const input = h("input", { type: "search", role: "combobox", autocomplete: "off", spellcheck: "false", placeholder, "aria-label": label, "aria-expanded": "false", "aria-controls": id, "aria-autocomplete": "list" });
  let options = [], told = null, at = -1, asking = new AbortController();

  const close = () => { box.hidden = true; input.setAttribute("aria-expanded", "false"); input.removeAttribute("aria-activedescendant"); at = -1; };
  const take = (option) => { asking.abort(); close(); input.value = ""; input.blur(); choose(option.value); };

  function move(to) {
    at = options.length ? (to + options.length) % options.length : -1;
    for (const [place, child] of [...list.children].entries()) child.setAttribute("aria-selected", String(place === at));
    if (at >= 0) { input.setAttribute("aria-activedescendant", `${id}-${at}`); list.children[at].scrollIntoView({ block: "nearest" }); }
  }

  async function look() {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    const text = input.value.trim();
    told = null;
    await pause(120, signal);
    if (signal.aborted) return;
    try {
      const found = await search(text, signal);
      if (signal.aborted) return;
      const mine = text ? own(text) : null;
      told = text;
      options = [...found.options, ...(mine && !found.options.some((option) => option.value === mine.value) ? [mine] : [])];
      fill(list, options.map((option, place) => h("li", { role: "option", id: `${id}-${place}`, "aria-selected": "false", onmousedown: (event) => { event.preventDefault(); take(option); } },
        option.picture, h("span", { class: "option-title" }, option.title), option.note && h("span", { class: "quiet small" }, option.note))));
      fill(note, found.note ?? "");
      note.hidden = !found.note;
    } catch (error) {
      if (signal.aborted || error.name === "AbortError") return;
      options = [];
      fill(list);
      fill(note, error.message);
      note.hidden = false;
    }
    box.hidden = false;
    input.setAttribute("aria-expanded", "true");
    at = -1;
  }

  // What is taken was found for what stands there, however fast somebody types.
  async function enter(event) {
    event.preventDefault();
    if (told !== input.value.trim()) await look();
    const option = options[Math.max(at, 0)];
    if (option && !box.hidden && told === input.value.trim()) take(option);
  }

  input.addEventListener("input", look);
  input.addEventListener("focus", look);
  input.addEventListener("blur", () => { asking.abort(); close(); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); if (box.hidden) look(); else move(at + (event.key === "ArrowDown" ? 1 : at < 0 ? 0 : -1)); }
    else if (event.key === "Enter") enter(event);
    else if (event.key === "Escape") { close(); event.stopPropagation(); }
  });
  return h("div", { class: "picker" }, input, box);
}
