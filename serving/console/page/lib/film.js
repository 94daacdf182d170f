// All that is known of one film: from the catalogue, from the release, and from the log.

import { card, empty, fill, h, table } from "./dom.js";
import { get, part } from "./api.js";
import { address } from "../app.js";
import { bars, lines, sparkline } from "./charts.js";
import { EVENTS, facts, known, thumb } from "./films.js";
import { count, decimal, moment, percent, seconds } from "./format.js";
import { picker } from "./picker.js";
import { art, bare, full, poster } from "./poster.js";
import { people } from "../pages/live.js";

export async function films(text, signal) {
  const found = await get(`/v1/console/items?k=10&q=${part(text)}`, signal);
  const options = found.items.map((item) => ({ value: item.item_id, title: full(item), note: (item.genres ?? []).slice(0, 2).join(", "), picture: thumb(item) }));
  const note = !text ? "The most watched; type to search by title or id." : !options.length ? `No title or id holds “${text}” (${count(found.searched)} films searched).` : found.fitting > options.length ? `${count(found.fitting)} of ${count(found.searched)} fit.` : "";
  return { options, note };
}

const STAGES = {
  released: ["warm", "good", "The release has learned from what people did with it."],
  shelf: ["cold", "warn", "It stands where its content alone puts it, until an update learns what people do with it."],
  described: ["described only", "", "The catalogue describes it, but nobody watched it before the release and it was not put on the shelf: it is not recommended."],
  unknown: ["unknown", "bad", "Neither the catalogue nor the release knows this id."],
};

export async function filmView(root, item, signal) {
  const told = await get(`/v1/console/item?item=${part(item)}`, signal);
  const found = told.stage === "released" || told.stage === "shelf" ? await known((await get(`/v1/items/${part(item)}/similar?k=12`, signal)).items, signal) : [];
  const [state, tone, meaning] = STAGES[told.stage];
  fill(root,
    h("section", { class: "card film-head" }, h("div", { class: "poster still" }, poster(told)),
      h("div", { class: "grow" }, h("h2", { class: "film-name" }, full(told)), h("p", { class: "quiet" }, facts(told) || "Nothing is said of it.", " · id ", h("code", {}, item)),
        h("p", {}, h("span", { class: `badge ${tone}` }, state), " ", told.withdrawn && h("span", { class: "badge bad" }, "withdrawn"), " ", told.withdrawn ? "It is not recommended to anybody until it is put again." : meaning),
        tiles(told), h("div", { class: "actions" }, h("span", { class: "quiet small" }, "Why is it (not) shown to"),
          picker({ label: "Search a person to ask about", placeholder: "a person…", search: people, choose: (user) => { location.hash = address("people", { user, why: item }); }, own: (text) => ({ value: text, title: `“${text}”`, note: "just this name" }) })))),
    h("div", { class: "film-grid" },
      h("div", {}, card("Nearest films", found.length ? nearest(found) : empty("It has no place among the films.", told.stage === "unknown" ? "Put it with PUT /v1/items/ID, or import a catalogue." : "Put it on the shelf (PUT /v1/items/ID), or update after somebody watched it.")),
        card("What the catalogue says", catalogue(told))),
      h("div", {}, card("What people did with it", exposure(told.exposure)), card("How its vector moved", movement(told)))));
}

function tiles(told) {
  const { learned, exposure: log } = told;
  const consumed = Object.entries(log.types).filter(([kind]) => kind !== "impression").reduce((sum, [, n]) => sum + n, 0);
  const age = (time) => seconds((told.now - time) / 1000);
  const one = (value, words, title) => h("div", { class: "tile", title }, h("b", {}, value), h("span", {}, words));
  return h("div", { class: "tiles" },
    one(told.place ? `#${count(told.place)}` : "–", `in popularity, of ${count(told.of)}`, "by the release's count, in which older views weigh less"),
    one(percent(told.share, 2), "of what is watched now", "share of the release's count, in which older views weigh less"),
    one(count(consumed), log.looked_at < log.events ? `events among the newest ${count(log.looked_at)}` : "events in the log", "all but impressions"),
    one(learned ? age(learned.first_seen) : "–", "old when the release was made", learned ? `first seen ${moment(learned.first_seen)}` : "the release has not seen it"),
    one(learned ? age(learned.last_seen) : "–", "since it was seen, by then", learned ? `last seen ${moment(learned.last_seen)}` : "the release has not seen it"));
}

const nearest = (found) => h("ul", { class: "near" }, found.map((item) => h("li", {}, h("a", { href: address("people", { item: item.item_id }), class: "near-film", title: full(item) },
  h("span", { class: "poster still" }, art(item)), h("span", { class: "near-title" }, bare(item)), h("span", { class: "quiet small" }, `cosine ${decimal(item.score, 2)}`)))));

function exposure(log) {
  const rows = Object.entries(log.types).map(([kind, n]) => ({ name: (EVENTS[kind] ?? ["", kind])[1], value: n })).sort((a, b) => b.value - a.value);
  const where = log.looked_at < log.events ? `among the newest ${count(log.looked_at)} of ${count(log.events)} events` : `in all ${count(log.events)} events of the log`;
  if (!rows.length) return empty("The log has no event with it.", `Looked for ${where}. What waits in Redis is counted once it is archived.`, "recsys archive");
  return h("div", {}, bars({ rows, format: count, label: "events with this film, by type" }),
    log.spans.length > 1 && h("div", { class: "spark-row" }, sparkline(log.spans, { label: `events in each ${seconds(log.span / 1000)}, ${moment(log.first).slice(0, 10)} to ${moment(log.last).slice(0, 10)}`, width: 320, height: 46 }),
      h("p", { class: "quiet small" }, `${moment(log.first).slice(0, 10)} to ${moment(log.last).slice(0, 10)}, in spans of ${seconds(log.span / 1000)}; ${where}.`)),
    h("p", { class: "quiet small" }, "Being shown is logged only where a list explored, so impressions are fewer than what people saw."));
}

function movement(told) {
  const seen = told.moves.filter((move) => move.known);
  const points = (name) => told.moves.map((move, x) => ({ x, y: move[name] })).filter((point) => typeof point.y === "number");
  if (!seen.length) return empty("No release knows it yet.", "An update learns it once somebody watched it.", "recsys update");
  if (!points("cosine").length) return empty(`It is known since release ${seen[0].release}: there is no step to compare yet.`, "The next update makes one.", "recsys update");
  return h("div", {}, h("p", { class: "quiet small" }, "The cosine between its vector in a release and in the one before: 1 is where it was. Beside it what is usual: the median of other films."),
    lines({ series: [{ name: "this film", points: points("cosine") }, { name: "usual", points: points("usual"), dashed: true }], x: { label: "release", format: (x) => told.moves[Math.round(x)]?.release ?? "" }, y: { label: "cosine with the release before", format: (y) => decimal(y, 3) }, height: 230, label: "movement of the vector over releases" }),
    h("details", {}, h("summary", { class: "small" }, "As figures"), table([{ name: "Release", value: (move) => move.release }, { name: "This film", number: true, value: (move) => move.known ? decimal(move.cosine, 4) : "not known yet" }, { name: "Usual", number: true, value: (move) => decimal(move.usual, 4) }], told.moves, { caption: "cosine with the release before" })));
}

function catalogue(told) {
  const rows = Object.entries(told.columns);
  if (!rows.length) return empty("The catalogue says nothing of it.", "Say what is known of it with PUT /v1/items/ID, or import a catalogue.", "recsys import --items ITEMS.csv");
  return table([{ name: "Column", value: ([name]) => name }, { name: "Value", value: ([, value]) => Array.isArray(value) ? value.join(", ") : String(value) }], rows, { caption: "columns of the catalogue" });
}
