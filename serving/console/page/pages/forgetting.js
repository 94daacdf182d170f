// Forgetting: what each update did to what was known, and what replay and EWC do about it.

import { card, empty, fill, h, table } from "../lib/dom.js";
import { bars, dash, dots, heat, lines } from "../lib/charts.js";
import { seconds } from "../lib/costs.js";
import { again, breakable, facts, choosing, remember, select, steady, either } from "../lib/choosing.js";
import { course, dials, families, GROUPS, groups, mainOf, number, part, ranked, signed, transfers, unit } from "../lib/results.js";

const GRID = ["replay(share=0.1)+ewc", "replay(share=0.3)+ewc", "replay+ewc", "replay(share=0.7)+ewc", "replay+ewc(strength=10)", "replay+ewc(strength=100)"];
const points = (x) => number(x) === null ? "–" : signed(100 * x);
const share = (x, digits = 1) => number(x) === null ? "–" : `${(100 * x).toFixed(digits)}%`;

export async function mount(root, { params, signal }) {
  await choosing(root, {
    page: "forgetting", params, signal, title: "Forgetting",
    lead: "Every release asked about every window: what was learned long ago, what has just been learned, and what is still to come.",
    show: (result, chosen) => show(result, chosen, params),
  });
}

function show(result, chosen, params) {
  const { name, place } = chosen;
  if (result.kind === "day") {
    remember("forgetting", { result: name });
    return fill(place, empty("This result is of a day served live; it asks no old windows again.", "Choose a result of `recsys evaluate`, or see this one on the page Replay."));
  }
  const known = result.methods.filter((method) => method.forgetting);
  const asked = known.find((method) => method.name === params.get("method"));
  const state = {
    method: (asked ?? known.find((method) => method.name === "replay+ewc") ?? known.find((method) => method.name !== "frozen") ?? known[0])?.name,
    seed: params.get("seed") ?? "mean", kept: params.get("kept"), group: params.get("slice"), sliced: params.get("lines"),
  };
  const parts = h("div", {});
  const draw = () => {
    remember("forgetting", { result: name, method: state.method, seed: state.seed === "mean" ? undefined : state.seed, kept: state.kept ?? undefined, slice: state.group ?? undefined, lines: state.sliced ?? undefined });
    steady(() => fill(parts, known.length ? matrix(result, known, state, draw) : none(), known.length > 0 && tradeOff(result, known, state, chosen, draw), slices(result, state, chosen, draw), again(result)));
  };
  fill(place, h("p", { class: "quiet facts" }, facts(result)), parts);
  draw();
}

const resumed = (run, words) => `recsys evaluate --resume${run ? ` --run ${quoted(run)}` : " --run RUN"} ${words}`;
const quoted = (path) => /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;

const none = () => empty("No method of this result was asked about earlier and later windows.", "Only methods whose states are releases can be: towers, not baselines, and without +neighbours. A replay of 40 windows or fewer asks them by itself:",
  "recsys evaluate --matrix --methods naive,replay+ewc --home HOME");

// The matrix of the chosen method and seed, quality[release][window], with what follows from it.
function looked(method, seed) {
  const found = method.forgetting, of = seed === "mean" ? null : found.seeds?.[Number(seed)];
  if (!found.matrix) return { ...found, quality: null };
  const quality = of ?? found.matrix;
  return { ...found, ...(of ? transfers(of) : {}), quality };
}

function matrix(result, known, state, draw) {
  const method = known.find((each) => each.name === state.method), seeds = method.forgetting.seeds ?? [];
  if (state.seed !== "mean" && !seeds[Number(state.seed)]) state.seed = "mean";
  const found = looked(method, state.seed);
  const begins = new Map(result.windows.map((window) => [window.window, window.begin?.slice(0, 10)]));
  const names = (found.windows ?? []).map((window) => result.protocol !== "ader" && begins.get(window) ? begins.get(window) : String(window));
  const head = h("div", { class: "actions" }, select("method", known.map((each) => [each.name, each.name]), state.method, (value) => { state.method = value; draw(); refocus(0); }),
    seeds.length > 1 && select("seed", [["mean", `mean of ${seeds.length} seeds`], ...seeds.map((_, n) => [String(n), `seed ${result.first + n}`])], state.seed, (value) => { state.seed = value; draw(); refocus(1); }));
  const tiles = h("div", { class: "tiles" },
    tile("forgetting", found.forgetting, "lost by the last release on learned windows, against the best release before it", (x) => x > 0.005 ? "bad" : ""),
    tile("backward_transfer", found.backward_transfer, "the last release on learned windows, against the one that had just learned them", (x) => x < -0.005 ? "bad" : x > 0.005 ? "good" : ""),
    tile("forward_transfer", found.forward_transfer, "the live release on windows to come, against never having updated", (x) => x > 0.005 ? "good" : x < -0.005 ? "bad" : ""));
  return h("section", { class: "card", id: "matrix" }, h("div", { class: "card-head" }, h("h2", {}, `${found.metric ?? "quality"} of every release on every window`), head),
    tiles, h("p", {}, sentence(found, method.name)),
    found.quality
      ? [heat({ rows: names, columns: names.map((_, n) => String(n + 1)), values: names.map((_, window) => found.quality.map((row) => number(row[window]))), format: (x) => share(x), diagonal: true,
        label: `${found.metric} of ${method.name} by window and release`, rowLabel: "window", columnLabel: "release, the first fit is 1" }),
      h("p", { class: "quiet small" }, "Outlined: what people saw, each window answered by the release of its day, which had not learned it yet. To the right of that the window has been learned; to the left it was still to come. Read a row from left to right: a window that pales is being forgotten.")]
      : h("p", { class: "quiet" }, "This result is a summary: it holds what follows from the matrix, not the matrix."));
}

const NAMES = { forgetting: "forgetting", backward_transfer: "backward transfer", forward_transfer: "forward transfer" };
const tile = (key, value, words, colour) => h("div", { class: "tile" }, h("b", { class: number(value) === null ? null : colour(value), "data-transfer": key, "data-value": number(value) }, points(value), number(value) === null ? null : h("small", {}, " points")), h("span", {}, h("strong", {}, NAMES[key]), `: ${words}`));

const refocus = (n) => document.querySelectorAll("#matrix select")[n]?.focus();

function sentence(found, name) {
  if (number(found.forgetting) === null && number(found.forward_transfer) === null) return "Too few releases for forgetting or transfer: three are the least.";
  const size = (x) => `${Math.abs(100 * x).toFixed(2)} points`, said = [];
  if (number(found.forgetting) !== null) {
    said.push(found.forgetting > 0.0005 ? `${name} has forgotten: on windows it had learned, its last release is ${size(found.forgetting)} of ${found.metric} below its best.` : found.forgetting < -0.0005 ? `${name} has forgotten nothing: on windows it had learned, its last release is ${size(found.forgetting)} above its best before.` : `${name} has forgotten nothing of what it had learned.`);
  }
  if (number(found.backward_transfer) !== null && Math.abs(found.backward_transfer) > 0.0005) said.push(found.backward_transfer > 0 ? `Later updates made learned windows better, by ${size(found.backward_transfer)}.` : `Later updates took ${size(found.backward_transfer)} from the windows just learned.`);
  if (number(found.forward_transfer) !== null) said.push(Math.abs(found.forward_transfer) < 0.0005 ? "On windows to come it is where the first fit is." : `On windows to come, updating was ${found.forward_transfer > 0 ? "worth" : "a loss of"} ${size(found.forward_transfer)} against never updating.`);
  return said.join(" ");
}

const KEPT = {
  quality: ["what the last release still knows", "of the windows learned before the last update"],
  forgetting: ["forgetting, upside down", "points lost against the best before: higher has lost less"],
};

// Old against new, a dot a method; a curve joins those that differ in replay's share alone, or in EWC's strength alone.
function tradeOff(result, known, state, chosen, draw) {
  const whole = known.every((method) => method.forgetting.matrix);
  const kept = whole && state.kept !== "forgetting" ? "quality" : "forgetting";
  const rows = known.map((method) => {
    const found = method.forgetting.matrix ? transfers(method.forgetting.matrix) : {};
    const lost = number(method.forgetting.forgetting);
    return { method, ...dials(method.name), y: kept === "quality" ? found.kept : lost === null ? null : -lost || 0, x: whole ? found.met : number(method.macro[method.forgetting.metric ?? mainOf(result.quality)]), lost };
  });
  const usable = rows.filter((row) => number(row.x) !== null && number(row.y) !== null);
  const metric = known[0].forgetting.metric ?? "quality";
  const near = usable.filter((row) => row.x >= 0.7 * Math.max(...usable.map((other) => other.x))), far = usable.filter((row) => !near.includes(row));
  const joined = families(near.map((row) => row.method.name));
  const at = new Map(near.map((row) => [row.method.name, row]));
  const paths = joined.map((family, n) => ({ name: curve(family), mark: n, points: family.names.map((name) => ({ x: at.get(name).x, y: at.get(name).y })) }));
  return h("section", { class: "card", id: "trade-off" }, h("div", { class: "card-head" }, h("h2", {}, "Old against new"),
    whole && either("old windows by", [["quality", "what is still known"], ["forgetting", "what was lost"]], kept, (value) => { state.kept = value; draw(); document.querySelector("#trade-off [aria-pressed=true]")?.focus(); })),
  h("p", {}, "Up: old windows are kept. To the right: new ones are met well. A strategy is worth its cost where it goes up without going left."),
  near.length > 1
    ? dots({ points: near.map((row) => ({ name: row.method.name, mark: row.method.mark, x: row.x, y: row.y })), paths,
      x: { label: whole ? `${metric} on new windows, answered before they are learned, %` : `${metric} over all windows, answered before they are learned, %`, told: whole ? "new windows" : "all windows", format: (x) => share(x) },
      y: { label: kept === "quality" ? `${metric} of the last release on old windows, %` : "− forgetting on old windows, points", told: kept === "quality" ? "old windows" : "− forgetting, points", format: (y) => kept === "quality" ? share(y) : signed(100 * y, 1) }, label: `old windows against new ones, ${near.length} methods`, height: 380 })
    : usable.length ? null : empty("Too few releases to tell old from new.", "At least three windows are needed."),
  far.length > 0 && h("p", { class: "quiet small" }, `Too far to the left to share the picture: ${far.map((row) => `${row.method.name} (new ${share(row.x)}, old ${kept === "quality" ? share(row.y) : points(row.y)})`).join(", ")}.`),
  paths.length > 0 && h("ul", { class: "curves" }, paths.map((path, n) => h("li", {}, dash(n), h("span", {}, path.name)))),
  !joined.length && empty("No curve yet: no two of these methods differ only in replay's share, or only in EWC's strength.", chosen.run ? "Add some to this run; what is answered stays:" : "Add some to the run that this result came from (its folder for RUN), or leave --resume and --run out to begin one:",
    resumed(chosen.run, `--methods "${GRID.filter((name) => !known.some((method) => method.name === name)).join(",")}"`)),
  whole && h("p", { class: "quiet small" }, "New windows: the mean of what people saw, from the second release on. Old windows: the last release on what it had learned, the newest window left out."),
  table([
    { name: "method", value: (row) => h("span", { class: "named" }, breakable(row.method.name)) }, { name: "replay share", number: true, value: (row) => row.share ?? "–" }, { name: "EWC strength", number: true, value: (row) => row.strength ?? "–" },
    { name: "new windows", number: true, value: (row) => h("span", { "data-new": number(row.x) }, share(row.x, 2)) }, whole && { name: "old windows", number: true, value: (row) => h("span", { "data-old": number(transfers(row.method.forgetting.matrix).kept) }, share(transfers(row.method.forgetting.matrix).kept, 2)) },
    { name: "forgetting, points", number: true, value: (row) => points(row.lost) }, { name: "last update", number: true, value: (row) => seconds(row.method.cost.seconds_learn_last) },
  ].filter(Boolean), [...rows].sort((a, b) => (b.y ?? -9) - (a.y ?? -9)), { row: (row) => ({ "data-method": row.method.name }), label: "old against new" }));
}

function curve(family) {
  const values = family.names.map((name) => dials(name)[family.dial]);
  return `${family.dial === "share" ? "replay share" : "EWC strength"} ${values.join(" → ")} in ${family.rest}`;
}

// A figure per window for each part of what was asked; where a result holds only totals, those.
function slices(result, state, { run }, draw) {
  const all = groups(result), names = Object.keys(all);
  if (!names.length) return result.flat ? null : card("Who and what is remembered", h("p", { class: "quiet" }, "This result holds no slices."));
  const group = names.includes(state.group) ? state.group : names[0];
  const list = ranked(result.methods, mainOf(result.quality));
  const method = result.methods.find((each) => each.name === (state.sliced ?? state.method)) ?? list[0];
  const parts = all[group], value = (name) => method.slices[group]?.[name] ?? {};
  const figure = Object.keys(value(parts[0])).find((key) => key.startsWith("recall@")) ?? mainOf(result.quality);
  const { write } = unit(figure), begins = new Map(result.windows.map((window) => [window.window, window.begin?.slice(0, 10)]));
  const rows = course(result, method, mainOf(result.quality));
  const dated = result.protocol !== "ader" && [...begins.values()].some(Boolean);
  const series = parts.filter((name) => value(name).windows?.[figure]).map((name, mark) => ({ name: part(group, name), mark, points: rows.map((row, n) => ({ x: row.x, y: number(value(name).windows[figure][n]) })) }));
  return h("section", { class: "card", id: "slice-lines" }, h("div", { class: "card-head" }, h("h2", {}, "Who and what it works for, window by window"),
    h("div", { class: "actions" }, select("method", list.map((each) => [each.name, each.name]), method.name, (name) => { state.sliced = name; draw(); document.querySelector("#slice-lines select")?.focus(); }),
      either("slice", names.map((each) => [each, each]), group, (each) => { state.group = each; draw(); document.querySelector("#slice-lines [aria-pressed=true]")?.focus(); }))),
  h("p", { class: "quiet" }, `${GROUPS[group] ?? group}.`),
  series.length
    ? lines({ series, x: { label: dated ? "window, by its first day" : "window", whole: true, format: dated ? (x) => begins.get(x) ?? String(x) : undefined }, y: { label: `${figure}, %`, from: 0, format: (x) => write(x, 1) }, height: 300, label: `${figure} of ${method.name} by ${group}, window by window` })
    : [bars({ rows: parts.map((name) => ({ name: part(group, name), value: number(value(name)[figure]), note: `${(number(value(name).targets) ?? 0).toLocaleString("en")} targets` })), format: (x) => write(x), label: `${figure} of ${method.name} by ${group}, over all windows` }),
      h("p", { class: "quiet small" }, "Over all windows together: this result was written before slices were kept window by window. A run that has finished works its figures out again from its answers, without a replay:"), h("pre", {}, resumed(run, run ? "" : "--json FILE").trim())]);
}
