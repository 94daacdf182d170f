// What a method costs, and how it is written.

import { count } from "./format.js";
import { number } from "./results.js";

// Three digits that count, in one unit, so that two figures of a column can be compared at a glance.
const compact = (x) => x >= 100 ? count(x) : x >= 10 ? x.toFixed(1) : x >= 0.1 ? x.toFixed(2) : String(+x.toPrecision(2));

export const seconds = (x) => number(x) === null ? "–" : x === 0 ? "0 s" : x < 0.001 ? `${compact(1e6 * x)} µs` : x < 0.1 ? `${compact(1000 * x)} ms` : `${compact(x)} s`;

const mega = (x) => number(x) === null ? "–" : `${compact(x)} MB`;

// key in the result: name, what it is in words, how it is written, unit of an axis.
export const COST = {
  seconds_learn: ["learning", "s, wall time of all updates", seconds, "s"],
  seconds_learn_last: ["last update", "s, wall time", seconds, "s"],
  seconds_answer: ["answering", "CPU s of all windows", seconds, "CPU s"],
  examples: ["examples", "seen in training, all windows", count, "examples"],
  peak_mb: ["peak memory", "MB of the whole process while learning", mega, "MB"],
  release_bytes: ["release", "MB, the newest", (x) => mega(number(x) === null ? null : x / 1e6), "MB"],
};
