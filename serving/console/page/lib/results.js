// A result of `recsys evaluate --json`, read and refused. Pure functions: what stands in the file, in one shape for every kind.

// Refused: a file that is no result; the message says what came, what was wanted and what to do.
export class Refused extends Error {}

const WANTED = "Wanted is a result that `recsys evaluate --json FILE` wrote: an object with \"methods\".";
const COSTS = ["seconds_learn", "seconds_learn_last", "seconds_answer", "examples", "peak_mb", "release_bytes"];
const SHARES = ["recall", "ndcg", "mrr", "hit_rate", "map", "coverage"];
const LISTS = ["coverage", "gini", "novelty", "diversity"];

export const number = (value) => typeof value === "number" && Number.isFinite(value) ? value : null;
const thing = (value) => value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
const list = (value) => Array.isArray(value) ? value : [];
const metric = (figure) => figure.split("@")[0];
const length = (figure) => Number(figure.split("@")[1]);

// Text -> a result, or Refused.
export function parse(text, name) {
  try {
    return read(JSON.parse(text), name);
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new Refused(`${name} is not JSON, or not all of it: ${error.message}. ${WANTED}`);
  }
}

// JSON -> {kind: "replay", methods, windows, ...} or {kind: "day", runs}.
export function read(found, name) {
  if (list(thing(found).runs).some((run) => thing(run).bins)) return { kind: "day", name, runs: found.runs.filter((run) => thing(run).bins), raw: found };
  const methods = Object.entries(thing(thing(found).methods)).filter(([, value]) => Object.keys(thing(value)).length);
  if (!methods.length) throw new Refused(`${name} is no result of an evaluation: it holds ${described(found)}. ${WANTED}`);
  const flat = !methods.some(([, value]) => Object.keys(thing(value.macro)).length);
  const read = methods.map(([title, value], mark) => ({ name: title, mark, ...(flat ? summary(value) : whole(value)) }));
  const figures = [...new Set(read.flatMap((method) => Object.keys(method.macro)))].filter((figure) => figure.includes("@"));
  if (!figures.length) throw new Refused(`${name} names methods, but no figure of theirs such as recall@20: ${described(methods[0][1])}. ${WANTED}`);
  const windows = list(found.windows).map((window, place) => ({ ...thing(window), window: window?.window ?? place }));
  return {
    kind: "replay", name, flat, methods: read, windows: windows.length ? windows : longest(read).map((row, place) => ({ window: row.window ?? place })),
    baseline: read.some((method) => method.name === found.baseline) ? found.baseline : null,
    quality: figures.filter((figure) => !LISTS.includes(metric(figure))), lists: figures.filter((figure) => LISTS.includes(metric(figure))),
    protocol: typeof found.protocol === "string" ? found.protocol : thing(found.settings).protocol ?? null,
    seeds: number(found.seeds) ?? number(thing(found.settings).seeds) ?? 1, first: number(thing(thing(thing(found.settings).settings).training).seed) ?? 0,
    command: typeof found.command === "string" ? found.command : null, settings: thing(found.settings), machine: thing(found.machine), versions: thing(found.versions),
    started: found.started, seconds: number(found.seconds), added: found.added ?? null,
  };
}

const longest = (methods) => methods.map((method) => method.windows).reduce((most, rows) => rows.length > most.length ? rows : most, []);

function described(found) {
  if (Array.isArray(found)) return `a list of ${found.length}`;
  if (found === null || typeof found !== "object") return `${found === null ? "null" : `a ${typeof found}`} and nothing else`;
  const keys = Object.keys(found);
  return keys.length ? `${keys.slice(0, 5).map((key) => JSON.stringify(key.slice(0, 40))).join(", ")}${keys.length > 5 ? ` and ${keys.length - 5} more` : ""}` : "an empty object";
}

function whole(value) {
  return {
    macro: thing(value.macro), micro: thing(value.micro), intervals: thing(value.intervals), windows: list(value.windows).map(thing),
    windowIntervals: thing(value.window_intervals), cost: thing(value.cost), seeds: thing(value.seeds), slices: thing(value.slices),
    forgetting: list(thing(value.forgetting).matrix).length ? value.forgetting : null,
  };
}

// A summary (benchmarks/results/strategies.json): one line a method, per cent and points instead of shares.
function summary(value) {
  const share = (x) => number(x) === null ? null : x / 100;
  const macro = Object.fromEntries(Object.entries(value).filter(([key]) => key.includes("@")).map(([key, x]) => [key, share(x)]));
  const main = mainOf(Object.keys(macro));
  const interval = { value: macro[main], low: share(value.low), high: share(value.high) };
  if (number(value.difference) !== null) Object.assign(interval, { difference: share(value.difference), difference_low: share(value.difference_low), difference_high: share(value.difference_high) });
  const bytes = number(value.megabytes) === null ? null : value.megabytes * 1e6;
  const transfer = Object.fromEntries(["forgetting", "backward_transfer", "forward_transfer"].map((key) => [key, share(value[key])]));
  return { macro, micro: {}, intervals: main ? { [main]: interval } : {}, windows: [], windowIntervals: {}, seeds: {}, slices: {},
    cost: { seconds_learn_last: number(value.seconds), release_bytes: bytes }, forgetting: transfer.forgetting === null ? null : { metric: main, ...transfer } };
}

// The figure that a result is first shown by: recall at 20, or at the longest list.
export function mainOf(figures) {
  const recalls = figures.filter((figure) => metric(figure) === "recall");
  return recalls.find((figure) => length(figure) === 20) ?? recalls.sort((a, b) => length(b) - length(a))[0] ?? figures[0] ?? null;
}

export const costsOf = (result) => COSTS.filter((cost) => result.methods.some((method) => number(method.cost[cost]) !== null));

// How a figure is written and what its unit is: shares in per cent.
export function unit(figure) {
  const name = metric(figure);
  if (SHARES.includes(name)) return { word: "%", write: (x, digits = 2) => number(x) === null ? "–" : `${(100 * x).toFixed(digits)}%`, gap: (x) => number(x) === null ? "–" : `${signed(100 * x)}` };
  return { word: name === "novelty" ? "bits" : "0 to 1", write: (x, digits = 3) => number(x) === null ? "–" : x.toFixed(digits), gap: (x) => number(x) === null ? "–" : signed(x, 3) };
}

export function signed(x, digits = 2) {
  const size = Math.abs(x).toFixed(digits);
  return `${Number(size) === 0 ? "±" : x > 0 ? "+" : "−"}${size}`;
}

// A method's course of a figure: [{x: window, y, low, high}]. cumulative: the mean of the windows so far, every window counting the same.
export function course(result, method, figure, cumulative = false) {
  const intervals = list(method.windowIntervals[figure]);
  const rows = method.windows.map((row, place) => ({ x: number(row.window) ?? place, y: number(row[figure]), low: number(intervals[place]?.[0]), high: number(intervals[place]?.[1]) }));
  if (!cumulative) return rows;
  let sum = 0, n = 0;
  const means = rows.map((row) => { if (row.y !== null) [sum, n] = [sum + row.y, n + 1]; return { x: row.x, y: n ? sum / n : null }; });
  const over = method.intervals[figure];
  if (means.length && over) Object.assign(means.at(-1), { low: number(over.low), high: number(over.high) });
  return means;
}

// A method's course of a cost. cumulative: seconds and examples so far, the highest memory so far; a release is as large as it is.
export function spent(method, cost, cumulative = false) {
  const key = cost === "seconds_learn_last" ? "seconds_learn" : cost;
  let so = 0;
  return method.windows.map((row, place) => {
    const value = number(row[key]);
    if (value !== null) so = key === "release_bytes" ? value : key === "peak_mb" ? Math.max(so, value) : so + value;
    return { x: number(row.window) ?? place, y: value === null ? null : cumulative ? so : value };
  });
}

// By the value of a figure, best first; those without one last.
export const ranked = (methods, figure) => [...methods].sort((a, b) => (number(b.macro[figure]) ?? -Infinity) - (number(a.macro[figure]) ?? -Infinity));

// What a difference says: "ahead", "behind" or "level" (its interval holds zero).
export function verdict(interval) {
  const low = number(interval?.difference_low), high = number(interval?.difference_high);
  return low === null || high === null ? null : low > 0 ? "ahead" : high < 0 ? "behind" : "level";
}

// Up to eight methods to begin with: the best, the baseline, and those that tell what learning is worth.
export function first(result, figure) {
  if (result.methods.length <= 8) return result.methods.map((method) => method.name);
  const names = ranked(result.methods, figure).map((method) => method.name);
  const wanted = [names[0], result.baseline, ...["replay+ewc+neighbours", "replay+ewc", "frozen", "naive", "retrain", "knn", "popular"].filter((name) => names.includes(name)), ...names];
  return [...new Set(wanted.filter(Boolean))].slice(0, 8);
}

// The groups of slices of a result and their parts: {item: ["unseen", "new", "old"], ...}; parts that nothing belongs to are left out.
export function groups(result) {
  const found = {};
  for (const method of result.methods) {
    for (const [group, parts] of Object.entries(method.slices)) {
      for (const [part, value] of Object.entries(thing(parts))) {
        found[group] ??= [];
        if (number(thing(value).targets) && !found[group].includes(part)) found[group].push(part);
      }
    }
  }
  return Object.fromEntries(Object.entries(found).filter(([, parts]) => parts.length));
}

export const GROUPS = {
  item: "By item: never learned before the window (unseen), first met in the window before (new), older (old)",
  user: "By person: unknown before the window began (new), or known (old)",
  target: "By target: met before by the same person (repeat), or not (novel)",
  history: "By length of history: known events of the person before the question",
  popularity: "By popularity: tenths of the learned items by events before, 1 = most popular",
};

export const part = (group, name) => ({ item: `${name} items`, user: name === "old" ? "known people" : `${name} people`, history: name === "1" ? "1 event" : `${name} events`, popularity: name === "none" ? "never learned" : `tenth ${name}` })[group] ?? name;

// Forgetting and transfer of a matrix, quality[release][window]: the same as eval/forgetting.py, for the matrix of a single seed.
export function transfers(quality) {
  const last = quality.length - 1, at = (i, j) => number(quality[i]?.[j]);
  const mean = (values) => { const seen = values.filter((value) => value !== null); return seen.length ? seen.reduce((a, b) => a + b, 0) / seen.length : null; };
  const gap = (a, b) => a === null || b === null ? null : a - b;
  const learned = Array.from({ length: Math.max(0, last - 1) }, (_, window) => window);
  return {
    forgetting: mean(learned.map((window) => {
      const before = quality.slice(window + 1, last).map((row) => number(row[window])).filter((value) => value !== null);
      return before.length ? gap(Math.max(...before), at(last, window)) : null;
    })),
    backward_transfer: mean(learned.map((window) => gap(at(last, window), at(window + 1, window)))),
    forward_transfer: mean(quality.map((_, window) => window).slice(1).map((window) => gap(at(window, window), at(0, window)))),
    kept: mean(learned.map((window) => at(last, window))),
    met: mean(quality.map((_, window) => at(window, window)).slice(1)),
  };
}

// "replay(share=0.3)+ewc" -> [{name: "replay", own: {share: "0.3"}}, {name: "ewc", own: {}}], as eval/names.py reads it.
export function parts(name) {
  return name.split(/\+(?![^()]*\))/).map((text) => {
    const [, word, inside] = text.trim().match(/^(\w+)\s*(?:\(([^()]*)\))?$/) ?? [null, text.trim(), ""];
    const own = Object.fromEntries((inside ?? "").split(",").map((each) => each.split("=").map((side) => side.trim())).filter(([key, value]) => key && value !== undefined));
    return { name: word, own };
  });
}

const USUAL = { replay: ["share", 0.5], ewc: ["strength", 1] };

// {share, strength} of a method, null where it has no such part.
export function dials(name) {
  const found = { share: null, strength: null };
  for (const each of parts(name)) if (each.name in USUAL) found[USUAL[each.name][0]] = Number(each.own[USUAL[each.name][0]] ?? USUAL[each.name][1]);
  return found;
}

// Families of methods that differ in one dial alone: [{dial, rest, names}], by the dial's value; two or more each.
export function families(names) {
  const found = new Map();
  for (const name of names) {
    for (const dial of ["share", "strength"]) {
      if (dials(name)[dial] === null) continue;
      const whose = dial === "share" ? "replay" : "ewc";
      const spelled = parts(name).map((each) => {
        const own = { ...each.own };
        if (each.name in USUAL) own[USUAL[each.name][0]] = each.name === whose ? "…" : String(Number(own[USUAL[each.name][0]] ?? USUAL[each.name][1]));
        const inside = Object.keys(own).sort().map((key) => `${key}=${own[key]}`).join(", ");
        return inside ? `${each.name}(${inside})` : each.name;
      });
      const key = `${dial} ${[...spelled].sort().join("+")}`;
      if (!found.has(key)) found.set(key, { dial, rest: spelled.join("+"), names: [] });
      found.get(key).names.push(name);
    }
  }
  return [...found.values()].filter((family) => family.names.length > 1)
    .map((family) => ({ ...family, names: family.names.sort((a, b) => dials(a)[family.dial] - dials(b)[family.dial]) }));
}
