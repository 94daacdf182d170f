// System: how the servers are. Latencies from what /metrics counts, processes and what each serves, Redis, what waits, and the disk.

import { ROOT, get, poll } from "../lib/api.js";
import { bars, lines, sparkline } from "../lib/charts.js";
import { card, empty, fill, h, table } from "../lib/dom.js";
import { ago, bytes, count, decimal, moment, percent, seconds } from "../lib/format.js";
import { between, histograms, parse, quantile, sum } from "../lib/prometheus.js";

const EVERY = 2000, MINUTE = 60000, KEPT = 10 * MINUTE;
const OWN = /^\/(v1\/)?console|^\/metrics|^\/v1\/releases$/; // the last is asked by every page, every two seconds
const RECOMMEND = (labels) => labels.route === "/v1/recommend/{user_id:id}" || (labels.method === "POST" && labels.route === "/v1/recommend");
const STAGES = { profile: "read the profile from Redis", rank: "find and rank the items" };

export async function mount(root, { signal }) {
  const state = { seen: [], own: false, late: null };
  const tiles = h("div", { class: "tiles five" }), pictures = h("div", { class: "grid pair" }), routes = h("section", { class: "card" }), stages = h("div", {}), beside = h("div", { class: "grid pair" });
  const machine = h("div", { class: "grid pair" }), disk = h("section", { class: "card" });
  fill(root, h("h1", {}, "System"), h("p", { class: "lead" }, "What this server counts about itself, all its workers together. Percentiles are read from histograms, so they are as fine as their buckets."),
    tiles, pictures, routes, stages, beside, machine, disk);
  diskCard(disk, signal);

  async function look() {
    const [text, system] = await Promise.all([get("/metrics", signal), get("/v1/console/system", signal)]);
    const metrics = parse(String(text)), at = Date.now();
    const total = sum(metrics, "recsys_requests_total");
    if (state.seen.length && total < state.seen.at(-1).total) state.seen = []; // it was started anew
    state.seen.push({ at, total, metrics });
    state.seen = state.seen.filter((each) => each.at > at - KEPT);
    show(system);
  }

  function show(system) {
    const now = state.seen.at(-1), { metrics } = now;
    const then = state.seen.find((each) => each.at >= now.at - MINUTE - EVERY) ?? now;
    const span = (now.at - then.at) / 1000;
    const people = (labels) => state.own || !OWN.test(labels.route ?? "");
    const rate = (name, wanted) => span > 0 ? (sum(metrics, name, wanted) - sum(then.metrics, name, wanted)) / span : null;
    fill(tiles, tilesOf(metrics, then.metrics, rate, people, system, span));
    redraw(pictures, 2, () => picturesOf(state.seen, people));
    routesOf(routes, state, metrics, then.metrics, span, people, () => show(system));
    fill(stages, stagesOf(metrics, then.metrics));
    redraw(beside, 4, () => countedOf(metrics));
    const versions = machine.querySelector("details");
    fill(machine, workersOf(system), redisOf(system));
    const anew = machine.querySelector("details");
    if (versions?.textContent === anew.textContent) anew.replaceWith(versions); // a click that is half done still reaches it
    else anew.open = versions?.open ?? false;
  }

  // Charts are drawn again every so many looks, and never under somebody's pointer.
  function redraw(element, every, make) {
    element.looks = (element.looks ?? 0) + 1;
    if (element.childElementCount && (element.looks % every || element.matches(":hover") || element.contains(document.activeElement))) return;
    fill(element, make());
  }

  await look();
  poll(EVERY, signal, look, (error) => { state.late = error; });
}

const tile = (value, name, title, kind) => h("div", { class: "tile", title }, h("b", { class: kind }, value), h("span", {}, name));
const p = (histogram, share) => histogram ? quantile(histogram, share) : null;
const ms = (found) => found ? `${found.beyond ? "> " : ""}${seconds(found.value)}` : "–";

function together(metrics, name, wanted) {
  const all = [...histograms(metrics, name, ["method", "route"]).values()].filter((each) => wanted(each.labels));
  if (!all.length) return null;
  return { count: all.reduce((total, each) => total + each.count, 0), buckets: all[0].buckets.map(([le], n) => [le, all.reduce((total, each) => total + each.buckets[n][1], 0)]) };
}

function tilesOf(metrics, then, rate, people, system, span) {
  const all = together(metrics, "recsys_request_seconds", RECOMMEND), before = together(then, "recsys_request_seconds", RECOMMEND);
  const lately = all && between(all, before);
  const some = lately?.count > 0 ? lately : all, since = lately?.count > 0 ? `last ${seconds(Math.max(2, span))}` : "since start";
  const asked = sum(metrics, "recsys_requests_total", people), failed = sum(metrics, "recsys_requests_total", (labels) => people(labels) && labels.status >= 500);
  const degraded = sum(metrics, "recsys_degraded_answers_total"), waiting = system.waiting;
  const began = Math.min(...system.workers.map((worker) => worker.began));
  return [
    tile(decimal(rate("recsys_requests_total", people), 1), "requests a second"), tile(ms(p(some, 0.5)), `recommendation, p50, ${since}`), tile(ms(p(some, 0.95)), `recommendation, p95, ${since}`), tile(ms(p(some, 0.99)), `recommendation, p99, ${since}`),
    tile(count(asked), "requests since start"), tile(count(failed), "errors of ours (5xx)", "answers 500 to 599", failed ? "bad" : ""), tile(count(degraded), "degraded answers", "recommendations without the profile, because Redis did not answer in time", degraded ? "warn" : ""),
    tile(decimal(rate("recsys_events_total", (labels) => labels.event_type !== "duplicate"), 1), "events a second"), tile(waiting ? count(waiting.events) : "–", "events waiting for the archiver"),
    tile(seconds(Date.now() / 1000 - began), "up", `since ${moment(began * 1000)}`),
  ];
}

function picturesOf(seen, people) {
  const pairs = seen.slice(1).map((each, n) => [each, seen[n]]);
  const wide = pairs.filter((_, n) => n % Math.ceil(pairs.length / 150) === 0);
  const perSecond = wide.map(([now, then]) => ({ x: now.at, y: Math.max(0, sum(now.metrics, "recsys_requests_total", people) - sum(then.metrics, "recsys_requests_total", people)) / ((now.at - then.at) / 1000) }));
  const points = (share) => wide.map(([now]) => {
    const then = seen.find((each) => each.at >= now.at - 10000) ?? now; // of the last ten seconds: single looks hold too few
    const all = together(now.metrics, "recsys_request_seconds", RECOMMEND), found = all && between(all, together(then.metrics, "recsys_request_seconds", RECOMMEND));
    return { x: now.at, y: now !== then && found?.count > 0 ? 1000 * quantile(found, share).value : null };
  });
  const x = { time: true }, label = "over the time that this page has been open";
  if (pairs.length < 2) return [card("Requests a second", h("p", { class: "quiet" }, "Watching; a picture comes in a few seconds.")), card("How long a recommendation takes", h("p", { class: "quiet" }, "Watching; a picture comes in a few seconds."))];
  const latency = [["p50", 0.5], ["p95", 0.95], ["p99", 0.99]].map(([name, share]) => ({ name, points: points(share) }));
  return [card("Requests a second", lines({ series: [{ name: "requests a second", points: perSecond }], x, y: { label: "requests a second", from: 0 }, height: 200, label: `Requests a second ${label}` })),
    card("How long a recommendation takes", latency[0].points.some((point) => point.y !== null) ? lines({ series: latency, x, y: { label: "milliseconds, of the last 10 s", from: 0 }, height: 200, label: `Latency ${label}` })
      : empty("Nobody has asked for a recommendation while this page is open.", "Ask for one, and it is here:", `curl '${ROOT}/v1/recommend/somebody'`))];
}

function routesOf(element, state, metrics, then, span, people, again) {
  const now = histograms(metrics, "recsys_request_seconds", ["method", "route"]), before = histograms(then, "recsys_request_seconds", ["method", "route"]);
  const rows = [...now].filter(([, each]) => people(each.labels)).sort(([, a], [, b]) => b.count - a.count).map(([key, all]) => {
    const of = (labels) => labels.method === all.labels.method && labels.route === all.labels.route;
    const statuses = (wanted) => sum(metrics, "recsys_requests_total", (labels) => of(labels) && wanted(Number(labels.status)));
    return { key, all, lately: before.get(key) ? between(all, before.get(key)) : all, asked: statuses(() => true), refused: statuses((status) => status >= 400 && status < 500), failed: statuses((status) => status >= 500),
      trend: state.seen.filter((_, n) => n % Math.ceil(state.seen.length / 30) === 0).map((each) => { const found = histograms(each.metrics, "recsys_request_seconds", ["method", "route"]).get(key); return found?.count ?? 0; }) };
  });
  const columns = [
    { name: "route", value: (row) => row.all.labels.route === "none" ? [h("code", {}, row.all.labels.method), h("span", { class: "quiet" }, " refused before any: no key, or no such address")]
      : h("code", {}, `${row.all.labels.method} ${row.all.labels.route.replaceAll(":id}", "}")}`) },
    { name: "requests", number: true, value: (row) => count(row.asked) },
    { name: "a second", number: true, title: "over the last minute", value: (row) => span > 0 ? decimal(row.lately.count / span, 1) : "–" },
    ...[["p50", 0.5], ["p95", 0.95], ["p99", 0.99]].map(([name, share]) => ({ name: `${name}, 1 min`, number: true, value: (row) => span > 0 ? ms(p(row.lately, share)) : "–" })),
    ...[["p50", 0.5], ["p95", 0.95], ["p99", 0.99]].map(([name, share]) => ({ name, number: true, title: "since the server was started", value: (row) => ms(p(row.all, share)) })),
    { name: "refused", number: true, title: "answers 400 to 499", value: (row) => count(row.refused) }, { name: "errors", number: true, title: "answers 500 to 599", value: (row) => h("span", { class: row.failed && "bad" }, count(row.failed)) },
    { name: "trend", value: (row) => { const steps = row.trend.slice(1).map((n, at) => Math.max(0, n - row.trend[at])); return steps.length > 1 ? sparkline(steps, { label: `Requests of ${row.key} over time`, width: 90, height: 22 }) : "–"; } },
  ];
  const box = h("input", { type: "checkbox", checked: state.own, onchange: (event) => { state.own = event.target.checked; again(); } });
  const focused = element.contains(document.activeElement) && document.activeElement.matches("input");
  const left = element.querySelector(".scroll")?.scrollLeft ?? 0;
  fill(element, h("div", { class: "title-row" }, h("h2", {}, "By route"), h("label", { class: "quiet small" }, box, "with what this console asks itself")),
    rows.length ? table(columns, rows, { caption: "Seconds to answer: of the last minute, and since the server was started", row: (row) => ({ "data-route": row.key }) })
      : empty("Nobody has asked anything yet but this console.", "Ask for a recommendation:", `curl '${ROOT}/v1/recommend/somebody'`));
  if (focused) box.focus();
  const scroll = element.querySelector(".scroll");
  if (scroll) scroll.scrollLeft = left;
}

function stagesOf(metrics, then) {
  const now = histograms(metrics, "recsys_stage_seconds", ["stage"]), before = histograms(then, "recsys_stage_seconds", ["stage"]);
  const rows = [...now].map(([name, all]) => ({ name, all, lately: before.get(name) ? between(all, before.get(name)) : all }));
  const figures = (name, pick) => [["p50", 0.5], ["p95", 0.95], ["p99", 0.99]].map(([title, share]) => ({ name: `${title}${name}`, number: true, value: (row) => ms(p(pick(row), share)) }));
  return card("By stage of a recommendation", rows.length ? table([{ name: "stage", value: (row) => [h("strong", {}, row.name), h("div", { class: "quiet small stage" }, STAGES[row.name] ?? "")] }, { name: "times", number: true, value: (row) => count(row.all.count) },
    ...figures(", 1 min", (row) => row.lately), ...figures("", (row) => row.all)], rows, { caption: "of the last minute, and since start" }) : h("p", { class: "quiet" }, "Nothing was recommended yet."));
}

function countedOf(metrics) {
  const by = (name, label) => (metrics.get(name) ?? []).filter((sample) => sample.value > 0).map((sample) => ({ name: sample.labels[label], value: sample.value })).sort((a, b) => b.value - a.value);
  const events = by("recsys_events_total", "event_type"), sources = by("recsys_recommended_items_total", "source");
  return [card("Events taken in, by type", events.length ? bars({ rows: events, format: count, label: "Events taken in since start, by type" }) : empty("No events yet.", "Send one to POST /v1/events, or tap on the page Live.")),
    card("Recommended items, by who spoke for them", sources.length ? bars({ rows: sources, format: count, label: "Items recommended since start, by source" }) : empty("Nothing was recommended yet.", "Ask for a recommendation, or open the page Live."))];
}

function workersOf(system) {
  const differ = new Set(system.workers.map((worker) => worker.release)).size > 1 || system.workers.some((worker) => worker.release !== system.live);
  return card("Workers", differ && h("p", { class: "warn" }, `Not every worker serves release ${system.live}, which is live. They follow within a second; one that cannot load it says why in the log.`),
    table([{ name: "process", value: (worker) => [String(worker.pid), worker.pid === system.answered_by && h("span", { class: "quiet small whole" }, " answered this")] },
      { name: "serves", value: (worker) => [h("strong", {}, worker.release ?? "nothing"), worker.trial && h("span", { class: "badge warn" }, ` and ${worker.trial} on trial`)] },
      { name: "since", value: (worker) => h("span", { class: "whole", title: ago(worker.since * 1000) }, moment(worker.since * 1000)) }, { name: "up", number: true, value: (worker) => seconds(system.now - worker.began) }, { name: "memory", number: true, title: "resident, shared pages among it", value: (worker) => bytes(worker.bytes) }],
    system.workers, { caption: `${count(system.workers.length)} ${system.workers.length === 1 ? "process answers" : "processes answer"} on ${count(system.cores)} cores; load ${decimal(system.load)}` }),
    h("details", {}, h("summary", {}, "Versions"), h("dl", { class: "facts" }, [["system", system.system], ...Object.entries(system.versions)].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value ?? "–"))))));
}

function redisOf(system) {
  const { redis, waiting } = system;
  const title = "Redis and the event streams";
  if (system.redis_refuses) return card(title, h("p", { class: "warn" }, `${system.redis_refuses}. Allow it: ACL SETUSER NAME +info`), waiting && h("p", {}, `${count(waiting.events)} events wait for the archiver.`));
  if (!redis) return card(title, h("div", { class: "problem", role: "alert" }, `${system.redis_away ?? "Redis does not answer"}. Recommendations go on from popular items, marked degraded; events are refused with 503 until it is back.`));
  const late = waiting?.oldest && system.now * 1000 - waiting.oldest > 5 * MINUTE;
  const facts = [["memory", `${bytes(redis.used_memory)}${redis.maxmemory ? ` of ${bytes(redis.maxmemory)}` : ""}`], ["peak", bytes(redis.used_memory_peak)], ["resident", bytes(redis.used_memory_rss)], ["clients", count(redis.connected_clients)], ["commands a second", count(redis.instantaneous_ops_per_sec)],
    ["evicted keys", count(redis.evicted_keys)], ["append-only file", redis.aof_enabled ? `on, last write ${redis.aof_last_write_status}` : "off"], ["up", seconds(redis.uptime_in_seconds)], ["version", redis.redis_version]];
  return card(title, redis.evicted_keys > 0 && h("p", { class: "bad" }, "Redis has evicted keys: profiles were lost for want of memory. Give it more, and maxmemory-policy noeviction."),
    redis.aof_enabled === 0 && h("p", { class: "warn" }, "Redis keeps no append-only file: events that were acknowledged can be lost by a crash. Set appendonly yes."),
    h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    h("h3", {}, "Waiting for the archiver"),
    h("p", { class: late ? "warn" : "" }, waiting?.events ? `${count(waiting.events)} ${waiting.events === 1 ? "event" : "events"}, the oldest since ${moment(waiting.oldest)} (${ago(waiting.oldest)}).` : "Nothing waits: every event is in the log."),
    late && h("p", {}, "Nobody seems to archive. They are safe in Redis, but no update learns them:"), late && h("pre", {}, "recsys archive\nrecsys serve --with-archiver"),
    h("p", { class: "quiet small" }, system.archived ? `The log last grew ${moment(system.archived)} (${ago(system.archived)}).` : "The log holds nothing yet."));
}

function diskCard(element, signal) {
  const told = h("div", { "aria-live": "polite" });
  const button = h("button", { onclick: async () => {
    button.disabled = true;
    try {
      const found = await get("/v1/console/disk", signal);
      const rows = Object.entries(found.folders).map(([name, about]) => ({ name: name ? `${name}/` : "(files beside)", value: about.bytes, note: `${count(about.files)} files` })).sort((a, b) => b.value - a.value);
      fill(told, bars({ rows, format: bytes, label: "Bytes of the home's folders" }), h("p", { class: found.free / found.of < 0.1 ? "bad" : "quiet" }, `${bytes(found.free)} of the disk's ${bytes(found.of)} are free (${percent(found.free / found.of)}).`),
        !found.counted_all && h("p", { class: "warn" }, "There are too many files to count them all; it is more than this."));
    } catch (error) {
      if (!signal.aborted) fill(told, h("div", { class: "problem", role: "alert" }, error.message));
    }
    button.disabled = false;
    button.textContent = "Look again";
  } }, "Look through the disk");
  fill(element, h("div", { class: "title-row" }, h("h2", {}, "Disk"), button), h("p", { class: "quiet" }, "What each folder of the home takes; looked through when you ask."), told);
}
