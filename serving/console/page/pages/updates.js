// Updates: how the live release came to be. Everything that was learned, refused, tried and turned, newest first, and the buttons to turn it.

import { del, part, poll, post } from "../lib/api.js";
import { lines as linesOf } from "../lib/charts.js";
import { course } from "../lib/course.js";
import { card, confirmed, empty, fill, h } from "../lib/dom.js";
import { ago, bytes, count, decimal, moment, percent, seconds } from "../lib/format.js";
import { MEASURES, compared, follow, reasons, timeline } from "../lib/releases.js";

const SHOWN = 30;

const SIGNS = {
  release: ["●", "accent", "made"], gone: ["○", "", "made, and gone since"], refused: ["✕", "bad", "refused"], superseded: ["⇥", "", "superseded"],
  trial: ["◐", "warn", "put on trial"], "trial ended": ["◌", "", "trial over"], promoted: ["▲", "good", "made live"], "rolled back": ["↩", "warn", "rolled back"],
  loss: ["!", "bad", "events lost"],
};

const FILTERS = [["all", "Everything"], ["release", "Releases"], ["refused", "Refused"], ["turns", "Trials and turns"]];
const OF = { all: () => true, release: (kind) => ["release", "gone"].includes(kind), refused: (kind) => ["refused", "superseded", "loss"].includes(kind),
  turns: (kind) => ["trial", "trial ended", "promoted", "rolled back"].includes(kind) };

export async function mount(root, { signal }) {
  const notice = h("div", { role: "status", "aria-live": "polite" });
  const now = h("div", { class: "grid now" }), pictures = h("div", {}), list = h("section", { "aria-label": "Timeline" });
  fill(root, h("h1", {}, "Updates"), h("p", { class: "lead" }, "How the release that answers came to be: what was learned and why, what the gate said, what was refused, tried and turned back."),
    notice, now, pictures, list);
  const look = follow(signal);
  const state = { filter: "all", shown: SHOWN, found: null };
  const parts = new Map();

  // Draw a part again only where what it shows is another, so that whoever stands on a button of it stays there.
  function draw(element, shows, make) {
    const sign = JSON.stringify(shows);
    if (parts.get(element) === sign) return;
    parts.set(element, sign);
    fill(element, make());
  }

  const [live, trial, job] = [h("section", { class: "card" }), h("section", { class: "card" }), h("section", { class: "card" })];
  fill(now, live, trial, job);

  function show() {
    const { found } = state;
    const of = (id) => found.releases.find((about) => about.id === id);
    draw(live, [found.live, found.answers, found.job.rolled_back_to, of(found.live)], () => liveCard(found, of(found.live), act));
    draw(trial, [found.job.trial, found.job.trial_wrong], () => trialCard(found.job, act));
    draw(job, [found.job.running && { ...found.job.running, at: 0, done: 0 }, found.job.refused_in_a_row, found.lines.at(-1), found.job.running?.lost], () => jobCard(found));
    progress(job, found.job.running);
    const entries = timeline(found.releases, found.lines);
    draw(pictures, [found.live, found.job.trial?.release, entries.length, entries.at(-1)?.at], () => picturesOf(entries, found, jump));
    draw(list, [found.live, found.answers, found.job.trial?.release, entries.length, entries.at(-1)?.at, state.filter, state.shown], () => listOf(entries, found, state, act, again));
  }

  function again() { show(); }

  function jump(id) {
    if (!list.querySelector(`[data-release="${id}"]`)) Object.assign(state, { filter: "all", shown: 1000 });
    show();
    const entry = list.querySelector(`[data-release="${id}"]`);
    entry?.scrollIntoView({ block: "center" });
    entry?.focus({ preventScroll: true });
  }

  function say(words, kind) {
    const close = h("button", { class: "icon", "aria-label": "Close this message", onclick: () => fill(notice) }, "×");
    fill(notice, h("div", { class: kind === "bad" ? "problem" : "said", role: kind === "bad" ? "alert" : null }, h("span", {}, words), close));
    close.focus({ preventScroll: true }); // the button that was pressed may be gone when this is drawn again
  }

  // Do something to the releases, say what became of it, and show how things stand.
  async function act(question, detail, yes, path, body, told) {
    if (question && !await confirmed(question, detail, yes)) return;
    try {
      const answer = body ? await post(path, body) : await del(path);
      say(told(answer), answer.serving && answer.serving !== answer.live ? "bad" : "good");
    } catch (error) {
      say(error.message, "bad");
    }
    if (signal.aborted) return;
    state.found = await look();
    show();
  }

  state.found = await look();
  show();
  poll(1500, signal, async () => { state.found = await look(); show(); });
}

const became = (answer) => answer.serving && answer.serving !== answer.live
  ? `Release ${answer.live} is named live, but this server cannot serve it and goes on with ${answer.serving}; its log says why.`
  : `Release ${answer.live} answers everybody now (it was ${answer.was}).`;

function back(found, about, act) {
  const to = about.parent;
  return act(`Roll back to release ${to}?`, `Everybody is answered from it within a second, as they were before ${about.id}: model, items, index and memory together. The job then waits for you; \`recsys job run --force\` learns anew what ${to} does not know. You can come back the same way.`,
    `Roll back to ${to}`, "/v1/releases/rollback", { release: to }, became);
}

function liveCard(found, about, act) {
  if (!found.live) return empty("There is no release yet.", "Train the first one on what is in the log:", "recsys fit");
  const there = about && found.releases.some((other) => other.id === about.parent);
  return [h("h2", {}, "Live"),
    h("p", { class: "figure" }, found.live, found.answers !== found.live && h("span", { class: "badge bad" }, `this server answers from ${found.answers ?? "nothing"}`)),
    about && h("p", { class: "quiet" }, `made ${moment(about.created)}, ${about.strategy ?? "no strategy"}; `, reasons(about).join("; ")),
    found.job.rolled_back_to === found.live && h("p", { class: "warn" }, "Somebody rolled back to this one, so the job waits: ", h("code", {}, "recsys job run --force"), " goes on."),
    h("div", { class: "actions" }, there
      ? h("button", { class: "danger", onclick: () => back(found, about, act) }, `Roll back to ${about.parent}`)
      : h("span", { class: "quiet small" }, "Nothing to roll back to: it has no parent here."))];
}

function trialCard({ trial, trial_wrong: wrong }, act) {
  const title = h("h2", {}, "On trial");
  const stop = () => act("End the trial?", "The live release answers everybody again, within a second.", "End it", "/v1/releases/trial", null,
    (answer) => answer.ended ? `The trial is over; release ${answer.live} answers everybody.` : "Nothing was on trial any more.");
  if (wrong) return [title, h("p", { class: "bad" }, wrong), h("div", { class: "actions" }, h("button", { onclick: stop }, "End it"))];
  if (!trial) return [title, h("p", { class: "quiet" }, "Nothing. A release can be shown to a share of the people first, or asked beside the live one and shown to nobody: choose “Try it…” at one below.")];
  return [title, h("p", { class: "figure" }, trial.release, h("span", { class: "badge warn" }, trial.shadow ? "shadow" : "canary")),
    h("p", {}, trial.shadow ? `Asked beside the live one for ${percent(trial.share)} of the people, shown to nobody, ` : `Shown to ${percent(trial.share)} of the people, always the same ones, `,
      `since ${moment(trial.began)}. `, trial.shadow ? "It goes live only by hand." : trial.hours ? `It goes live ${moment(trial.began + trial.hours * 3.6e6)}, if it has not fallen behind.` : "It goes live only by hand; if it surely falls behind, the trial ends by itself."),
    h("p", { class: "quiet" }, trial.so_far ? `So far: ${trial.so_far}.` : "The server has not compared the two yet."),
    h("div", { class: "actions" },
      h("button", { class: "primary", onclick: () => act(`Make release ${trial.release} live?`, "Everybody is answered from it within a second, and the trial ends.", "Make it live", `/v1/releases/${part(trial.release)}/promote`, {}, became) }, "Make it live"),
      h("button", { onclick: stop }, "End the trial"))];
}

const DOING = { beginning: "reading what is new", training: "training", judging: "the gate judges the candidate", publishing: "writing the release" };

function jobCard(found) {
  const { running, refused_in_a_row: refused } = found.job;
  const last = found.lines.filter((line) => line.what !== "backup").at(-1);
  const title = h("h2", {}, running && !running.lost ? "Learning now" : "The job");
  const alarm = refused > 1 && h("p", { class: "bad" }, `${refused} updates in a row were refused or fell behind. The reasons stand below; look at the log of events first.`);
  if (running?.lost) {
    return [title, h("p", { class: "bad" }, `A training was cut off: ${running.lost}. Nothing of it is live, and the next one learns what it would have.`),
      h("pre", {}, "recsys job run"), alarm];
  }
  if (running) {
    return [title, h("p", { class: "figure" }, running.what === "fit" ? "a full training" : running.parent ? `an update of ${running.parent}` : "an update"),
      h("p", { class: "quiet" }, `${count(running.events)} events; ${reasons(running).join("; ")}; begun ${moment(running.began * 1000)} by process ${running.pid} on ${running.machine}`),
      h("progress", { class: "how-far", max: 1, "aria-label": "How far the training is" }), h("p", { class: "doing small" }), alarm];
  }
  return [title, h("p", {}, last ? ["Nothing is being trained. The last that happened: ", h("strong", {}, (SIGNS[last.what] ?? ["", "", last.what])[2] === "made" || last.what === "published" ? "published" : (SIGNS[last.what] ?? ["", "", last.what])[2]), ` ${moment(last.time)}.`]
    : "Nothing is being trained, and the job has decided nothing yet."), alarm,
    h("p", { class: "quiet" }, "Look once whether an update is due, or keep looking:"), h("pre", {}, "recsys job run\nrecsys job watch")];
}

function progress(element, running) {
  const bar = element.querySelector(".how-far"), words = element.querySelector(".doing");
  if (!bar || !running) return;
  const known = running.of > 0;
  if (known) bar.value = running.done / running.of; else bar.removeAttribute("value");
  const past = Date.now() / 1000 - running.began;
  words.textContent = `${DOING[running.step] ?? running.step}${known && running.of > 1 ? `: ${count(running.done)} of ${count(running.of)}, ${percent(running.done / running.of, 0)}` : ""} · ${seconds(Math.max(0, past))} so far`;
}

function picturesOf(entries, found, jump) {
  if (!entries.length) return null;
  const judged = entries.filter((entry) => (entry.about?.gate ?? entry.line?.gate)?.figures?.["ndcg@20"] !== undefined);
  const name = (entry) => entry.kind === "refused" ? "refused" : entry.release;
  const series = [["the candidate", "ndcg@20"], ["the release that was live, same questions", "ndcg@20 live"]].map(([title, key]) =>
    ({ name: title, dashed: key !== "ndcg@20", points: judged.map((entry, n) => ({ x: n, y: (entry.about?.gate ?? entry.line.gate).figures[key] })) }));
  return [card("The course it took", course(entries, { live: found.live, trial: found.job.trial?.release, jump })),
    judged.length > 1 && card("Was each update worth it?", linesOf({ series, height: 220, label: "ndcg@20 on the newest events, of each candidate and of the release that was live",
      x: { label: "update", whole: true, format: (n) => judged[n] ? name(judged[n]) : "", ticks: judged.map((_, n) => n) }, y: { label: "ndcg@20 on the newest events", format: (value) => decimal(value, 3), from: 0 } }))];
}

function listOf(entries, found, state, act, again) {
  const wanted = entries.filter((entry) => OF[state.filter](entry.kind)).reverse();
  const tabs = h("div", { class: "actions filters", role: "group", "aria-label": "Show" }, FILTERS.map(([name, title]) =>
    h("button", { "aria-pressed": String(state.filter === name), onclick: () => { Object.assign(state, { filter: name, shown: SHOWN }); again(); } },
      `${title} `, h("span", { class: "quiet" }, count(entries.filter((entry) => OF[name](entry.kind)).length)))));
  if (!entries.length) return [h("h2", {}, "Timeline"), empty("Nothing has happened yet.", "Bring in events, then train the first release:", "recsys import FILE\nrecsys fit")];
  return [h("h2", {}, "Timeline"), tabs,
    wanted.length ? h("ol", { class: "timeline" }, wanted.slice(0, state.shown).map((entry) => item(entry, found, act))) : empty("Nothing of that kind.", "The job writes here what it refuses, and whoever tries or turns a release."),
    wanted.length > state.shown && h("button", { onclick: () => { state.shown += 100; again(); } }, `Show ${count(Math.min(100, wanted.length - state.shown))} more`),
    found.unreadable?.length > 0 && h("p", { class: "bad" }, `Not told of, for they cannot be read: ${found.unreadable.join(", ")}. What is wrong with one says: recsys promote ID`),
    found.left_out > 0 && h("p", { class: "quiet" }, `${count(found.left_out)} older releases are not told of here: recsys releases`)];
}

function item(entry, found, act) {
  const [sign, kind, title] = SIGNS[entry.kind] ?? ["·", "", entry.kind];
  const live = entry.kind === "release" && entry.release === found.live, tried = entry.kind === "release" && entry.release === found.job.trial?.release;
  return h("li", { class: `entry ${kind}`, "data-release": entry.kind === "release" ? entry.release : null, tabindex: entry.kind === "release" ? "-1" : null },
    h("span", { class: "sign", "aria-hidden": "true" }, sign),
    h("div", { class: "card" },
      h("div", { class: "head" }, h("strong", {}, headline(entry, title)),
        live && h("span", { class: "badge good" }, "live"), tried && h("span", { class: "badge warn" }, "on trial"),
        h("time", { class: "quiet small", datetime: entry.at, title: ago(entry.at) }, moment(entry.at))),
      entry.kind === "release" ? ofRelease(entry, found, act, live, tried) : ofLine(entry)));
}

function headline({ kind, release, line }, title) {
  if (kind === "release") return `Release ${release}`;
  if (kind === "refused") return `Refused: a candidate to follow ${line.parent}`;
  if (kind === "rolled back") return `Rolled back to ${release}`;
  return release ? `Release ${release} ${title}` : `${title[0].toUpperCase()}${title.slice(1)}`;
}

function ofRelease({ about, line }, found, act, live, tried) {
  const { metrics = {}, seconds: took = {} } = about;
  const facts = [
    ["learned", metrics.events === undefined ? null : `${count(metrics.events)} events`], ["held back for the gate", about["held back"] ? `${count(about["held back"])} events` : null],
    ["items", `${count(metrics.items)}${metrics["new items"] ? `, ${count(metrics["new items"])} new` : ""}`], ["new people", metrics["new people"] ? count(metrics["new people"]) : null],
    ["took", took.train === undefined ? null : `${seconds(took.train)} + ${seconds(took.write)} writing`], ["size", bytes(about.bytes)],
    ["newest event", moment(about.now).slice(0, 10)], ["parent", about.parent ?? "none"], ["strategy", about.strategy],
  ];
  const others = !live && h("div", { class: "actions" },
    h("button", { onclick: () => act(`Make release ${about.id} live?`, `Release ${found.live} answers now. Everybody is answered from ${about.id} within a second${found.job.trial ? ", and the trial that is on ends" : ""}. You can come back the same way.`, `Make ${about.id} live`, `/v1/releases/${part(about.id)}/promote`, {}, became) }, "Make it live"),
    !tried && h("button", { onclick: () => tryIt(about.id, found, act) }, "Try it…"));
  return [h("p", {}, reasons(about).join("; ")), gateOf(about.gate ?? line?.gate, true), h("dl", { class: "facts" }, facts.filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))), others];
}

function ofLine({ kind, line }) {
  const words = {
    refused: () => [h("p", {}, `${count(line.events)} events were learned for it, and are learned again by the next one: `, reasons(line).join("; ")),
      h("ul", { class: "why bad" }, (line.gate?.reasons?.length ? line.gate.reasons : [line.reason]).map((reason) => h("li", {}, reason))), gateOf(line.gate, false), h("p", { class: "quiet" }, `Release ${line.parent} stayed live.`)],
    superseded: () => h("p", {}, `Another was quicker: ${line.reason}`), trial: () => h("p", {}, line.shadow ? `Asked beside the live one for ${percent(line.share)} of the people, shown to nobody.` : `Shown to ${percent(line.share)} of the people first${line.hours ? `, for ${line.hours} h` : ""}.`),
    "trial ended": () => h("p", {}, `Why: ${line.reason}.`), promoted: () => h("p", {}, `It took the place of ${line.was ?? "none"}: ${line.reason}.`),
    "rolled back": () => h("p", {}, `Somebody went back from ${line.was}. The job waits until it is told to go on.`), loss: () => h("p", {}, `In partition ${line.partition}: ${line.reason}`),
    gone: () => [h("p", {}, `${reasons(line).join("; ")}. Its files are gone (recsys gc).`), gateOf(line.gate, true)],
  };
  return (words[kind] ?? (() => h("p", {}, line.reason ?? "")))();
}

// What the gate said: before and after in a line, and all of its figures for whoever opens it.
function gateOf(gate, accepted) {
  if (!gate?.figures) return accepted && h("p", { class: "quiet small" }, "Not judged: only updates by the job pass the gate.");
  const pairs = compared(gate);
  return h("div", { class: "gate" },
    h("span", { class: `badge ${gate.reasons?.length ? "bad" : "good"}` }, gate.reasons?.length ? "✕ the gate refused it" : "✓ the gate let it through"),
    pairs.filter(({ name }) => name.includes("ndcg")).map(({ name, candidate, live }) => h("span", { class: "change", title: MEASURES[name]?.[1] ?? name },
      `${MEASURES[name]?.[0] ?? name}: ${decimal(live, 4)} → `, h("strong", {}, decimal(candidate, 4)), " ", h("span", { class: `whole ${candidate >= live ? "good" : "bad"}` }, change(candidate, live)))),
    h("details", {}, h("summary", {}, "All that was measured"),
      h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["", "candidate", "live then", "change"].map((name, n) => h("th", { scope: "col", class: n && "number" }, name)))),
        h("tbody", {}, pairs.map(({ name, candidate, live }) => h("tr", {}, h("th", { scope: "row", title: MEASURES[name]?.[1] }, name), h("td", { class: "number" }, figure(candidate)), h("td", { class: "number" }, figure(live)), h("td", { class: "number" }, change(candidate, live))))))),
      gate.figures.questions !== undefined && h("p", { class: "quiet small" }, `Asked ${count(gate.figures.questions)} questions about the newest events. A difference refuses only where it is surely there (bootstrap over people).`),
      gate.notes?.length > 0 && h("ul", { class: "quiet small" }, gate.notes.map((note) => h("li", {}, note)))));
}

const figure = (value) => Number.isInteger(value) ? count(value) : decimal(value, 4);
const change = (now, then) => then ? `${now >= then ? "▲ +" : "▼ −"}${percent(Math.abs(now / then - 1))}` : "–";

// Ask how a release is to be tried.
function tryIt(id, found, act) {
  const share = h("input", { type: "number", min: 0.01, max: 50, step: "any", value: "5", required: true, "aria-label": "Share of the people in per cent" });
  const hours = h("input", { type: "number", min: 0, max: 87600, step: "any", value: "0", required: true, "aria-label": "Hours until it goes live" });
  const later = h("p", {}, h("label", {}, "Goes live after ", hours, " hours"), h("br", {}), h("span", { class: "quiet small" }, "if it has not fallen behind by then; 0: only by hand"));
  const ways = [["canary", "Show it to them (canary)"], ["shadow", "Ask it beside the live one and show it to nobody (shadow)"]].map(([value, words]) =>
    h("p", {}, h("label", {}, h("input", { type: "radio", name: "way", value, checked: value === "canary", onchange: () => { later.hidden = value === "shadow"; share.max = value === "shadow" ? 100 : 50; } }), words)));
  const dialog = h("dialog", { class: "trying", "aria-label": `Try release ${id}` }, h("form", { method: "dialog" }, h("h2", {}, `Try release ${id}`),
    h("p", {}, `Release ${found.live} goes on answering the others.${found.job.trial ? ` Release ${found.job.trial.release}, which is on trial, is so no longer.` : ""}`),
    h("p", {}, h("label", {}, "Share of the people ", share, " %")), ways, later,
    h("div", { class: "actions" }, h("button", { type: "button", onclick: () => dialog.close("no") }, "Cancel"), h("button", { value: "yes", class: "primary" }, "Begin the trial"))));
  dialog.addEventListener("close", () => {
    const way = dialog.querySelector("input[name=way]:checked").value;
    const body = { [way]: Number((Number(share.value) / 100).toFixed(6)), ...(way === "canary" ? { hours: Number(hours.value) } : {}) };
    dialog.remove();
    if (dialog.returnValue === "yes") {
      act(null, null, null, `/v1/releases/${part(id)}/promote`, body, ({ trial }) => `Release ${id} is on trial: ${trial.shadow ? "asked beside the live one for" : "shown to"} ${percent(trial.share)} of the people.`);
    }
  });
  document.body.append(dialog);
  dialog.showModal();
  share.select();
}
