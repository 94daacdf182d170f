// Numbers and times for people, with their units.

const COUNT = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const MISSING = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);

export const count = (n) => known(n) ? COUNT.format(n) : MISSING;

export const decimal = (x, digits = 2) => known(x) ? x.toFixed(digits) : MISSING;

// A share of one as per cent: 0.1234 -> "12.3%".
export const percent = (x, digits = 1) => known(x) ? `${(100 * x).toFixed(digits)}%` : MISSING;

export function seconds(s) {
  if (!known(s)) return MISSING;
  if (s < 0.001) return `${(s * 1e6).toFixed(0)} µs`;
  if (s < 1) return `${(s * 1e3).toFixed(s < 0.1 ? 1 : 0)} ms`;
  if (s < 120) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
  if (s < 7200) return `${(s / 60).toFixed(0)} min`;
  if (s < 172800) return `${(s / 3600).toFixed(0)} h`;
  return `${(s / 86400).toFixed(0)} days`;
}

export function bytes(n) {
  if (!known(n)) return MISSING;
  for (const unit of ["B", "KB", "MB", "GB"]) {
    if (n < 1000) return `${n < 10 && unit !== "B" ? n.toFixed(1) : n.toFixed(0)} ${unit}`;
    n /= 1000;
  }
  return `${n.toFixed(1)} TB`;
}

// ms since 1970, or a text that a Date reads -> "2013-05-02 14:03", in the reader's own time zone.
export function moment(when) {
  const date = new Date(when);
  if (Number.isNaN(date.getTime())) return MISSING;
  const two = (n) => String(n).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

export const ago = (when) => {
  const past = (Date.now() - new Date(when).getTime()) / 1000;
  return !known(past) ? MISSING : past < 5 ? "just now" : `${seconds(past)} ago`;
};
