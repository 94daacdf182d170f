// Replay: quality over time of every method beside what it cost, and who is ahead of the baseline.

import { card, empty, fill, h, table } from "../lib/dom.js";
import { COST } from "../lib/costs.js";
import { count } from "../lib/format.js";
import { dots, heat, lines, swatch } from "../lib/charts.js";
import { day } from "../lib/day.js";
import { again, breakable, either, facts, choosing, remember, select, steady } from "../lib/choosing.js";
import { costsOf, course, first, GROUPS, groups, mainOf, number, part, ranked, spent, unit, verdict } from "../lib/results.js";

const FOCUS = 0.7; // a picture of quality against cost leaves out what has less than this part of the best, and says so

export async function mount(root, { params, signal }) {
  await choosing(root, {
    page: "replay", params, signal, title: "Replay",
    lead: "A log played again: every window is answered before anything of it is learned, over the full catalogue, by every method side by side, with what it cost.",
    show: (result, chosen) => show(result, chosen, params),
  });
}

function show(result, { name, place }, params) {
  if (result.kind === "day") {
    remember("replay", { result: name });
    return fill(place, day(result));
  }
  const figures = [...result.quality, ...result.lists];
  const state = {
    figure: figures.includes(params.get("metric")) ? params.get("metric") : mainOf(result.quality) ?? figures[0],
    view: params.get("view") === "cumulative" ? "cumulative" : "window",
    cost: costsOf(result).includes(params.get("cost")) ? params.get("cost") : costsOf(result)[0],
    group: params.get("slice"),
  };
  const asked = (params.get("methods") ?? "").split("|").filter((each) => result.methods.some((method) => method.name === each));
  state.on = new Set(asked.length ? asked : first(result, state.figure));
  const parts = h("div", {});
  const draw = () => {
    const usual = [...state.on].sort().join("|") === [...first(result, state.figure)].sort().join("|");
    remember("replay", { result: name, metric: state.figure, view: state.view === "window" ? undefined : state.view, cost: state.cost, slice: state.group ?? undefined, methods: usual ? undefined : [...state.on].join("|") });
    steady(() => fill(parts, pictures(result, state), overall(result, state), sliced(result, state, draw), again(result)));
  };
  fill(place, h("p", { class: "quiet facts" }, facts(result)), headline(result), controls(result, state, draw), parts);
  draw();
}

// The best method in a sentence, and what it is ahead of.
export function headline(result) {
  const figure = mainOf(result.quality);
  if (!figure) return null;
  const best = ranked(result.methods, figure)[0], { write, gap } = unit(figure), interval = best.intervals[figure];
  if (number(best.macro[figure]) === null) return null;
  const said = [h("b", {}, best.name), ` is best: ${figure} ${write(best.macro[figure])}`];
  if (result.baseline && best.name !== result.baseline && number(interval?.difference) !== null) {
    said.push(`, ${gap(interval.difference)} points against ${result.baseline}`, number(interval.difference_low) === null ? "" : ` (95% interval ${gap(interval.difference_low)} to ${gap(interval.difference_high)})`);
  } else if (result.baseline === best.name) said.push("; it is the baseline, and no other is ahead of it");
  return h("p", { class: "headline" }, ...said, ".");
}

function controls(result, state, draw) {
  const chips = h("div", { class: "chips", role: "group", "aria-label": "methods in the pictures" });
  const paint = () => fill(chips, result.methods.map((method) => h("button", {
    type: "button", class: "chip", "data-method": method.name, "aria-pressed": state.on.has(method.name) ? "true" : "false",
    onclick: () => {
      if (state.on.has(method.name)) state.on.delete(method.name); else state.on.add(method.name);
      paint(); draw(); chips.querySelector(`[data-method="${CSS.escape(method.name)}"]`).focus();
    },
  }, swatch(method.mark), method.name)),
  h("button", { type: "button", class: "link", onclick: () => { state.on = new Set(result.methods.map((method) => method.name)); paint(); draw(); } }, "all"),
  h("button", { type: "button", class: "link", onclick: () => { state.on = new Set(first(result, state.figure)); paint(); draw(); } }, "as at first"));
  paint();
  const costs = costsOf(result);
  const options = [["quality", result.quality.map((each) => [each, each])], ["of the lists", result.lists.map((each) => [each, each])]].filter(([, list]) => list.length);
  return h("div", { class: "card controls" },
    h("div", { class: "actions" },
      select("metric", options, state.figure, (value) => { state.figure = value; draw(); }),
      costs.length > 0 && select("cost", costs.map((each) => [each, `${COST[each][0]}, ${COST[each][1]}`]), state.cost, (value) => { state.cost = value; draw(); }),
      result.windows.length > 1 && !result.flat && either("view", [["window", "each window"], ["cumulative", "so far"]], state.view, (value) => { state.view = value; draw(); })),
    chips);
}

function pictures(result, state) {
  const shown = result.methods.filter((method) => state.on.has(method.name));
  if (!shown.length) return empty("No method is chosen.", "Press one of the names above to see its course.");
  const { figure, cost } = state, cumulative = state.view === "cumulative", { write } = unit(figure);
  const begins = new Map(result.windows.map((window) => [window.window, window.begin?.slice(0, 10)]));
  const dated = result.protocol !== "ader" && [...begins.values()].some(Boolean);
  const x = { label: dated ? "window, by its first day" : "window", whole: true, format: dated ? (value) => begins.get(value) ?? String(value) : undefined };
  const bands = shown.length <= 4;
  const points = (method) => course(result, method, figure, cumulative).map((point) => bands || cumulative ? point : { ...point, low: null, high: null });
  const moving = shown.some((method) => method.windows.length > 1);
  const costly = cost && shown.some((method) => spent(method, cost).some((point) => point.y !== null));
  return [
    moving && h("div", { class: "grid two" },
      card(`${figure} ${cumulative ? "so far" : "in each window"}`,
        lines({ series: shown.map((method) => ({ name: method.name, mark: method.mark, points: points(method) })), x, y: { label: `${figure}, ${unit(figure).word}`, format: (value) => write(value, unit(figure).word === "%" ? 1 : 3) }, height: 300,
          label: `${figure} of ${shown.length} methods in ${result.windows.length} windows` }),
        h("p", { class: "quiet small" }, cumulative ? "The mean of the windows so far, every window counting the same; the last point stands in the table." : bands ? "Bands: 95% bootstrap intervals." : "With four methods or fewer, 95% bands are drawn.")),
      costly && card(`${COST[cost][0]} ${cumulative ? "so far" : "in each window"}`,
        lines({ series: shown.map((method) => ({ name: method.name, mark: method.mark, points: spent(method, cost, cumulative) })), x, y: { label: `${COST[cost][0]}, ${COST[cost][3]}`, from: 0, format: COST[cost][2] }, height: 300,
          label: `${COST[cost][0]} of ${shown.length} methods` }),
        h("p", { class: "quiet small" }, cost === "peak_mb" ? "Of the whole process, which all methods share." : cost.startsWith("seconds") ? "Of one machine, and of what else ran on it: compare within this result only." : ""))),
    cost && against(result, shown, figure, cost),
  ];
}

// Quality against cost, the cost in powers of ten: what is up and to the left is better.
function against(result, shown, figure, cost) {
  const all = shown.filter((method) => number(method.macro[figure]) !== null && number(method.cost[cost]) !== null);
  const most = Math.max(...all.map((method) => method.macro[figure]));
  const known = all.filter((method) => method.macro[figure] >= FOCUS * most), far = all.filter((method) => !known.includes(method));
  if (known.length < 2) return null;
  const least = Math.min(...known.map((method) => method.cost[cost]).filter((value) => value > 0)) || 1e-3;
  const place = (value) => Math.log10(Math.max(value, least / 3));
  const places = known.map((method) => place(method.cost[cost])), low = Math.floor(Math.min(...places)), high = Math.ceil(Math.max(...places));
  const steps = high - low > 3 ? [1] : [1, 2, 5];
  const ticks = Array.from({ length: high - low + 1 }, (_, n) => steps.map((step) => low + n + Math.log10(step))).flat();
  return card(`${figure} against ${COST[cost][0]}`,
    dots({ points: known.map((method) => ({ name: method.name, mark: method.mark, x: place(method.cost[cost]), y: method.macro[figure], low: number(method.intervals[figure]?.low), high: number(method.intervals[figure]?.high) })),
      x: { label: `${COST[cost][0]}, ${COST[cost][1]}; in powers of ten`, told: COST[cost][0], ticks, format: (value) => COST[cost][2](+(10 ** value).toPrecision(3)).replace(/\.0+(?= |$)/, "") }, y: { label: `${figure}, mean of the windows, ${unit(figure).word}`, told: figure, format: (value) => unit(figure).write(value, unit(figure).word === "%" ? 1 : 3) },
      label: `${figure} against ${COST[cost][0]} of ${known.length} methods` }),
    h("p", { class: "quiet small" }, `Better is up and to the left. Lines are 95% intervals.${far.length ? ` Too far below to share the picture: ${far.map((method) => `${method.name} (${unit(figure).write(method.macro[figure])})`).join(", ")}.` : ""}`));
}

const note = (words) => h("p", { class: "quiet small" }, words);
const WORDS = { ahead: ["good", "▲ ahead"], behind: ["bad", "▼ behind"], level: ["", "≈ level"] };
const ends = (low, high, write) => number(low) === null || number(high) === null ? null : h("div", { class: "quiet small nowrap" }, `${write(low)} to ${write(high)}`);

function overall(result, state) {
  const { figure } = state, { write, gap, word } = unit(figure), at = figure.split("@")[1];
  const others = [...result.quality, ...result.lists].filter((each) => each !== figure && each.split("@")[1] === at && (each.split("@")[0] !== "hit_rate" && each.split("@")[0] !== "map" || result.methods.some((method) => method.macro[each] !== method.macro[each.replace("hit_rate", "recall").replace("map", "mrr")])));
  const rows = ranked(result.methods, figure), best = number(rows[0].macro[figure]);
  const columns = [
    { name: "method", value: (method) => h("span", { class: "named" }, swatch(method.mark), breakable(method.name), method.name === result.baseline && h("span", { class: "badge accent" }, "baseline")) },
    { name: `${figure}${word === "%" ? "" : `, ${word}`}`, number: true, value: (method) => [h(number(method.macro[figure]) === best && best !== null ? "b" : "span", { "data-figure": figure, "data-value": number(method.macro[figure]) }, write(method.macro[figure])), ends(method.intervals[figure]?.low, method.intervals[figure]?.high, write)] },
    result.baseline && { name: `against ${result.baseline}${word === "%" ? ", points" : ""}`, number: true, title: "paired on the same questions, with its 95% interval", value: (method) => {
      const interval = method.intervals[figure], said = WORDS[verdict(interval)];
      return number(interval?.difference) === null ? "" : [h("span", { class: said?.[0], "data-value": interval.difference }, said && `${said[1]} `, gap(interval.difference)), ends(interval.difference_low, interval.difference_high, gap)];
    } },
    ...others.map((each) => ({ name: each, number: true, value: (method) => h("span", { "data-figure": each, "data-value": number(method.macro[each]) }, unit(each).write(method.macro[each])) })),
  ].filter(Boolean);
  const costs = costsOf(result);
  const rowOf = (method) => ({ "data-method": method.name, class: method.name === result.baseline ? "of-baseline" : null });
  const chance = result.methods.some((method) => (method.seeds[figure] ?? []).length > 1);
  const most = Math.max(0, ...result.methods.map((method) => (method.seeds[figure] ?? []).length));
  return [
    card("Overall", note(`Mean of ${result.windows.length || "the"} windows, every window counting the same${result.seeds > 1 ? `, and of ${result.seeds} seeds` : ""}. Small: 95% bootstrap intervals. An interval of a difference that holds zero says: level.`), table(columns, rows, { label: "overall", row: rowOf })),
    costs.length > 0 && card("Cost", note(`${costs.map((cost) => `${COST[cost][0]}: ${COST[cost][1]}`).join(" · ")}. One MB is a million bytes.`), table([columns[0], ...costs.map((cost) => ({ name: `${COST[cost][0]}`, title: COST[cost][1], number: true, value: (method) => h("span", { "data-cost": cost, "data-value": number(method.cost[cost]) }, COST[cost][2](method.cost[cost])) }))], rows,
      { label: "cost", row: rowOf })),
    chance && card("Seed by seed", note(`${figure}; – where a method draws no lots.`), table([columns[0], ...Array.from({ length: most }, (_, seed) => ({ name: `seed ${result.first + seed}`, number: true, value: (method) => method.seeds[figure]?.length > 1 ? write(method.seeds[figure][seed]) : "–" }))], rows, { label: "seed by seed", row: rowOf })),
  ];
}

// Quality within each part of what is asked: a cell a method and part, and under it the difference from the baseline.
function sliced(result, state, draw) {
  const all = groups(result), names = Object.keys(all);
  if (!names.length) return result.flat ? null : card("Where it is good", h("p", { class: "quiet" }, "This result holds no slices: quality is known for everything together only."));
  const group = names.includes(state.group) ? state.group : names[0];
  const shown = ranked(result.methods.filter((method) => state.on.has(method.name)), state.figure);
  const inside = new Set(result.methods.flatMap((method) => Object.keys(method.slices[group]?.[all[group][0]] ?? {}))), figure = inside.has(state.figure) ? state.figure : mainOf([...inside].filter((each) => each.includes("@")));
  const { write, gap } = unit(figure), value = (method, name) => number(method.slices[group]?.[name]?.[figure]);
  const targets = (name) => Math.max(0, ...result.methods.map((method) => number(method.slices[group]?.[name]?.targets) ?? 0));
  return h("section", { class: "card", id: "slices" }, h("div", { class: "card-head" }, h("h2", {}, "Where it is good"), either("slice", names.map((each) => [each, each]), group, (each) => { state.group = each; draw(); document.querySelector("#slices [aria-pressed=true]")?.focus(); })),
    h("p", { class: "quiet" }, `${GROUPS[group] ?? group}. ${figure}, every question counting the same.${figure === state.figure ? "" : ` Slices hold no ${state.figure}.`}`),
    shown.length > 0 && heat({ rows: shown.map((method) => method.name), columns: all[group].map((name) => name), values: shown.map((method) => all[group].map((name) => value(method, name))), format: (x) => write(x, 1), label: `${figure} by ${group} of ${shown.length} methods`, rowLabel: "method", columnLabel: group }),
    result.baseline && note(`Small: the difference from ${result.baseline} on the same questions, in points, with its 95% interval; ▲ ahead, ▼ behind.`),
    table([{ name: "method", value: (method) => h("span", { class: "named" }, swatch(method.mark), breakable(method.name)) },
      ...all[group].map((name) => ({ name: h("span", {}, part(group, name), h("div", { class: "quiet small" }, `${count(targets(name))} targets`)), number: true, value: (method) => {
        const difference = method.slices[group]?.[name]?.difference?.[figure];
        return [h("span", { "data-slice": `${group}/${name}`, "data-value": value(method, name) }, write(value(method, name))), number(difference?.[0]) === null || difference.every((end) => end === 0) ? null : h("div", { class: `small nowrap ${difference[1] > 0 ? "good" : difference[2] < 0 ? "bad" : "quiet"}` }, `${difference[1] > 0 ? "▲ " : difference[2] < 0 ? "▼ " : ""}${gap(difference[0])}`, number(difference[1]) === null ? null : [all[group].length > 4 && h("br"), h("span", { class: "quiet" }, ` (${gap(difference[1])} to ${gap(difference[2])})`)])];
      } }))], shown, { label: `${figure} by ${group}` }));
}
