// The frame of the console: which page is shown, and how things stand. A page is a module in pages/ with a `mount(root, {params, signal})`.

import { fill, h } from "./lib/dom.js";
import { get, keep, pause, poll } from "./lib/api.js";

export const PAGES = [
  ["live", "Live"],
  ["updates", "Updates"],
  ["forgetting", "Forgetting"],
  ["replay", "Replay"],
  ["people", "Users / Items"],
  ["index", "Index & drift"],
  ["system", "System"],
];

const main = document.getElementById("main");
const banner = document.getElementById("banner");
let leaving = new AbortController();
let answers; // the live release; null where there is none yet

// Where we are: #/people?user=ann -> {page: "people", params: URLSearchParams}.
export function place() {
  const [page, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { page: PAGES.some(([name]) => name === page) ? page : "live", params: new URLSearchParams(query ?? "") };
}

// The address of a page: address("people", {user: "ann"}).
export function address(page, params = {}) {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== undefined && value !== "")).toString();
  return `#/${page}${query ? `?${query}` : ""}`;
}

// Let the address say what a page shows, without a new entry in the history: a reload or a copied link shows the same. Whoever has gone on to
// another page meanwhile, which the address says before anything else happens, is not called back.
export function settle(page, params) {
  if (place().page === page) history.replaceState(null, "", address(page, params));
}

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const { page, params } = place();
  const title = PAGES.find(([name]) => name === page)[1];
  document.title = `${title} · recsys`;
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.dataset.page === page) {
      link.setAttribute("aria-current", "page");
      link.parentElement.scrollLeft = link.offsetLeft - link.parentElement.clientWidth / 2; // on a phone not all names fit
    } else link.removeAttribute("aria-current");
  }
  const root = h("div", { class: `page page-${page}` });
  fill(main, root);
  try {
    const module = await import(`./pages/${page}.js`);
    if (!signal.aborted) await module.mount(root, { params, signal });
  } catch (error) {
    if (signal.aborted || error.name === "AbortError") return;
    if (error.status === 401 || error.status === 403) fill(root, locked(error));
    else {
      const away = error.status === 0 || error.status === 503;
      fill(root, h("div", { class: "problem", role: "alert" }, h("strong", {}, "This page could not be shown. "), error.message, away && "; trying again every few seconds"),
        h("button", { onclick: show }, "Try again"));
      if (away) pause(3000, signal).then(() => signal.aborted || show());
      if (error.status === undefined) console.error(error);
    }
  }
}

// A server with keys: the page asks for one, and keeps it until the tab is closed.
function locked(error) {
  const field = h("input", { type: "password", name: "key", autocomplete: "off", required: true, "aria-label": "API key", placeholder: "rk_…" });
  return h("form", { class: "card locked", onsubmit: (event) => { event.preventDefault(); keep(field.value.trim()); show(); tell(); } },
    h("h2", {}, "The console needs a key"), h("p", {}, error.message),
    h("p", {}, "The console needs one with the scopes read, write and admin. It stays in this tab and goes when the tab is closed."),
    h("pre", {}, "recsys keys add console --scopes read,write,admin"),
    h("div", { class: "actions" }, field, h("button", { class: "primary" }, "Open")));
}

async function tell() {
  try {
    const { live } = await get("/v1/releases");
    if (live && answers === null) show(); // the first release: pages were empty without it
    answers = live;
    document.getElementById("now").textContent = live ? `release ${live}` : "no release yet";
    banner.hidden = true;
  } catch (error) {
    if (error.status === 401 && !main.querySelector(".locked")) show(); // the key was taken away, or the server got its first one
    if (error.status === 401 || error.status === 403) return;
    banner.textContent = error.status === 0 ? "The API does not answer; trying again every two seconds." : error.message;
    banner.hidden = false;
  }
}

function theme() {
  const chosen = localStorage.getItem("recsys.theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).colorScheme.trim() === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("recsys.theme", document.documentElement.dataset.theme);
  });
}

// [ and ] walk through the pages; not while somebody types.
function keys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
    const at = PAGES.findIndex(([name]) => name === place().page);
    const to = { "[": at - 1, "]": at + 1 }[event.key];
    if (to !== undefined) location.hash = address(PAGES[(to + PAGES.length) % PAGES.length][0]);
  });
}

// Its address would be a page's, and lead away from the one that is shown.
function skip(event) {
  event.preventDefault();
  main.focus();
}

fill(document.getElementById("nav"), PAGES.map(([name, title]) => h("a", { href: address(name), "data-page": name }, title)));
document.querySelector(".skip").addEventListener("click", skip);
theme();
keys();
addEventListener("hashchange", show);
show();
poll(2000, new AbortController().signal, tell);
