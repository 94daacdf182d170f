// Films and people in plain words, and what is known of items: asked once, kept while the console is open.

import { empty, h } from "./dom.js";
import { get } from "./api.js";
import { address } from "../app.js";
import { art, bare, full, yearOf } from "./poster.js";

export const SOURCES = {
  tower: ["◎", "your taste", "The towers: what lies nearest to the vector that the history makes"],
  neighbours: ["⁂", "people like you", "The neighbours: what people with sessions like these went on to"],
  popular: ["★", "popular", "Popularity: what most people watch"],
  explore: ["⚂", "a try", "Exploration: drawn by chance from the best, to learn from the answer"],
  pinned: ["⚑", "pinned", "House rules: put at this place for everybody"],
};

// How an event is told of: [sign, word, class].
export const EVENTS = {
  play: ["▶", "played", "good"], watch: ["▶", "watched", "good"], complete: ["✓", "watched to the end", "good"], click: ["↗", "clicked", "quiet"], like: ["♥", "liked", "good"],
  dislike: ["✕", "not for me", "bad"], skip: ["»", "skipped", "bad"], add_to_list: ["+", "put on the list", "good"], undo: ["↶", "took it back", "quiet"], impression: ["○", "was shown", "quiet"],
};

export function source(name) {
  const [sign, words, why] = SOURCES[name] ?? ["?", name, name];
  return h("span", { class: `source source-${name}`, title: why }, h("span", { "aria-hidden": "true" }, sign), words);
}

const KNOWN = new Map();
const MOST = 5000;
const LONG = 60;

// What is known of items, by id: {title, genres, year}. What is asked for is asked together.
export async function known(items, signal) {
  const ids = [...new Set(items.map((item) => item.item_id))].filter((id) => !KNOWN.has(id));
  if (KNOWN.size > MOST) KNOWN.clear();
  for (let at = 0; at < ids.length; at += 50) {
    const query = ids.slice(at, at + 50).map((id) => `item=${encodeURIComponent(id)}`).join("&");
    for (const item of (await get(`/v1/console/about?${query}`, signal)).items) KNOWN.set(item.item_id, item);
  }
  return items.map((item) => ({ ...KNOWN.get(item.item_id), ...item }));
}

// "1994 · Drama, Romance"
export const facts = (item) => [yearOf(item), (item.genres ?? []).slice(0, 3).join(", ")].filter(Boolean).join(" · ");

// A title on one line among other words: its beginning, where it is a long one.
const short = (words) => words.length > LONG ? `${words.slice(0, LONG - 1).trimEnd()}…` : words;

export const filmLink = (item, words = short(bare(item))) => h("a", { href: address("people", { item: item.item_id }), title: full(item) }, words);

// Somebody's name for people: a session is said to be one.
export const called = (user) => user.startsWith("session:") ? `session ${user.slice(8)}` : user;

export const thumb = (item) => h("span", { class: "thumb" }, art(item));

// What stands there where no release answers: because there is none, or because none of those that are there can be served.
export const nobodyAnswers = (releases) => releases.length
  ? empty("No release can be served.", `There ${releases.length === 1 ? "is one" : `are ${releases.length}`}, but the server refused the live one; its log says why. Go back to one that it can read, or train anew:`, "recsys rollback\nrecsys fit")
  : empty("There is no release to answer from yet.", "Import a log and train one; this page then shows what it recommends. Or see the whole system on a public log:", "recsys demo");
