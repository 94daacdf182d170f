// The text that /metrics answers, read in the browser: samples, and percentiles of its histograms. Pure functions.

// -> Map of name -> [{labels, value}]. Escapes in label values are those of the exposition format.
export function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    if (!line || line[0] === "#") continue;
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/.exec(line);
    if (!match) continue;
    const [, name, inside, value] = match;
    if (!found.has(name)) found.set(name, []);
    found.get(name).push({ labels: labels(inside ?? ""), value: value === "+Inf" ? Infinity : Number(value) });
  }
  return found;
}

function labels(text) {
  const found = {};
  for (const [, name, value] of text.matchAll(/([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g)) found[name] = value.replace(/\\(.)/g, (_, letter) => letter === "n" ? "\n" : letter);
  return found;
}

// What a metric comes to over all its samples that `wanted` accepts.
export function sum(metrics, name, wanted = () => true) {
  return (metrics.get(name) ?? []).filter((sample) => wanted(sample.labels)).reduce((total, sample) => total + sample.value, 0);
}

// A histogram by some of its labels: Map of key -> {labels, count, buckets: [[le, cumulative]]}, le ascending.
export function histograms(metrics, name, by) {
  const found = new Map();
  const at = (sample) => {
    const key = by.map((label) => sample.labels[label]).join(" ");
    if (!found.has(key)) found.set(key, { labels: sample.labels, count: 0, buckets: new Map() });
    return found.get(key);
  };
  for (const sample of metrics.get(`${name}_bucket`) ?? []) {
    const le = sample.labels.le === "+Inf" ? Infinity : Number(sample.labels.le), { buckets } = at(sample);
    buckets.set(le, (buckets.get(le) ?? 0) + sample.value);
  }
  for (const sample of metrics.get(`${name}_count`) ?? []) at(sample).count += sample.value;
  for (const each of found.values()) each.buckets = [...each.buckets].sort(([a], [b]) => a - b);
  return found;
}

// What came between two states of a histogram; all of it where there was none before, or where it began anew since.
export function between(now, before) {
  if (!before || before.count > now.count) return now;
  const old = new Map(before.buckets);
  return { ...now, count: now.count - before.count, buckets: now.buckets.map(([le, n]) => [le, n - (old.get(le) ?? 0)]) };
}

// The value below which a share of the observations lies, by a straight line within its bucket, as Prometheus has it. {value, beyond}: beyond
// the last bucket nothing is known but that it is more. null where nothing was observed.
export function quantile({ buckets, count }, share) {
  if (!(count > 0)) return null;
  const rank = share * count;
  let low = 0, under = 0;
  for (const [le, n] of buckets) {
    if (n >= rank) return le === Infinity ? { value: low, beyond: true } : { value: n === under ? le : low + (le - low) * (rank - under) / (n - under), beyond: false };
    [low, under] = [le, n];
  }
  return { value: low, beyond: true };
}
