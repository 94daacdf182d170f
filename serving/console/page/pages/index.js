// Index & drift: what is searched and how truly, how fast the world turns over, how far each update moved things, and what made the job learn.

import { get, part } from "../lib/api.js";
import { lines } from "../lib/charts.js";
import { address } from "../app.js";
import { card, empty, fill, h, table } from "../lib/dom.js";
import { bytes, count, decimal, moment, percent } from "../lib/format.js";
import { follow, reasons } from "../lib/releases.js";

const FIRST = 12, MORE = 24;

export async function mount(root, { signal }) {
  const tiles = h("div", { class: "tiles four" }), pictures = h("div", { class: "grid pair" }), moves = h("div", {}), drift = h("div", {});
  fill(root, h("h1", {}, "Index & drift"), h("p", { class: "lead" }, "What is searched and how truly, how fast the catalogue turns over, how far each update moved things, and what made the job learn. Releases are those that led to the live one."), tiles, pictures, moves, drift);
  const [held, found] = await Promise.all([get("/v1/console/index", signal), follow(signal)()]);
  if (!held.release) {
    fill(tiles);
    return fill(pictures, empty("No release answers.", `${held.missing}.`, "recsys fit"));
  }
  tilesOf(tiles, held, found.releases);
  const line = lineage(found.releases, found.live);
  fill(pictures, sizeOf(line), turnoverOf(line));
  fill(drift, driftOf(found.lines), logOf(found.lines));
  await movement(moves, line, signal);
}

// The live release and those that it came from, oldest first: the others are side ways that were not gone on.
export function lineage(releases, live) {
  const by = new Map(releases.map((about) => [about.id, about])), found = [];
  for (let about = by.get(live); about && !found.includes(about); about = by.get(about.parent)) found.unshift(about);
  return found;
}

function tilesOf(element, held, releases) {
  const about = releases.find((one) => one.id === held.release);
  const tile = (value, name, title, id) => h("div", { class: "tile", title, "data-figure": id }, h("b", {}, value), h("span", {}, name));
  fill(element, tile(count(held.items), "items in the index", "what the live release has learned of", "items"), tile(count(held.delta), "new since the release", "items that came since stand beside the index, placed by their content alone, until the next update", "delta"),
    tile(count(held.tombstones), "withdrawn", "items nobody is recommended any more; the next release leaves them out", "tombstones"), tile(percent(held.recall), "recall@100 against exact", "the share of the true best 100 that a search finds, measured when the index was built", "recall"),
    tile(held.kind, held.lists ? `${count(held.lists_asked)} of ${count(held.lists)} lists are searched` : "compares every item, so it finds all", "exact below index.exact_below items, IVF above"),
    tile(bytes(about?.index?.bytes), "index file", `vectors of ${held.width} numbers`), tile(held.release, `towers ${held.towers.slice(0, 8)}`, `the index carries the hash of the towers that made it and refuses others: ${held.towers}`), tile(moment(held.learned_until).slice(0, 10), "newest event it has learned", moment(held.learned_until)));
}

const along = (line) => ({ label: "release", whole: true, format: (n) => line[n]?.id.replace(/^0+(?=\d)/, "") ?? "", ticks: line.map((_, n) => n) });

function sizeOf(line) {
  const series = [{ name: "items in the index", points: line.map((about, n) => ({ x: n, y: about.index?.items })) }];
  const recalls = line.map((about) => about.index?.["recall@100"]), inexact = line.some((about) => !about.index?.exact);
  return card("Size over releases", lines({ series, x: along(line), y: { label: "items", format: count, from: 0 }, height: 200, label: "Items in the index of each release" }),
    inexact ? [h("h3", {}, "Recall@100 against exact"), lines({ series: [{ name: "recall@100", points: recalls.map((y, x) => ({ x, y })) }], x: along(line), y: { label: "share of the true best 100", format: (value) => percent(value) }, height: 170, label: "Recall of each release's index" })]
      : h("p", { class: "quiet" }, "Every one of these indexes is exact, so recall is 100% by construction; a large catalogue gets an IVF, and its recall is drawn here."));
}

function turnoverOf(line) {
  const updates = line.map((about, n) => [about, n]).filter(([about]) => about.metrics?.["new items"] !== undefined);
  if (!updates.length) return card("How fast it turns over", empty("No update yet.", "What each update meets for the first time is drawn here, once there is one:", "recsys update"));
  const series = [{ name: "new items, of all items", points: updates.map(([about, x]) => ({ x, y: about.metrics["new items"] / about.metrics.items })) }];
  const people = updates.filter(([about]) => about.metrics["new people"] !== undefined && about.metrics.events);
  if (people.length) series.push({ name: "new people, per event", points: people.map(([about, x]) => ({ x, y: about.metrics["new people"] / about.metrics.events })) });
  const last = updates.at(-1)[0];
  return card("How fast it turns over", lines({ series, x: along(line), y: { label: "new in each update", format: (value) => percent(value), from: 0 }, height: 200, label: "Share of new items, and new people per event, of each update" }),
    h("p", { class: "quiet" }, `Release ${last.id} met ${count(last.metrics["new items"])} items${last.metrics["new people"] ? ` and ${count(last.metrics["new people"])} people` : ""} for the first time, in ${count(last.metrics.events)} events.`));
}

// Compared one after the other, the newest first, and older ones when somebody asks: each is read from the files of two releases.
async function movement(element, line, signal) {
  const updates = line.filter((about) => about.parent);
  const title = "How far each update moved things";
  if (!updates.length) return fill(element, card(title, empty("Nothing to compare yet.", "An update is compared with the release that it came from:", "recsys update")));
  const known = new Map();
  let wanted = FIRST;
  const told = h("p", { class: "quiet", role: "status" });
  const pictures = h("div", { class: "grid pair inner" }), hits = h("div", {});
  const more = h("button", { onclick: () => { wanted += MORE; read(); } }, "Compare older ones too");
  fill(element, card(title, told, pictures, hits, h("div", { class: "actions" }, more)));

  async function read() {
    more.hidden = true;
    const asked = updates.slice(-wanted).reverse().filter((about) => !known.has(about.id));
    for (const [n, about] of asked.entries()) {
      told.textContent = `Comparing release ${about.id} with ${about.parent}: ${n + 1} of ${asked.length}.`;
      try { known.set(about.id, await get(`/v1/console/movement/${part(about.id)}`, signal)); } catch (error) {
        if (signal.aborted) return;
        known.set(about.id, { missing: error.message });
      }
    }
    show();
  }

  function show() {
    const seen = line.map((about, x) => [known.get(about.id), x]).filter(([one]) => one && !one.missing);
    const wrong = [...known].filter(([, one]) => one.missing);
    told.textContent = wrong.length ? `Not compared: ${wrong.map(([id, one]) => `${id} (${one.missing})`).join("; ")}.` : "";
    more.hidden = known.size >= updates.length;
    if (!seen.length) return;
    const turned = seen.filter(([one]) => one.vectors);
    const quantile = (q) => turned.map(([one, x]) => ({ x, y: one.vectors.quantiles[q] }));
    const spread = turned.map(([one, x]) => ({ x, y: one.vectors.quantiles["0.5"], low: one.vectors.quantiles["0.05"], high: one.vectors.quantiles["0.95"] }));
    const shift = [{ name: "went to other items", points: seen.map(([one, x]) => ({ x, y: one.popularity.moved })) }, { name: "went to new items", points: seen.map(([one, x]) => ({ x, y: one.popularity.new })) }];
    const last = turned.at(-1)?.[0];
    fill(pictures,
      h("div", {}, h("h3", {}, "Item vectors"), turned.length ? lines({ series: [{ name: "median, and 5% to 95%", points: spread }, { name: "1% that moved most", points: quantile("0.01"), dashed: true }], x: along(line), y: { label: "cosine with the parent's vector; 1: stayed", format: (value) => decimal(value, 3) }, height: 230, label: "Cosine of each item's vector with that in the parent release" })
        : h("p", { class: "quiet" }, "A retrain places items anew in a space of its own: nothing to compare."),
        last && h("p", { class: "quiet" }, `In release ${last.release} ${percent(last.vectors.same)} of ${count(last.vectors.compared)} vectors are the same to the last bit, and half have a cosine above ${decimal(last.vectors.quantiles["0.5"], 3)}.`)),
      h("div", {}, h("h3", {}, "Popularity"), lines({ series: shift, x: along(line), y: { label: "part of what is watched", format: (value) => percent(value), from: 0 }, height: 230, label: "Part of what is watched that each update saw go to other items" })));
    fill(hits, hitsOf(seen.at(-1)[0]));
  }

  await read();
}

function hitsOf({ release, parent, popularity }) {
  const row = (one) => h("tr", {}, h("td", { class: "which" }, h("a", { href: address("people", { item: one.item_id }) }, one.title || one.item_id)), h("td", { class: "number" }, percent(one.from, 2)), h("td", { class: "number" }, percent(one.to, 2)),
    h("td", { class: `number ${one.to >= one.from ? "good" : "bad"}` }, `${one.to >= one.from ? "▲ +" : "▼ −"}${decimal(100 * Math.abs(one.to - one.from), 2)} points`));
  const rows = [...popularity.up, ...popularity.down.slice(0, 3)];
  if (!rows.length) return null;
  return [h("h3", {}, "What gained and lost most"), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "What gained and lost most" }, h("table", {}, h("caption", {}, `Share of what is watched, release ${parent} against ${release}; the past fades, so what nobody watches loses`),
    h("thead", {}, h("tr", {}, ["item", parent, release, "change"].map((name, n) => h("th", { scope: "col", class: n && "number" }, name)))), h("tbody", {}, rows.map(row))))];
}

function driftOf(journal) {
  const measured = journal.filter((line) => Object.keys(line.measured?.drift ?? {}).length);
  const title = "Drift of the log";
  if (!measured.length) return card(title, empty("The job has measured no drift yet.", "It does at each update, where there are enough events (job.few), and writes down what it saw:", "recsys job run"));
  const names = [...new Set(measured.flatMap((line) => Object.keys(line.measured.drift)))];
  const series = names.map((name) => ({ name, points: measured.map((line, x) => ({ x, y: line.measured.drift[name]?.now ?? null })) }));
  const last = measured.at(-1);
  return card(title, h("p", { class: "quiet" }, "How unlike the new events were to those right before them, as the job saw it at each update: population stability index; by custom 0.1 is a small shift and 0.25 a large one. Some logs always turn over, so the job asks how much one rose above what it was before, and learns at once where that is job.drift."),
    measured.length > 1 ? lines({ series, x: { label: "update of the job", whole: true, ticks: measured.map((_, n) => n), format: (n) => measured[n] ? moment(measured[n].time).slice(5) : "" }, y: { label: "stability index", from: 0, format: (value) => decimal(value, 2) }, height: 230, label: "Population stability index at each update of the job" }) : null,
    table([{ name: `at the update of ${moment(last.time)}`, value: ([name]) => name }, { name: "new events", number: true, value: ([, one]) => decimal(one.now, 3) }, { name: "before that", number: true, value: ([, one]) => decimal(one.before, 3) },
      { name: "in words", value: ([, one]) => shifted(one.now, one.before) }], Object.entries(last.measured.drift), { caption: "Stability index, 0 for the same" }));
}

// What a log that always turns over does is no news: the rise counts, as it does for the trigger.
const shifted = (now, before) => now < 0.1 ? "steady" : now - before < 0.1 ? "no more than before" : now - before < 0.25 ? "somewhat more than before" : "far more than before";

const BECAME = { published: ["good", "published"], "on trial": ["warn", "on trial"], refused: ["bad", "refused"], superseded: ["", "superseded"] };

function logOf(journal) {
  const lines = journal.filter((line) => line.triggers).slice(-50).reverse();
  const title = "What made the job learn";
  if (!lines.length) return card(title, empty("The job has not learned anything yet.", "Each of its updates says here which trigger wanted it:", "recsys job watch"));
  return card(title, table([
    { name: "when", value: (line) => h("span", { style: { "white-space": "nowrap" } }, moment(line.time)) },
    { name: "because", value: (line) => reasons(line).map((reason) => h("div", { class: "because" }, reason)) },
    { name: "events", number: true, value: (line) => count(line.events) },
    { name: "about unknown items", number: true, title: "share of the new events that are about items nobody had learned", value: (line) => percent(line.measured?.["new items"]) },
    { name: "hours since", number: true, title: "hours since the last update", value: (line) => decimal(line.measured?.hours, 1) },
    { name: "became", value: (line) => h("span", { class: `badge ${BECAME[line.what]?.[0] ?? ""}` }, [BECAME[line.what]?.[1] ?? line.what, line.release].filter(Boolean).join(" ")) },
  ], lines, { caption: `The newest ${count(lines.length)}; the gate's reasons are on the page Updates` }));
}
