// From figures to places on a chart: round ticks, domains, names that do not cover one another. Pure functions.

// About `wanted` round numbers (1, 2, 2.5 or 5 times a power of ten) that cover from..to. whole: never a fraction.
export function ticks(from, to, wanted = 5, whole = false) {
  if (!(to > from)) return [from];
  const rough = (to - from) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = power * ([1, 2, 2.5, 5].find((each) => each * power >= rough * 0.999) ?? 10);
  if (whole) step = Math.max(1, Math.ceil(step));
  const digits = Math.max(0, 2 - Math.floor(Math.log10(step)));
  const found = [];
  for (let n = Math.ceil(from / step - 1e-9); n * step <= to + step * 1e-9; n++) found.push(Number((n * step).toFixed(Math.min(digits, 20))));
  return found;
}

// from..to widened to round ends: {from, to, ticks}.
export function nice(from, to, wanted = 5) {
  if (from === to) {
    if (from === 0) return nice(0, 1, wanted); // what is counted and was never seen is not less than none
    const room = Math.abs(from) / 10 || 1;
    return nice(from - room, to + room, wanted);
  }
  const inner = ticks(from, to, wanted);
  const step = inner.length > 1 ? inner[1] - inner[0] : (to - from) / 2;
  const ends = [Math.floor(from / step + 1e-9) * step, Math.ceil(to / step - 1e-9) * step];
  return { from: ends[0], to: ends[1], ticks: ticks(ends[0], ends[1], (ends[1] - ends[0]) / step) };
}

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const STEPS = [SECOND, 5 * SECOND, 15 * SECOND, 30 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR,
  DAY, 2 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 91 * DAY, 182 * DAY, 365 * DAY];

// Ticks of a time axis (ms since 1970) in the reader's time zone, and how to write them.
export function times(from, to, wanted = 5) {
  const step = STEPS.find((each) => (to - from) / each <= wanted) ?? STEPS.at(-1) * Math.ceil((to - from) / STEPS.at(-1) / wanted);
  const zone = new Date(from).getTimezoneOffset() * MINUTE;
  const found = [];
  for (let at = Math.ceil((from - zone) / step) * step + zone; at <= to; at += step) found.push(at);
  const two = (n) => String(n).padStart(2, "0");
  const clock = (date) => `${two(date.getHours())}:${two(date.getMinutes())}`;
  const format = step >= DAY ? (at) => { const date = new Date(at); return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`; }
    : step >= MINUTE ? (at) => clock(new Date(at)) : (at) => `${clock(new Date(at))}:${two(new Date(at).getSeconds())}`;
  return { ticks: found, format };
}

// A number in a few letters, where a chart was told no better way.
export function plain(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return `${+(value / 1e9).toPrecision(3)} G`;
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)} M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)} k`;
  return size === 0 || size >= 1e-4 ? String(+value.toPrecision(4)) : value.toExponential(1);
}

// Heights for names that would like to stand at `wanted`, at least `gap` apart and within from..to. Returns them in the order given.
export function apart(wanted, gap, from, to) {
  const order = wanted.map((y, n) => [y, n]).sort((a, b) => a[0] - b[0]);
  const placed = order.map(([y]) => Math.min(Math.max(y, from), to));
  for (let n = 1; n < placed.length; n++) placed[n] = Math.max(placed[n], placed[n - 1] + gap);
  for (let n = placed.length - 1, limit = to; n >= 0; n--, limit = placed[n + 1] - gap) placed[n] = Math.min(placed[n], limit);
  const found = [];
  order.forEach(([, n], rank) => { found[n] = placed[rank]; });
  return found;
}

let pen;
// How wide a text is, in px, at a size.
export function wide(text, size = 12) {
  pen ??= document.createElement("canvas").getContext("2d");
  pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(text).width;
}

// A text cut in its middle to a width, for what tells two names apart often stands at their end.
export function cut(text, width, size = 12) {
  if (wide(text, size) <= width) return text;
  for (let keep = text.length - 1; keep > 2; keep--) {
    const short = `${text.slice(0, Math.ceil(keep / 2))}…${text.slice(text.length - Math.floor(keep / 2))}`;
    if (wide(short, size) <= width) return short;
  }
  return "…";
}
