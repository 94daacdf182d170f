// Charts from plain SVG. A colour is never the only sign: lines have dashes and markers, cells their figure, and everything can be read out
// by pointer or arrow keys. Each is drawn again when its width changes, so that letters keep their size.

import { fill, h, svg } from "./dom.js";
import { apart, cut, nice, plain, ticks, times, wide } from "./scales.js";

const DASHES = ["", "7 4", "2 3", "10 4 2 4", "14 5", "5 2 1 2", "1 4", "12 3 3 3 3 3"];
const MARKERS = [
  (x, y, r) => svg("circle", { cx: x, cy: y, r }),
  (x, y, r) => svg("rect", { x: x - r * 0.9, y: y - r * 0.9, width: r * 1.8, height: r * 1.8 }),
  (x, y, r) => svg("path", { d: `M${x} ${y - r * 1.2}L${x + r * 1.15} ${y + r * 0.8}H${x - r * 1.15}Z` }),
  (x, y, r) => svg("path", { d: `M${x} ${y - r * 1.3}L${x + r * 1.3} ${y}L${x} ${y + r * 1.3}L${x - r * 1.3} ${y}Z` }),
  (x, y, r) => svg("path", { d: `M${x} ${y + r * 1.2}L${x + r * 1.15} ${y - r * 0.8}H${x - r * 1.15}Z` }),
  (x, y, r) => svg("path", { d: `M${x - r} ${y - r}L${x + r} ${y + r}M${x - r} ${y + r}L${x + r} ${y - r}`, class: "stroked" }),
  (x, y, r) => svg("path", { d: `M${x - r * 1.2} ${y}H${x + r * 1.2}M${x} ${y - r * 1.2}V${y + r * 1.2}`, class: "stroked" }),
  (x, y, r) => svg("circle", { cx: x, cy: y, r: r * 0.85, class: "hollow" }),
];

// How the n-th series looks. Beyond eight the colours come again, with other dashes and markers.
const look = (n) => ({ colour: `var(--c${(n % 8) + 1})`, dash: DASHES[(n + Math.floor(n / 8)) % 8], marker: MARKERS[(n + 3 * Math.floor(n / 8)) % 8] });

const mark = (n, x, y, r = 3.6) => svg("g", { class: "mark", style: { "--mark": look(n).colour } }, look(n).marker(x, y, r));

// The sign of the n-th series, for a legend, a button or a table. plain: the marker without its line.
export function swatch(n, dashed = false) {
  const { colour, dash } = look(n);
  return svg("svg", { class: "swatch", width: 26, height: 12, "aria-hidden": "true" },
    svg("line", { x1: 1, x2: 25, y1: 6, y2: 6, style: { stroke: colour }, "stroke-dasharray": dashed ? "4 3" : dash, "stroke-width": 2 }), mark(n, 13, 6));
}

// The sign of the n-th path among dots.
export function dash(n) {
  return svg("svg", { class: "swatch", width: 26, height: 12, "aria-hidden": "true" }, svg("line", { x1: 1, x2: 25, y1: 6, y2: 6, style: { stroke: look(n).colour }, "stroke-dasharray": look(n).dash, "stroke-width": 2 }));
}

const known = (value) => typeof value === "number" && Number.isFinite(value);
const SMALL = 11.5, BOLD = 12.8; // px; bold letters are wider than their size says
const text = (x, y, words, props = {}) => svg("text", { x, y, ...props }, words);

// A chart that is drawn at the width it has. draw: width -> {parts, height, spots}; spots are read out: [{x, y, rows: [[swatch or null, name, value]], title}]
function chart(name, label, draw) {
  const picture = svg("svg", { role: "img", "aria-label": label, tabindex: 0, class: "picture" });
  const told = h("div", { class: "readout", role: "status", "aria-live": "polite", hidden: true });
  const root = h("div", { class: `chart chart-${name}` }, picture, told);
  let spots = [], move = () => -1, chosen = -1, shown = 0, cursor = () => null, pointer;

  function render(width) {
    shown = width;
    const drawn = draw(width);
    spots = drawn.spots ?? [];
    cursor = drawn.cursor ?? ((spot) => svg("circle", { cx: spot.x, cy: spot.y, r: 6, class: "ring" }));
    move = drawn.move ?? ((from, key) => from + ({ ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[key] ?? 0));
    pointer = svg("g", { class: "cursor" });
    picture.setAttribute("viewBox", `0 0 ${width} ${drawn.height}`);
    picture.setAttribute("height", drawn.height);
    fill(picture, svg("title", {}, label), drawn.parts, pointer);
    choose(-1);
  }

  function choose(n) {
    chosen = n;
    const spot = spots[n];
    told.hidden = !spot;
    if (!spot) return fill(pointer);
    fill(pointer, cursor(spot));
    fill(told, h("b", {}, spot.title), spot.rows.map(([sign, words, value]) => h("div", {}, sign, h("span", {}, words), h("span", { class: "number" }, value))));
    const room = told.offsetWidth;
    const left = spot.x + 14 + room > shown ? spot.x - 14 - room : spot.x + 14;
    told.style.left = `${Math.max(0, Math.min(left, shown - room))}px`;
    told.style.top = `${Math.max(0, spot.y - told.offsetHeight / 2)}px`;
  }

  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    let best = -1, least = Infinity;
    spots.forEach((spot, n) => {
      const far = spot.inside ? (spot.inside(x, y) ? 0 : Infinity) : Math.hypot(spot.x - x, spot.column ? 0 : spot.y - y);
      if (far < least) [best, least] = [n, far];
    });
    const next = best >= 0 && (spots[best].column || least < 40) ? best : -1;
    if (next !== chosen) choose(next);
  });
  picture.addEventListener("pointerleave", () => choose(-1));
  picture.addEventListener("blur", () => choose(-1));
  picture.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return choose(-1);
    if (!event.key.startsWith("Arrow") || !spots.length) return;
    event.preventDefault();
    choose(chosen < 0 ? 0 : Math.min(Math.max(move(chosen, event.key), 0), spots.length - 1));
  });
  new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width > 0 && width !== shown) requestAnimationFrame(() => render(width));
  }).observe(root);
  queueMicrotask(() => { // by then it stands in the page, most times: drawn before anybody sees a gap
    const width = Math.floor(root.getBoundingClientRect().width);
    if (width > 0 && !shown) render(width);
  });
  return root;
}

// The frame that lines and dots stand in: axes, grid and their labels. Returns places of values and the parts to draw.
function frame(width, height, right, x, y, xs, ys, top = 26) {
  const up = ys.length ? nice(y.from ?? Math.min(...ys), y.to ?? Math.max(...ys), Math.max(3, Math.round(height / 55))) : nice(0, 1);
  const down = { from: x.from ?? Math.min(...xs), to: x.to ?? Math.max(...xs) };
  if (!xs.length) Object.assign(down, { from: 0, to: 1 });
  if (down.from === down.to) Object.assign(down, x.time ? { from: down.from - 30000, to: down.to + 30000 } : { from: down.from - 0.5, to: down.to + 0.5 });
  const yText = up.ticks.map(y.format ?? plain);
  const left = Math.max(...yText.map((words) => wide(words, SMALL))) + 12;
  const bottom = height - (x.label ? 40 : 24);
  const inner = width - left - right;
  const at = { x: (value) => left + ((value - down.from) / (down.to - down.from)) * inner, y: (value) => bottom - ((value - up.from) / (up.to - up.from)) * (bottom - top) };
  const wanted = Math.max(3, Math.floor(inner / 90));
  const time = x.time ? times(down.from, down.to, wanted) : null;
  const format = x.format ?? time?.format ?? plain;
  const across = x.ticks ?? time?.ticks ?? ticks(down.from, down.to, wanted, x.whole ?? xs.every(Number.isInteger));
  let free = -Infinity;
  const xParts = across.filter((value) => value >= down.from && value <= down.to).flatMap((value) => {
    const words = format(value), half = wide(words, SMALL) / 2;
    const centre = Math.min(Math.max(at.x(value), left - 8 + half), width - half - 1);
    const room = centre - half > free + 8;
    if (room) free = centre + half;
    return [svg("line", { class: "axis", x1: at.x(value), x2: at.x(value), y1: bottom, y2: bottom + 4 }), room && text(centre, bottom + 17, words, { "text-anchor": "middle" })];
  });
  const parts = [
    up.ticks.map((value, n) => [svg("line", { class: value === 0 ? "axis" : "grid-line", x1: left, x2: left + inner, y1: at.y(value), y2: at.y(value) }),
      text(left - 8, at.y(value) + 4, yText[n], { "text-anchor": "end" })]),
    svg("line", { class: "axis", x1: left, x2: left + inner, y1: bottom, y2: bottom }), xParts,
    y.label && text(0, 12, cut(y.label, width, BOLD), { class: "axis-name" }),
    x.label && text(Math.min(left + inner / 2, width - wide(cut(x.label, width, BOLD), BOLD) / 2), height - 5, cut(x.label, width, BOLD), { class: "axis-name", "text-anchor": "middle" }),
  ];
  return { at, left, top, bottom, inner, parts };
}

function legend(series) {
  return h("div", { class: "legend" }, series.map((each) => h("span", {}, swatch(each.mark, each.dashed), each.name)));
}

// series: [{name, points: [{x, y, low, high}], dashed, mark}]. x: {label, format, time, whole, from, to, ticks}; y: {label, format, from, to}.
// mark: which of the looks a series has, where it must keep it while others come and go. A y of null is a gap.
export function lines({ series, x, y, height = 280, label }) {
  series = series.map((each, n) => ({ ...each, mark: each.mark ?? n, points: each.points.filter((point) => known(point.x)) }));
  const solid = series.map((each) => ({ ...each, all: each.points, points: each.points.filter((point) => known(point.y)) })).filter((each) => each.points.length);
  const all = solid.flatMap((each) => each.points);
  const xs = [...new Set(all.map((point) => point.x))].sort((a, b) => a - b);
  const ys = all.flatMap((point) => [point.y, point.low, point.high].filter(known));
  const format = y.format ?? plain;
  const told = h("div", {});
  const picture = chart("lines", label, (width) => {
    const tall = Math.max(height, 150), beside = width >= 520 && solid.length > 1 && solid.length * 15 <= tall - 60;
    const room = beside ? Math.min(Math.max(...solid.map((each) => wide(each.name, SMALL))) + 36, width * 0.3) : 10;
    fill(told, !beside && solid.length > 1 && legend(solid));
    const { at, top, bottom, parts } = frame(width, tall, room, x, y, xs, ys);
    const named = beside ? apart(solid.map((each) => at.y(each.points.at(-1).y)), 15, top, bottom) : [];
    const few = xs.length * 9 < width;
    const drawn = solid.map((each, n) => {
      const { colour, dash } = look(each.mark);
      const path = pieces(runs(each.all));
      const band = each.points.filter((point) => known(point.low) && known(point.high));
      const end = each.points.at(-1);
      return svg("g", { class: "series", "data-name": each.name, "data-points": JSON.stringify(each.all.map((point) => [point.x, point.y])), style: { "--mark": colour } },
        band.length > 1 && svg("path", { class: "band", d: `${way(band, at, "high")}${way([...band].reverse(), at, "low", "L")}Z` }),
        band.length === 1 && svg("line", { class: "whisker", x1: at.x(band[0].x), x2: at.x(band[0].x), y1: at.y(band[0].low), y2: at.y(band[0].high) }),
        svg("path", { class: "line", d: path(at), "stroke-dasharray": each.dashed ? "4 3" : dash }),
        (few ? each.points : [end]).map((point) => mark(each.mark, at.x(point.x), at.y(point.y), few ? 3 : 3.6)),
        beside && [svg("line", { class: "leader", x1: at.x(end.x) + 6, y1: at.y(end.y), x2: width - room + 11, y2: named[n] }),
          mark(each.mark, width - room + 17, named[n], 4), svg("text", { x: width - room + 25, y: named[n] + 4, class: "name" }, svg("title", {}, each.name), cut(each.name, room - 26, SMALL))]);
    });
    const tell = x.format ?? (x.time ? (when) => new Date(when).toLocaleString() : plain);
    const spots = xs.map((value) => {
      const here = solid.map((each) => [each, each.points.find((point) => point.x === value)]).filter(([, point]) => point).sort((a, b) => b[1].y - a[1].y);
      return { x: at.x(value), y: (top + bottom) / 2, column: true, here: here.map(([each, point]) => [each.mark, at.y(point.y)]),
        title: x.label && !x.time && !x.format ? `${x.label} ${tell(value)}` : tell(value),
        rows: here.map(([each, point]) => [swatch(each.mark, each.dashed), each.name, within(point, format)]) };
    });
    const cursor = (spot) => [svg("line", { class: "cross", x1: spot.x, x2: spot.x, y1: top, y2: bottom }), spot.here.map(([n, height]) => mark(n, spot.x, height, 4.5))];
    const none = !solid.length && text((width + 30) / 2, tall / 2, "nothing yet", { "text-anchor": "middle" });
    return { parts: [parts, drawn, none], height: tall, spots, cursor };
  });
  return h("div", { class: "chart-with-legend" }, told, picture);
}

const within = (point, format) => known(point.low) && known(point.high) ? `${format(point.y)} [${format(point.low)}, ${format(point.high)}]` : format(point.y);

const way = (points, at, key = "y", first = "M") => points.map((point, n) => `${n ? "L" : first}${at.x(point.x).toFixed(1)} ${at.y(point[key]).toFixed(1)}`).join("");

const pieces = (lists) => (at) => lists.map((points) => way(points, at)).join("");

// The points in runs without a gap.
function runs(points) {
  const found = [[]];
  for (const point of points) {
    if (known(point.y)) found.at(-1).push(point);
    else if (found.at(-1).length) found.push([]);
  }
  return found.filter((run) => run.length);
}

// A line without axes, for a cell or a tile. values: numbers, null for a gap.
export function sparkline(values, { label, height = 28, width = 120 } = {}) {
  const points = values.map((y, x) => ({ x, y }));
  const seen = values.filter(known);
  const low = Math.min(...seen), high = Math.max(...seen);
  const at = { x: (x) => 4 + (values.length > 1 ? x / (values.length - 1) : 0.5) * (width - 8),
    y: (y) => high === low ? height / 2 : height - 4 - ((y - low) / (high - low)) * (height - 8) };
  const end = points.filter((point) => known(point.y)).at(-1);
  return svg("svg", { role: "img", "aria-label": label ?? "trend", class: "sparkline", width, height, viewBox: `0 0 ${width} ${height}`, style: { "--mark": "var(--c1)" } },
    svg("title", {}, label ?? "trend"), svg("path", { class: "line", d: pieces(runs(points))(at) }), end && mark(0, at.x(end.x), at.y(end.y), 2.6));
}

// Horizontal bars. rows: [{name, value, low, high, note, mark}]; note stands in quiet letters behind the value.
export function bars({ rows, format = plain, label }) {
  return chart("bars", label, (width) => {
    const ends = rows.flatMap((row) => [row.value, row.low, row.high].filter(known));
    const from = Math.min(0, ...ends), to = Math.max(0, ...ends) || (from < 0 ? 0 : 1);
    const stacked = width < 480;
    const after = rows.map((row) => `${format(row.value)}${row.note ? `  ${row.note}` : ""}`);
    const right = Math.min(Math.max(0, ...after.map((words) => wide(words, SMALL))) + 12, width * 0.45);
    const left = stacked ? 0 : Math.min(Math.max(0, ...rows.map((row) => wide(row.name, BOLD))) + 12, width * 0.35);
    const each = stacked ? 40 : 28, height = rows.length * each + 6;
    const at = (value) => left + 2 + ((value - from) / (to - from)) * (width - left - right - 4);
    const spots = [];
    const parts = rows.map((row, n) => {
      const y = n * each + (stacked ? 18 : 4), middle = y + 9;
      if (known(row.value)) {
        spots.push({ x: at(Math.max(row.value, 0)), y: middle, title: row.name, rows: [[null, row.note ?? "", within({ ...row, y: row.value }, format)]],
          inside: (px, py) => py >= n * each && py < (n + 1) * each });
      }
      const end = at(Math.max(...[row.value, row.high, 0].filter(known)));
      return svg("g", { class: "bar", "data-name": row.name, style: { "--mark": `var(--c${((row.mark ?? 0) % 8) + 1})` } },
        svg("text", { x: stacked ? 0 : left - 8, y: stacked ? y - 5 : middle + 4, "text-anchor": stacked ? "start" : "end", class: "name" }, svg("title", {}, row.name),
          cut(row.name, stacked ? width : left - 12, BOLD)),
        known(row.value) && svg("rect", { x: Math.min(at(0), at(row.value)), y, width: Math.max(1, Math.abs(at(row.value) - at(0))), height: 18, rx: 3 }),
        from < 0 && svg("line", { class: "axis", x1: at(0), x2: at(0), y1: y - 3, y2: y + 21 }),
        known(row.low) && known(row.high) && svg("path", { class: "whisker", d: `M${at(row.low)} ${middle}H${at(row.high)}M${at(row.low)} ${middle - 4}v8M${at(row.high)} ${middle - 4}v8` }),
        svg("text", { x: end + 8, y: middle + 4 }, format(row.value), row.note && svg("tspan", { class: "quiet-text", dx: 6 }, row.note)));
    });
    return { parts, height, spots,
      cursor: (spot) => svg("line", { class: "cross", x1: spot.x, x2: spot.x, y1: spot.y - 11, y2: spot.y + 11 }) };
  });
}

// A heat map. values[row][column]: a number, or null for a cell that is empty. diagonal: outline the cells of a row and the column of its own number.
export function heat({ rows, columns, values, format = plain, label, rowLabel, columnLabel, diagonal = false }) {
  const seen = values.flat().filter(known);
  const low = seen.length ? Math.min(...seen) : 0, high = seen.length ? Math.max(...seen) : 1;
  const signed = low < 0 && high > 0, most = Math.max(-low, high);
  const share = (value) => signed ? Math.abs(value) / most : high === low ? 0.5 : (value - low) / (high - low);
  const deep = (value) => 0.06 + 0.94 * share(value);
  const colour = (value) => `color-mix(in srgb, var(--c${signed && value < 0 ? 2 : 1}) ${(100 * deep(value)).toFixed(1)}%, var(--sheet))`;
  const letters = (value) => deep(value) < 0.6 ? "on-light" : deep(value) < 0.85 ? "on-middle" : "on-deep";
  return chart("heat", label, (width) => {
    const left = Math.min(Math.max(0, ...rows.map((name) => wide(name, SMALL))) + 10, width * 0.3);
    const top = columnLabel || rowLabel ? 36 : 20;
    const cell = Math.min((width - left - 2) / columns.length, 76), tall = Math.min(Math.max(cell * 0.6, 18), 40);
    const words = Math.max(0, ...seen.map((value) => wide(format(value), 11)));
    const figures = cell >= words + 4;
    const step = Math.ceil((Math.max(0, ...columns.map((name) => wide(name, SMALL))) + 8) / cell);
    const at = { x: (n) => left + n * cell, y: (n) => top + n * tall };
    const spots = [];
    const parts = values.flatMap((row, r) => columns.map((name, c) => {
      const value = row[c], own = diagonal && r === c;
      spots.push({ x: at.x(c + 0.5), y: at.y(r + 0.5), title: `${rowLabel ?? "row"} ${rows[r]}, ${columnLabel ?? "column"} ${name}`, rows: [[null, "", known(value) ? format(value) : "empty"]],
        inside: (px, py) => px >= at.x(c) && px < at.x(c + 1) && py >= at.y(r) && py < at.y(r + 1), cell: [c, r] });
      return svg("g", { class: "cell", "data-row": rows[r], "data-column": name, "data-value": known(value) ? value : null },
        svg("rect", { x: at.x(c) + 1, y: at.y(r) + 1, width: cell - 2, height: tall - 2, rx: 3, class: known(value) ? "" : "void", style: known(value) ? { fill: colour(value) } : {} }),
        own && svg("rect", { x: at.x(c) + 2, y: at.y(r) + 2, width: cell - 4, height: tall - 4, rx: 2, class: "own" }),
        figures && known(value) && text(at.x(c + 0.5), at.y(r + 0.5) + 4, format(value), { "text-anchor": "middle", class: letters(value) }));
    }));
    const names = [
      rows.map((name, n) => svg("text", { x: left - 6, y: at.y(n + 0.5) + 4, "text-anchor": "end" }, svg("title", {}, name), cut(name, left - 8, SMALL))),
      columns.map((name, n) => n % step === 0 && text(at.x(n + 0.5), top - 6, name, { "text-anchor": "middle" })),
      (columnLabel || rowLabel) && text(0, 12, [rowLabel && `↓ ${rowLabel}`, columnLabel && `→ ${columnLabel}`].filter(Boolean).join("   "), { class: "axis-name" }),
    ];
    const bottom = at.y(rows.length) + 12, long = Math.min(180, width - left - 110), end = `${format(signed ? most : high)}`;
    const scale = seen.length ? [
      Array.from({ length: 24 }, (_, n) => signed ? -most + (2 * most * n) / 23 : low + ((high - low) * n) / 23).map((value, n) => svg("rect", { x: left + (n * long) / 24, y: bottom, width: long / 24 + 0.5, height: 10, style: { fill: colour(value) } })),
      text(left, bottom + 24, format(signed ? -most : low)), text(left + long, bottom + 24, end, { "text-anchor": "end" }),
    ] : [];
    const across = columns.length;
    const move = (from, key) => {
      const [c, r] = spots[from].cell;
      const [toC, toR] = { ArrowRight: [c + 1, r], ArrowLeft: [c - 1, r], ArrowDown: [c, r + 1], ArrowUp: [c, r - 1] }[key];
      return toC < 0 || toR < 0 || toC >= across || toR >= rows.length ? from : toR * across + toC;
    };
    return { parts: [parts, names, scale], height: bottom + 30, spots, move,
      cursor: (spot) => svg("rect", { class: "ring", x: at.x(spot.cell[0]), y: at.y(spot.cell[1]), width: cell, height: tall, rx: 4 }) };
  });
}

// Dots with names. points: [{name, x, y, low, high, mark}]. x, y: {label, format, told: a shorter name for the readout}. paths: [{name, points: [{x, y}], mark}] join dots that belong together.
export function dots({ points, x, y, label, height = 340, paths = [] }) {
  points = points.filter((point) => known(point.x) && known(point.y)).map((point, n) => ({ ...point, mark: point.mark ?? n }));
  const pad = (values, low = Math.min(...values), high = Math.max(...values)) => values.length ? [low - (high - low || Math.abs(high) || 1) * 0.06, high + (high - low || Math.abs(high) || 1) * 0.06] : [];
  const xs = pad(points.map((point) => point.x)), ys = pad(points.flatMap((point) => [point.y, point.low, point.high].filter(known)));
  const fx = x.format ?? plain, fy = y.format ?? plain;
  return chart("dots", label, (width) => {
    const { at, left, top, bottom, inner, parts } = frame(width, height, 14, { ...x, whole: false }, y, xs, ys);
    const taken = points.map((point) => [at.x(point.x) - 5, at.y(point.y) - 5, at.x(point.x) + 5, at.y(point.y) + 5]);
    const clear = ([x1, y1, x2, y2]) => x1 >= left && x2 <= left + inner + 14 && y1 >= top - 12 && y2 <= bottom && taken.every(([a1, b1, a2, b2]) => x2 < a1 || x1 > a2 || y2 < b1 || y1 > b2);
    const names = points.map((point) => {
      const px = at.x(point.x), py = at.y(point.y), words = cut(point.name, Math.min(220, inner * 0.5), SMALL), w = wide(words, SMALL);
      const tries = [[px + 9, py + 4], [px - 9 - w, py + 4], [px - w / 2, py - 10], [px - w / 2, py + 18], [px + 7, py - 9], [px + 7, py + 16], [px - 7 - w, py - 9], [px - 7 - w, py + 16]];
      const found = tries.find(([tx, ty]) => clear([tx, ty - 10, tx + w, ty + 2]));
      if (!found) return null;
      taken.push([found[0], found[1] - 10, found[0] + w, found[1] + 2]);
      return text(found[0], found[1], words, { class: "name" });
    });
    const drawn = points.map((point) => svg("g", { class: "dot", "data-name": point.name, "data-x": point.x, "data-y": point.y, style: { "--mark": look(point.mark).colour } }, svg("title", {}, point.name),
      known(point.low) && known(point.high) && svg("line", { class: "whisker", x1: at.x(point.x), x2: at.x(point.x), y1: at.y(point.low), y2: at.y(point.high) }),
      mark(point.mark, at.x(point.x), at.y(point.y), 5)));
    const joined = paths.map((each) => svg("path", { class: "line joined", "data-name": each.name, d: way(each.points, at), "stroke-dasharray": look(each.mark ?? 0).dash, style: { "--mark": look(each.mark ?? 0).colour } }, svg("title", {}, each.name)));
    const order = points.map((point) => ({ x: at.x(point.x), y: at.y(point.y), title: point.name,
      rows: [[null, x.told ?? x.label ?? "x", fx(point.x)], [null, y.told ?? y.label ?? "y", within(point, fy)]] })).sort((a, b) => a.x - b.x);
    return { parts: [parts, joined, drawn, names], height, spots: order };
  });
}
