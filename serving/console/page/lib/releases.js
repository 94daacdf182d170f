// What the pages Updates and Index & drift know of releases and of the job's journal, and how they say it in words. Pure but for `follow`.

import { get } from "./api.js";

const WHY = {
  "first fit": "the first training",
  "full retrain": "trained anew from the whole log (recsys fit)",
  "new events": "asked for by hand (recsys update)",
};

// Why there is a release, one reason a line: what the triggers said where the job made it.
export function reasons(about) {
  const told = Object.entries(about.triggers ?? {});
  if (told.length) return told.map(([name, why]) => name === "by hand" ? "asked for by hand (recsys job run --force)" : why);
  return [WHY[about.why] ?? about.why ?? "nobody said why"];
}

// What stood in the journal and what is there, as one list, oldest first: {kind, at, release?, about?, line?}.
// A release that the job made has its line with it; lines of releases that are gone stand alone.
export function timeline(releases, lines) {
  const made = new Map(lines.filter((line) => ["published", "on trial", "stripped"].includes(line.what)).map((line) => [line.release, line]));
  const there = new Set(releases.map((about) => about.id));
  const entries = releases.map((about) => ({ kind: "release", at: about.created, release: about.id, about, line: made.get(about.id) }));
  for (const line of lines) {
    if (line.what === "backup") continue;
    if (made.get(line.release) === line) {
      if (there.has(line.release)) continue;
      entries.push({ kind: "gone", at: line.time, release: line.release, line });
    } else entries.push({ kind: line.what, at: line.time, release: line.release, line });
  }
  // of one second a release comes first: what is done with it comes after it is there
  return entries.map((entry, n) => [entry, n]).sort(([a, n], [b, m]) => Date.parse(a.at) - Date.parse(b.at) || (b.kind === "release") - (a.kind === "release") || n - m).map(([entry]) => entry);
}

// The gate's figures of an entry, candidate beside the release that was live: [{name, candidate, live}].
export function compared(gate) {
  const figures = gate?.figures ?? {};
  return Object.keys(figures).filter((name) => `${name} live` in figures).map((name) => ({ name, candidate: figures[name], live: figures[`${name} live`] }));
}

// What a gate's figure is called.
export const MEASURES = {
  "ndcg@20": ["Newest events", "ndcg@20 on the newest events, which neither release had learned"],
  "memory ndcg@20": ["Long ago", "ndcg@20 on a fixed sample of what was learned long ago"],
  "shown items@20": ["Different items shown", "how many different items the lists of 20 hold"],
};

// The journal and the releases, asked again only as far as they change. Returns `look`, which gives {job, releases, live, lines, changed}.
export function follow(signal) {
  let lines = [], first = 0, sign = "", told = { releases: [], live: null };
  return async function look() {
    const [job, now] = await Promise.all([get(`/v1/console/job?have=${first + lines.length}`, signal), get("/v1/releases", signal)]);
    if (job.first !== first + lines.length) [lines, first] = [[], job.first];
    lines = [...lines, ...job.lines];
    const next = JSON.stringify([now, lines.length, lines.at(-1), job.trial && [job.trial.release, job.trial.began]]);
    const changed = next !== sign;
    if (changed) told = await get("/v1/console/releases", signal);
    sign = next;
    return { job, lines, changed, releases: told.releases, left_out: told.left_out, unreadable: told.unreadable, live: told.live, answers: now.live };
  };
}
