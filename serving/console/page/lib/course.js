// The course that releases took, as a picture: who came from whom, what was refused, and where the course was turned.

import { h, svg } from "./dom.js";
import { moment } from "./format.js";

const STEP = 62, MOST = 40, LINE = 66, BELOW = 118;

// entries: oldest first, from `timeline`. jump: called with a release's id.
export function course(entries, { live, trial, jump }) {
  const steps = entries.filter((entry) => ["release", "refused", "rolled back", "promoted"].includes(entry.kind)).slice(-MOST);
  const at = new Map(), parts = [];
  let before = null, columns = 0;
  for (const entry of steps) {
    const x = 40 + columns * STEP;
    if (["release", "refused"].includes(entry.kind)) columns += 1;
    if (entry.kind === "release") {
      const { about } = entry, from = at.get(about.parent);
      at.set(entry.release, x);
      if (from !== undefined) parts.unshift(svg("path", { class: "born", d: from === before || x - from <= STEP ? `M${from} ${LINE}H${x}` : `M${from} ${LINE}Q${(from + x) / 2} ${LINE - Math.min(52, 14 + (x - from) / 6)} ${x} ${LINE}` }));
      before = x;
      parts.push(svg("g", { class: `node ${entry.release === live ? "is-live" : entry.release === trial ? "is-tried" : ""}`, tabindex: 0, role: "link", "aria-label": `Release ${entry.release}, ${moment(entry.at)}${entry.release === live ? ", live" : ""}`,
        onclick: () => jump(entry.release), onkeydown: (event) => { if (event.key === "Enter") jump(entry.release); } },
        svg("title", {}, `Release ${entry.release}, ${moment(entry.at)}, from ${about.parent ?? "nothing"}`),
        entry.release === live && svg("circle", { class: "halo", cx: x, cy: LINE, r: 14 }), svg("circle", { cx: x, cy: LINE, r: 8 }),
        svg("text", { x, y: LINE + 30, "text-anchor": "middle" }, entry.release.replace(/^0+(?=\d{3})/, "…")),
        (entry.release === live || entry.release === trial) && svg("text", { class: "state", x, y: LINE + 44, "text-anchor": "middle" }, entry.release === live ? "live" : "on trial")));
    } else if (entry.kind === "refused") {
      const from = at.get(entry.line.parent) ?? x - STEP;
      parts.unshift(svg("path", { class: "tried", d: `M${from} ${LINE}L${x} ${BELOW}` }));
      parts.push(svg("g", { class: "no" }, svg("title", {}, `Refused ${moment(entry.at)}: ${entry.line.reason}`), svg("path", { d: `M${x - 6} ${BELOW - 6}l12 12M${x - 6} ${BELOW + 6}l12 -12` }), svg("text", { x, y: BELOW + 24, "text-anchor": "middle" }, "refused")));
    } else {
      const to = at.get(entry.release), from = at.get(entry.line.was), back = entry.kind === "rolled back";
      if (to === undefined || from === undefined) continue;
      parts.push(svg("g", { class: back ? "turn back" : "turn" }, svg("title", {}, `${back ? "Rolled back" : "Made live"} ${moment(entry.at)}: ${entry.line.was} → ${entry.release}`),
        svg("path", { d: `M${from} ${LINE - 12}C${from} 10 ${to} 10 ${to} ${LINE - 13}`, "marker-end": `url(#${back ? "head-back" : "head-on"})` })));
    }
  }
  const width = 60 + columns * STEP, height = steps.some((entry) => entry.kind === "refused") ? 152 : 118;
  const head = (id) => svg("marker", { id, viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" }, svg("path", { d: "M0 0L8 4L0 8Z" }));
  const picture = svg("svg", { class: "course", width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `The course of ${steps.length} steps; release ${live} is live` },
    svg("defs", {}, head("head-back"), head("head-on")), parts);
  const scroll = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "The course that releases took" }, picture);
  requestAnimationFrame(() => { scroll.scrollLeft = scroll.scrollWidth; });
  return [scroll, h("p", { class: "quiet small" }, "● a release, joined to the one it learned on from · ✕ a candidate that the gate refused · an arrow: somebody turned the course. The newest is on the right; choose one to read about it.")];
}
