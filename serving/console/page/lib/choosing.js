// Choosing a result, the same for Replay and Forgetting: one of the home's reports, or a file of the reader's own, which never leaves the browser.

import { address, settle } from "../app.js";
import { get } from "./api.js";
import { card, empty, fill, h } from "./dom.js";
import { bytes, count, moment } from "./format.js";
import { parse, read, Refused } from "./results.js";

const LARGEST = 64e6; // bytes of a file of one's own
const OWN = "file:"; // before the name of a file of one's own, in the address
const opened = new Map(); // what was read: the address's name -> result; gone when the page is loaded anew
const KEPT = 6;
let last = null; // what was looked at last, for a page that is opened without a name

export const COMMAND = "recsys evaluate --window 7d --train 8 --methods popular,knn,frozen,naive,replay+ewc,replay+ewc+neighbours --home HOME";

function keep(name, result) {
  opened.delete(name);
  opened.set(name, result);
  if (opened.size > KEPT) opened.delete(opened.keys().next().value);
  return result;
}

// What the address says; the other page opens with the same result.
export function remember(page, params) {
  settle(page, params);
  for (const other of ["replay", "forgetting"]) {
    document.querySelector(`#nav a[data-page=${other}]`)?.setAttribute("href", address(other, { result: params.result }));
  }
}

// Put the picker into root and call show(result, {name, folder, place}) with what is chosen; place: an element to fill. Nothing chosen: the empty state.
export async function choosing(root, { page, params, signal, title, lead, show }) {
  const choice = h("select", { "aria-label": "result" });
  const file = h("input", { type: "file", accept: ".json,application/json", class: "hidden-file", id: "own-file" });
  const said = h("div", { role: "status", "aria-live": "polite" });
  const place = h("div", {});
  const over = h("div", { class: "drop", hidden: true }, "Drop a result to open it here. It is read in this browser and sent nowhere.");
  fill(root, h("h1", {}, title), h("p", { class: "lead" }, lead),
    h("div", { class: "card choosing" }, h("label", { class: "wide-label" }, h("span", { class: "quiet" }, "Result"), choice),
      h("label", { class: "button", for: "own-file", title: "It is read in this browser and sent nowhere. You can also drop it anywhere on the page." }, file, "Open a file of yours…"),
      h("span", { class: "quiet small" }, "or drop one on the page; it stays in this browser")),
    over, said, place);

  let listed = { results: [], unfinished: [], folder: "", left_out: 0 };
  let turn = 0;

  function choices(name) {
    const own = [...opened.keys()].filter((each) => each.startsWith(OWN));
    const option = (value, words) => h("option", { value, selected: value === name }, words);
    fill(choice,
      !name && h("option", { value: "", selected: true }, listed.results.length ? "choose one" : "none yet"),
      listed.results.length > 0 && h("optgroup", { label: "in this home" }, listed.results.map((each) => option(each.name, about(each)))),
      own.length > 0 && h("optgroup", { label: "of yours, in this browser only" }, own.map((each) => option(each, each.slice(OWN.length)))),
      name && !listed.results.some((each) => each.name === name) && !own.includes(name) && option(name, name));
    choice.value = name ?? "";
  }

  // quietly: what is no result is passed over; the answer says whether it was one.
  async function choose(name, quietly = false) {
    const mine = ++turn;
    choices(name);
    fill(said);
    if (!name) return nothing();
    try {
      const result = opened.get(name) ?? await fetched(name, signal);
      if (mine !== turn || signal.aborted) return true;
      last = name;
      keep(name, result);
      show(result, { name, folder: listed.folder, run: name.includes("/") && !name.startsWith(OWN) ? `${listed.folder}/${name.split("/")[0]}` : null, place });
      return true;
    } catch (error) {
      if (error.name === "AbortError" || mine !== turn) return true;
      if (error.status === 401 || error.status === 403) throw error;
      if (quietly && error instanceof Refused) return false;
      if (!(error instanceof Refused) && error.status === undefined) console.error(error);
      refuse(error.message);
      fill(place);
      return true;
    }
  }

  const refuse = (message) => fill(said, h("div", { class: "problem", role: "alert" }, message));

  function nothing() {
    fill(place, empty("No result in this home yet.", "A replay answers every window of the log before it learns from it, by every method side by side. It is listed here when it has finished:", COMMAND),
      listed.unfinished.length > 0 && h("p", { class: "quiet" }, `Not finished: ${listed.unfinished.join(", ")}. Go on with `, h("code", {}, "recsys evaluate --resume --home HOME"), "."));
  }

  async function own(given) {
    if (!given) return;
    if (given.size > LARGEST) return refuse(`${given.name} has ${bytes(given.size)}; a result of up to ${bytes(LARGEST)} can be opened. The file was not read.`);
    try {
      const name = OWN + given.name;
      keep(name, parse(await given.text(), given.name));
      if (!signal.aborted) await choose(name);
    } catch (error) {
      refuse(error.message);
    }
  }

  choice.addEventListener("change", () => { if (choice.value) choose(choice.value); });
  file.addEventListener("change", () => { own(file.files[0]); file.value = ""; });
  let inside = 0;
  const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const drag = (event) => { if (files(event)) { event.preventDefault(); over.hidden = inside <= 0; } };
  document.addEventListener("dragenter", (event) => { if (files(event)) inside++; drag(event); }, { signal });
  document.addEventListener("dragover", drag, { signal });
  document.addEventListener("dragleave", (event) => { if (files(event)) inside--; over.hidden = inside <= 0; }, { signal });
  document.addEventListener("drop", (event) => { if (!files(event)) return; event.preventDefault(); inside = 0; over.hidden = true; own(event.dataTransfer.files[0]); }, { signal });

  choices(null);
  listed = await get("/v1/console/results", signal);
  if (signal.aborted) return;
  if (turn) return choices(last); // a file was dropped before the list came
  const wanted = params.get("result") ?? last;
  if (wanted?.startsWith(OWN) && !opened.has(wanted)) {
    choices(wanted);
    return refuse(`${wanted.slice(OWN.length)} was a file of yours, and this browser does not keep it: open it again, or choose another result.`);
  }
  if (wanted) return void await choose(wanted);
  for (const { name } of listed.results.slice(0, 5)) if (await choose(name, true)) return;
  await choose(null);
}

const about = (each) => `${each.name.replace(/\/results\.json$/, "")} · ${each.methods ? `${each.methods.length} methods · ` : ""}${moment(each.modified)} · ${bytes(each.bytes)}`;

// A name is letters, of which only the slash of a run's folder is a slash.
async function fetched(name, signal) {
  const found = await get(`/v1/console/results/${name.split("/").map(encodeURIComponent).join("/")}`, signal);
  return typeof found === "string" ? parse(found, name) : read(found, name);
}

// Draw something anew without the page jumping: while it is short of its pictures it would scroll up.
export function steady(draw) {
  const y = scrollY;
  draw();
  if (y) queueMicrotask(() => scrollTo({ top: y, behavior: "instant" }));
}

// What a result is: its protocol, windows, targets, seeds; and how to get it again.
export function facts(result) {
  const begins = result.windows.map((window) => window.begin).filter(Boolean).map((begin) => begin.slice(0, 10));
  const targets = result.windows.reduce((sum, window) => sum + (window.targets ?? 0), 0);
  return [
    result.protocol, `${result.methods.length} methods`,
    result.windows.length > 0 && `${result.windows.length} ${result.windows.length === 1 ? "window" : "windows"}${begins.length && result.protocol !== "ader" ? `, ${begins[0]} to ${begins.at(-1)}` : ""}`,
    targets > 0 && `${count(targets)} targets`, result.seeds > 1 && `${result.seeds} seeds`, result.baseline && `baseline ${result.baseline}`,
  ].filter(Boolean).join(" · ");
}

export function again(result) {
  const pairs = [["started", result.started && moment(result.started)], ["took", result.seconds && `${count(result.seconds)} s`],
    ["machine", [result.machine.cpu, result.machine.cores && `${result.machine.cores} cores`, result.machine.memory_gb && `${result.machine.memory_gb} GB`].filter(Boolean).join(", ")],
    ["versions", Object.entries(result.versions).filter(([, value]) => value).map(([key, value]) => `${key} ${value}`).join(", ")]].filter(([, value]) => value);
  return card("To get it again", result.command ? h("pre", {}, result.command) : h("p", { class: "quiet" }, "The command was not recorded."),
    pairs.length > 0 && h("dl", { class: "pairs" }, pairs.map(([key, value]) => [h("dt", {}, key), h("dd", {}, value)])),
    Object.keys(result.settings).length > 0 && h("details", {}, h("summary", {}, "all settings"), h("pre", {}, JSON.stringify(result.settings, null, 1))));
}

// A method's name that may go on in the next line behind a bracket, a comma or a plus.
export const breakable = (name) => h("span", {}, name.split(/(?<=[+,(_])/).map((piece, n) => [n > 0 && h("wbr"), piece]));

// One of several, as buttons side by side. options: [[value, words]]
export function either(label, options, value, changed) {
  const group = h("div", { class: "either", role: "group", "aria-label": label });
  const press = (chosen) => fill(group, options.map(([each, words]) =>
    h("button", { type: "button", "aria-pressed": each === chosen ? "true" : "false", onclick: () => { press(each); changed(each); group.querySelector("[aria-pressed=true]").focus(); } }, words)));
  press(value);
  return group;
}

export function select(label, options, value, changed) {
  const choice = h("select", { onchange: () => changed(choice.value) }, options.map((each) => Array.isArray(each[1])
    ? h("optgroup", { label: each[0] }, each[1].map(([one, words]) => h("option", { value: one, selected: one === value }, words)))
    : h("option", { value: each[0], selected: each[0] === value }, each[1])));
  return h("label", {}, h("span", { class: "quiet" }, label), choice);
}
