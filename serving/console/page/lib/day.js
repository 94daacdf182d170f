// A day served live (benchmarks/day.py): the hit rate hour by hour of what learns beside what does not, and each update.

import { card, h, table } from "./dom.js";
import { lines } from "./charts.js";
import { number } from "./results.js";

const clock = (hour) => `${String(Math.floor(hour)).padStart(2, "0")}:${String(Math.round((hour % 1) * 60)).padStart(2, "0")}`;
const percent = (x) => number(x) === null ? "–" : `${x.toFixed(1)}%`;

export function day(result) {
  return [
    h("p", { class: "headline" }, `A day served live, ${result.runs.length === 1 ? "once" : `${result.runs.length} times`}: at noon, what people like changes. `, "One server learns, one stays as it was."),
    ...result.runs.map((run) => {
      const arms = Object.keys(run.bins), parts = run["hit rate@20, %"] ?? {};
      const updates = Array.isArray(run.updates) ? run.updates : [];
      return card(`Seed ${run.seed ?? "–"}`,
        lines({ series: arms.map((name, mark) => ({ name, mark, points: run.bins[name].map((bin) => ({ x: bin.hour, y: number(bin.rate), low: number(bin.low), high: number(bin.high) })) })),
          x: { label: "hour of the day", from: 0, to: 24, ticks: [0, 3, 6, 9, 12, 15, 18, 21, 24], format: clock }, y: { label: "hit rate@20, %", from: 0, format: percent }, label: `hit rate by hour, seed ${run.seed}` }),
        h("p", { class: "quiet small" }, "Bands: 95% intervals."),
        Object.keys(parts).length > 0 && table([{ name: "hit rate@20", value: ([name]) => name }, ...arms.map((name) => ({ name, number: true, value: ([, value]) => h("span", { "data-value": number(value[name]) }, percent(value[name])) }))], Object.entries(parts)),
        updates.length > 0 && table([{ name: "release", value: (each) => each.release }, { name: "began", value: (each) => clock(each.begin) }, { name: "ended", value: (each) => clock(each.end) }, { name: "why", value: (each) => each.reason }], updates, { caption: "Updates" }));
    }),
  ];
}
