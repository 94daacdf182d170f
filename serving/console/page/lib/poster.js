// A poster for a film that has none: drawn from its title and genre, the same each time. The title stands on it as text.

import { h, svg } from "./dom.js";

// Genre -> hue in degrees and what may be drawn.
const GENRES = {
  "Sci-Fi": [206, space, space, rings, lanes], Action: [10, rays, rays, lanes, city, stripes], Adventure: [168, peaks, mesas, hills, rays], Animation: [186, hills, confetti, hills, space], Comedy: [42, confetti, shapes, hills, record],
  Crime: [226, city, slats, slats, rings], Documentary: [158, rings, medal, lanes], Drama: [266, curtain, shapes, medal, slats, sunset], Family: [96, hills, confetti, shapes], Fantasy: [286, peaks, peaks, space, woods],
  Horror: [352, woods, woods, slats, rings], Musical: [318, record, curtain], Music: [318, record, record, lanes], Mystery: [244, city, woods, slats, rings], Romance: [338, sunset, sunset, shapes, curtain, peaks], Thriller: [214, slats, city, rings, woods],
  War: [74, stripes, mesas, medal], Western: [22, mesas], History: [36, stripes, medal, mesas], Biography: [174, medal, curtain], Sport: [140, lanes, stripes], "Film-Noir": [230, slats],
};
const RARE = ["Sci-Fi", "Horror", "Western", "War", "Animation", "Documentary", "Film-Noir", "Music", "Musical", "Sport", "Fantasy", "Mystery", "Crime", "Romance"];

// The title without the year behind it, where that is known on its own.
export const bare = (item) => full(item).replace(/ \((\d{4})\)$/, (all, year) => item.year === undefined || String(item.year) === year ? "" : all);

// The title with its year, as one says it.
export const full = (item) => item.title || item.item_id;

export const yearOf = (item) => item.year ?? (/ \((\d{4})\)$/.exec(item.title ?? "") ?? [])[1];

// What stands in a poster's frame: the drawing and the title.
export function poster(item) {
  const words = bare(item);
  const size = words.length <= 12 ? "short" : words.length <= 26 ? "middle" : words.length <= 46 ? "long" : "longest";
  return [art(item), h("span", { class: `poster-title ${size}` }, words)];
}

export function art(item) {
  const next = numbers(`${item.item_id}\n${item.title ?? ""}`);
  const genres = item.genres ?? [];
  const genre = RARE.find((name) => genres.includes(name)) ?? genres.find((name) => GENRES[name]);
  const [hue, ...motifs] = GENRES[genre] ?? [Math.floor(next() * 360), shapes];
  const motif = motifs[Math.floor(next() * motifs.length)];
  const turned = hue + Math.round((next() - 0.5) * 34);
  const tone = (by, saturation, light) => `hsl(${(turned + by + 360) % 360} ${saturation}% ${light}%)`;
  const ink = { deep: tone(0, 48, 13), dark: tone(4, 44, 22), mid: tone(14, 46, 36), soft: tone(26, 50, 52), light: tone(38, 82, 72), other: tone(180 + (next() - 0.5) * 60, 72, 62) };
  const id = `g${(serial += 1)}`;
  return svg("svg", { viewBox: "0 0 200 300", preserveAspectRatio: "xMidYMid slice", "aria-hidden": "true", class: "art" },
    svg("defs", {},
      svg("linearGradient", { id, x1: 0, y1: 0, x2: next() < 0.5 ? 0 : 1, y2: 1 }, stop(0, ink.dark), stop(0.55, ink.mid), stop(1, ink.dark)),
      svg("linearGradient", { id: `${id}s`, x1: 0, y1: 0, x2: 0, y2: 1 }, stop(0, "#06080c", 0), stop(0.5, "#06080c", 0.55), stop(1, "#06080c", 0.92))),
    svg("rect", { width: 200, height: 300, fill: `url(#${id})` }),
    motif(next, ink),
    svg("rect", { y: 130, width: 200, height: 170, fill: `url(#${id}s)` }));
}

let serial = 0;

const stop = (offset, colour, opacity = 1) => svg("stop", { offset, "stop-color": colour, "stop-opacity": opacity });
const disc = (cx, cy, r, fill, more = {}) => svg("circle", { cx: round(cx), cy: round(cy), r: round(r), fill, ...more });
const block = (x, y, width, height, fill, more = {}) => svg("rect", { x: round(x), y: round(y), width: round(width), height: round(height), fill, ...more });
const shape = (d, fill, more = {}) => svg("path", { d, fill, ...more });
const many = (n, draw) => Array.from({ length: n }, (_, place) => draw(place));
const round = (x) => Math.round(x * 10) / 10;

// Numbers from 0 to 1 that a text settles (FNV-1a, then mulberry32).
function numbers(text) {
  let state = 2166136261;
  for (const letter of text) state = Math.imul(state ^ letter.codePointAt(0), 16777619);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function space(next, ink) {
  const x = 50 + next() * 100, y = 76 + next() * 46, r = 32 + next() * 26, tilt = Math.round(-28 + next() * 56), ringed = next() < 0.65;
  const half = (sweep) => svg("path", { d: `M${round(x - r * 1.75)} ${round(y)}A${round(r * 1.75)} ${round(r * 0.4)} 0 0 ${sweep} ${round(x + r * 1.75)} ${round(y)}`, fill: "none", stroke: ink.other, "stroke-width": 4, "stroke-linecap": "round", transform: `rotate(${tilt} ${round(x)} ${round(y)})` });
  return [
    many(34, () => disc(next() * 200, next() * 220, 0.5 + next() * 1.3, "#fff", { opacity: 0.35 + next() * 0.6 })),
    ringed && half(1), disc(x, y, r, ink.light),
    shape(`M${round(x)} ${round(y - r)}A${round(r)} ${round(r)} 0 0 1 ${round(x)} ${round(y + r)}A${round(r * 1.35)} ${round(r * 1.35)} 0 0 0 ${round(x)} ${round(y - r)}Z`, ink.dark, { opacity: 0.45, transform: `rotate(${tilt + 24} ${round(x)} ${round(y)})` }),
    ringed ? half(0) : [disc(x - r * 0.34, y - r * 0.2, r * 0.17, ink.soft, { opacity: 0.6 }), disc(x - r * 0.02, y + r * 0.42, r * 0.24, ink.soft, { opacity: 0.6 }), disc(x + r * 0.16, y - r * 0.5, r * 0.1, ink.soft, { opacity: 0.6 })],
    disc(x + (x < 100 ? 1 : -1) * r * 1.7, y - r * 1.1, 4 + next() * 7, ink.other),
  ];
}

function city(next, ink) {
  const parts = [disc(40 + next() * 120, 60 + next() * 30, 22 + next() * 16, ink.light, { opacity: 0.92 })];
  for (const [base, colour, lit] of [[150, ink.mid, 0], [172, ink.deep, 0.34]]) {
    let x = -8;
    while (x < 200) {
      const wide = 20 + next() * 26, top = base - 66 + next() * 74;
      parts.push(block(x, top, wide, 310 - top, colour));
      if (lit) for (let row = top + 8; row < 212; row += 11) for (let at = x + 5; at < x + wide - 7; at += 9) if (next() < lit) parts.push(block(at, row, 4, 5.5, ink.light, { opacity: 0.85 }));
      x += wide + (lit ? 3 : 1);
    }
  }
  return parts;
}

function slats(next, ink) {
  const lean = -14 + next() * 28, x = 60 + next() * 80;
  return [
    many(11, (n) => block(-40, -10 + n * 22, 280, 11, n % 2 ? ink.deep : ink.soft, { opacity: n % 2 ? 0.7 : 0.32, transform: `rotate(${lean} 100 110)` })),
    disc(x, 92, 15, ink.deep), shape(`M${x - 33} 230C${x - 33} 150 ${x - 22} 116 ${x} 116C${x + 22} 116 ${x + 33} 150 ${x + 33} 230Z`, ink.deep),
    block(x - 24, 76, 48, 6, ink.deep, { rx: 3 }), block(x - 14, 60, 28, 18, ink.deep, { rx: 4 }),
    block(x - 14, 72, 28, 4, ink.other),
  ];
}

function sunset(next, ink) {
  const x = 60 + next() * 80, sea = 138 + next() * 14;
  return [
    disc(x, sea - 18, 52, ink.light), block(0, sea, 200, 170, ink.dark),
    many(7, (n) => block(x - 44 + n * 5 + next() * 10, sea + 6 + n * 9, 88 - n * 11 + next() * 8, 3, ink.light, { opacity: 0.8 - n * 0.09, rx: 1.5 })),
    many(2, (n) => shape(`M${x - 24 + n * 40} ${sea}q4 -26 9 -26q5 0 9 26Z`, ink.deep)), many(2, (n) => disc(x - 15 + n * 40, sea - 32, 6.5, ink.deep)),
    many(4, () => { const bx = next() * 190, by = 24 + next() * 46; return svg("path", { d: `M${round(bx)} ${round(by)}q4 -5 7 0q4 -5 7 0`, fill: "none", stroke: ink.deep, "stroke-width": 1.8 }); }),
  ];
}

function hills(next, ink) {
  const wave = (y, deep) => `M0 ${y}C40 ${y - deep} 70 ${y - deep} 104 ${y}S170 ${y + deep * 0.7} 200 ${y - deep * 0.4}V310H0Z`;
  const x = 40 + next() * 120, y = 50 + next() * 30;
  return [
    disc(x, y, 26, ink.light), many(9, (n) => block(x - 1.6, y - 44, 3.2, 10, ink.light, { rx: 1.6, transform: `rotate(${n * 40 + 10} ${x} ${y})` })),
    many(3, () => { const cx = next() * 200, cy = 30 + next() * 60; return svg("g", { opacity: 0.85, fill: "#fff" }, disc(cx, cy, 9), disc(cx + 11, cy - 3, 11), disc(cx + 23, cy + 1, 8)); }),
    shape(wave(140 + next() * 10, 34), ink.soft), shape(wave(168 + next() * 8, -28), ink.mid), shape(wave(196, 22), ink.dark),
    many(6, () => { const tx = next() * 200, ty = 158 + next() * 34, tall = 14 + next() * 12; return shape(`M${round(tx)} ${round(ty)}l7 ${round(-tall)}l7 ${round(tall)}Z`, ink.deep); }),
    disc(20 + next() * 160, 112 + next() * 20, 8, ink.other),
  ];
}

function peaks(next, ink) {
  const peak = (x, top, wide, colour) => [
    shape(`M${round(x - wide)} 240L${round(x)} ${round(top)}L${round(x + wide)} 240Z`, colour),
    shape(`M${round(x)} ${round(top)}l${round(wide * 0.26)} ${round((240 - top) * 0.26)}l${round(-wide * 0.13)} -6l${round(-wide * 0.12)} 9l${round(-wide * 0.13)} -8l${round(-wide * 0.14)} 5Z`, "#fff", { opacity: 0.85 }),
  ];
  return [
    many(16, () => disc(next() * 200, next() * 90, 0.6 + next(), "#fff", { opacity: 0.7 })), disc(40 + next() * 120, 52 + next() * 20, 20 + next() * 14, ink.light),
    peak(30 + next() * 40, 96, 84, ink.soft), peak(130 + next() * 40, 78 + next() * 20, 96, ink.mid), peak(84 + next() * 30, 128, 92, ink.dark),
    shape(`M${60 + next() * 40} 300Q100 220 ${90 + next() * 40} 196`, "none", { stroke: ink.other, "stroke-width": 4 }),
  ];
}

function woods(next, ink) {
  const x = 50 + next() * 100;
  const tree = (at, lean) => svg("g", { stroke: ink.deep, fill: "none", "stroke-linecap": "round" },
    shape(`M${round(at)} 260Q${round(at + lean)} 160 ${round(at + lean * 0.4)} ${round(40 + next() * 30)}`, "none", { "stroke-width": 5 }),
    many(4, (n) => shape(`M${round(at + lean * 0.62)} ${170 - n * 26}q${n % 2 ? 18 : -18} -8 ${n % 2 ? 26 : -26} ${-26 - next() * 12}`, "none", { "stroke-width": 2.4 })));
  return [disc(x, 86, 50, ink.light), disc(x + 14, 76, 9, ink.soft, { opacity: 0.4 }), disc(x - 16, 98, 13, ink.soft, { opacity: 0.35 }),
    many(5, (n) => tree(12 + n * 44 + next() * 14, -14 + next() * 28)), many(2, (n) => disc(x - 8 + n * 15, 186, 3, ink.other))];
}

function confetti(next, ink) {
  const colours = [ink.light, ink.other, ink.soft, "#fff"];
  return [
    many(26, () => { const x = next() * 200, y = next() * 150, colour = colours[Math.floor(next() * 4)]; return next() < 0.5 ? disc(x, y, 2 + next() * 4, colour) : block(x, y, 5, 11, colour, { transform: `rotate(${round(next() * 180)} ${round(x)} ${round(y)})`, rx: 1.5 }); }),
    disc(100, 116, 56, ink.light), disc(80, 102, 6.5, ink.deep), disc(120, 102, 6.5, ink.deep),
    shape(next() < 0.5 ? "M70 124q30 44 60 0Z" : "M72 126q28 26 56 0", next() < 0.5 ? ink.deep : "none", { stroke: ink.deep, "stroke-width": 6, "stroke-linecap": "round", "stroke-linejoin": "round" }),
  ];
}

function rays(next, ink) {
  const x = 50 + next() * 100, y = 150 + next() * 30, n = 11, each = 360 / n / 2, turn = next() * 30;
  const ray = (at) => { const a = ((at * 2 * each + turn) * Math.PI) / 180, b = ((at * 2 * each + each + turn) * Math.PI) / 180; return `M${round(x)} ${round(y)}L${round(x + 400 * Math.cos(a))} ${round(y + 400 * Math.sin(a))}L${round(x + 400 * Math.cos(b))} ${round(y + 400 * Math.sin(b))}Z`; };
  return [many(n, (at) => shape(ray(at), ink.soft, { opacity: 0.55 })), disc(x, y, 46, ink.light), disc(x, y, 46, "none", { stroke: ink.deep, "stroke-width": 5, "stroke-dasharray": "14 9" }),
    shape(`M${x - 12} ${y - 40}L${x + 20} ${y - 40}L${x + 4} ${y - 8}H${x + 24}L${x - 20} ${y + 42}L${x - 6} ${y + 4}H${x - 24}Z`, ink.deep), many(5, () => block(next() * 200, next() * 120, 34, 2.5, ink.other, { transform: "skewX(-30)" }))];
}

function curtain(next, ink) {
  const x = 70 + next() * 60;
  return [
    shape(`M${x - 16} -10L${x + 16} -10L${x + 66} 230H${x - 66}Z`, ink.light, { opacity: 0.3 }), svg("ellipse", { cx: x, cy: 204, rx: 64, ry: 14, fill: ink.light, opacity: 0.65 }),
    many(6, (n) => shape(n < 3 ? `M${n * 15} 0Q${n * 15 + 20} 110 ${n * 12 - 4} 260H${n * 12 - 34}V0Z` : `M${200 - (n - 3) * 15} 0Q${180 - (n - 3) * 15} 110 ${204 - (n - 3) * 12} 260H${240}V0Z`, n % 2 ? ink.mid : ink.deep, { opacity: 0.92 })),
    disc(x, 132, 11, ink.deep), shape(`M${x - 17} 206Q${x - 16} 148 ${x} 148Q${x + 16} 148 ${x + 17} 206Z`, ink.deep), next() < 0.6 && disc(x + 34, 152, 4, ink.other),
  ];
}

function rings(next, ink) {
  const x = 60 + next() * 80, y = 84 + next() * 36;
  return [many(6, (n) => disc(x, y, 96 - n * 16, n % 2 ? ink.dark : ink.soft, { opacity: 0.9 })), disc(x, y, 12, ink.light),
    block(0, y - 0.8, 200, 1.6, ink.other), block(x - 0.8, 0, 1.6, 240, ink.other), many(4, () => disc(next() * 200, next() * 190, 3, ink.light))];
}

function record(next, ink) {
  const x = 60 + next() * 80, y = 92;
  return [disc(x, y, 68, ink.deep), many(4, (n) => disc(x, y, 60 - n * 9, "none", { stroke: ink.mid, "stroke-width": 1.4 })), disc(x, y, 24, ink.light), disc(x, y, 4, ink.deep),
    many(13, (n) => { const tall = 14 + next() * 62; return block(8 + n * 14.4, 214 - tall, 9, tall + 40, n % 3 ? ink.soft : ink.other, { rx: 2 }); })];
}

function stripes(next, ink) {
  const lean = -24 + next() * 48;
  return [many(7, (n) => block(-60, -30 + n * 38, 320, 19, n % 2 ? ink.soft : ink.deep, { opacity: 0.6, transform: `rotate(${lean} 100 100)` })),
    shape("M100 40L114 82H158L122 108L136 150L100 124L64 150L78 108L42 82H86Z", ink.light), disc(100, 96, 13, ink.dark)];
}

function medal(next, ink) {
  const x = 70 + next() * 60;
  return [disc(x, 100, 70, ink.light), disc(x, 100, 60, ink.mid), disc(x + 4, 84, 21, ink.deep), shape(`M${x - 42} 160Q${x - 36} 108 ${x + 2} 110Q${x + 40} 110 ${x + 46} 160Z`, ink.deep),
    many(3, (n) => block(14 + n * 5, 20 + n * 7, 60 - n * 16, 3, ink.other))];
}

function lanes(next, ink) {
  const x = 60 + next() * 80;
  return [many(7, (n) => shape(`M${x} 60L${-120 + n * 74} 300H${-84 + n * 74}Z`, n % 2 ? ink.soft : ink.light, { opacity: 0.6 })), disc(x, 58, 26, ink.other), block(0, 84, 200, 3, ink.deep)];
}

function mesas(next, ink) {
  const mesa = (x, top, wide, colour) => shape(`M${round(x - wide * 0.7)} 240L${round(x - wide * 0.5)} ${round(top)}H${round(x + wide * 0.5)}L${round(x + wide * 0.7)} 240Z`, colour);
  return [disc(50 + next() * 100, 92, 44, ink.light), mesa(30 + next() * 30, 118, 60, ink.soft), mesa(140 + next() * 40, 104, 70, ink.mid), block(0, 178, 200, 130, ink.dark),
    svg("g", { stroke: ink.deep, "stroke-width": 8, fill: "none", "stroke-linecap": "round" }, shape(`M${60 + next() * 80} 226v-62m0 30h-16v-18m16 30h16v-26`, "none"))];
}

function shapes(next, ink) {
  const colours = [ink.light, ink.other, ink.soft, ink.deep];
  return many(12, (n) => {
    const x = (n % 3) * 66.7, y = Math.floor(n / 3) * 56, colour = colours[Math.floor(next() * 4)], kind = Math.floor(next() * 4);
    if (kind === 0) return disc(x + 33, y + 28, 26, colour);
    if (kind === 1) return shape(`M${x} ${y}h66.7v56Q${x + 33} ${y + 56} ${x} ${y}Z`, colour);
    if (kind === 2) return block(x + 6, y + 6, 54, 44, colour, { rx: 4 });
    return shape(`M${x + 4} ${y + 52}L${x + 33} ${y + 4}L${x + 62} ${y + 52}Z`, colour);
  });
}
