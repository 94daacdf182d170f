// Live: a wall of films for somebody. A tap is an event, and the wall is asked again at once; what other clients send appears by itself.

import { fill, h } from "../lib/dom.js";
import { asked, get, part, pause, poll, post } from "../lib/api.js";
import { settle } from "../app.js";
import { sparkline } from "../lib/charts.js";
import { EVENTS, called, known, nobodyAnswers } from "../lib/films.js";
import { picker } from "../lib/picker.js";
import { bare } from "../lib/poster.js";
import { profile } from "../lib/profile.js";
import { count, seconds } from "../lib/format.js";
import { told, wall } from "../lib/wall.js";

const ONE = 24, TWO = 12;
const LOOK = 1500; // ms between two looks at what others did
const REMEMBERED = 40; // times that a spark shows
const MODES = [["one", "One wall"], ["people", "Two people"], ["releases", "Two releases"]];

export async function mount(root, { params, signal }) {
  const { live, releases } = await patient(() => get("/v1/releases", signal), signal);
  if (!live) {
    fill(root, h("h1", {}, "Live"), nobodyAnswers(releases));
    return;
  }
  const others = releases.filter((id) => id !== live).reverse();
  const start = { user: params.get("user") ?? await somebody(signal), other: params.get("with"), release: params.get("release"), explore: params.get("explore") === "1" };
  new Live(root, signal, others, start).open();
}

// Ask until there is an answer: the page may be opened while the API starts.
async function patient(ask, signal) {
  for (;;) {
    try { return await ask(); } catch (error) {
      if (error.status !== 0 || signal.aborted) throw error;
      await pause(2000, signal);
    }
  }
}

// Somebody by chance who did a few things, or nobody's name where no one is known.
async function somebody(signal, not = []) {
  const { people } = await get("/v1/console/people?k=50", signal);
  const found = people.filter((person) => !not.includes(person.user));
  return (found.find((person) => person.events >= 4 && person.events <= 60) ?? found[0])?.user ?? invented();
}

const invented = () => `try-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36).slice(0, 5)}`;

export async function people(text, signal) {
  const found = await get(`/v1/console/people?k=10&q=${part(text)}`, signal);
  const some = found.people.map((person) => ({ value: person.user, title: called(person.user), note: `${count(person.events)} ${person.events === 1 ? "event" : "events"}` }));
  const where = `${count(found.looked_at)} keys of Redis looked at`;
  const note = !text ? "Some people by chance; type to search the profiles." : !some.length ? `No profile's name holds “${text}” (${found.complete ? "all profiles looked at" : where}).`
    : found.complete ? "" : `The best of those found; ${where}. A whole name is always found.`;
  return { options: some, note };
}

class Live {
  constructor(root, signal, others, start) {
    Object.assign(this, { root, signal, others, ...start });
    this.mine = new Set(); // events that this page sent
    this.taps = []; // what can be undone, newest last
    this.times = { tap: [], list: [] };
    this.mode = this.other ? "people" : this.release ? "releases" : "one";
  }

  open() {
    this.controls = h("div", { class: "live-controls card" });
    this.stage = h("div", {});
    this.said = h("p", { class: "live-said", role: "status", "aria-live": "polite" });
    this.undoing = h("button", { class: "undo", disabled: true, title: "Take the last tap back (key u)", onclick: () => this.undo() }, "↶ Undo");
    this.clock = h("div", { class: "clock" });
    fill(this.root, h("h1", {}, "Live"), h("p", { class: "lead" }, "A tap here is a real event: stored, counted by the very next list, learned by the next update."),
      this.controls, this.stage);
    asked.addEventListener("asked", (event) => this.timed(event.detail), { signal: this.signal });
    document.addEventListener("keydown", (event) => {
      if (event.key === "u" && !event.ctrlKey && !event.metaKey && !event.altKey && !event.target.closest("input, select, textarea, dialog")) this.undo();
    }, { signal: this.signal });
    this.arrange();
    poll(LOOK, this.signal, () => this.look());
  }

  // Everything that depends on who is looked at and how.
  arrange() {
    settle("live", { user: this.user, with: this.mode === "people" ? this.other : undefined, release: this.mode === "releases" ? this.release : undefined, explore: this.explore ? "1" : undefined });
    const two = this.mode !== "one", k = two ? TWO : ONE;
    const owners = this.mode === "people" ? [this.user, this.other] : [this.user];
    this.profiles = new Map(owners.map((user) => [user, { user, mark: "", view: profile({ undo: (event) => this.send(user, event, "undo") }) }]));
    this.panes = this.mode === "one" ? [{ user: this.user }] : this.mode === "people" ? owners.map((user) => ({ user })) : [{ user: this.user }, { user: this.user, release: this.release }];
    for (const pane of this.panes) {
      Object.assign(pane, { k, turn: 0, head: h("div", { class: "pane-head" }), note: h("div", { class: "pane-note", role: "alert", hidden: true }) });
      pane.wall = wall({ name: pane.release ? `films by release ${pane.release}` : `films for ${called(pane.user)}`, tap: (item, kind) => this.send(pane.user, item, kind, pane) });
      pane.root = h("section", { class: "pane", "aria-label": pane.release ? `release ${pane.release}` : called(pane.user) }, pane.head, pane.note, pane.wall.root);
    }
    if (two) for (const [place, pane] of this.panes.entries()) pane.wall.onover((id) => this.panes[1 - place].wall.over(id));
    const sides = [...this.profiles.values()].map((one) => h("section", { class: "card side-profile", "aria-label": `profile of ${called(one.user)}` }, one.view.root));
    const status = h("div", { class: "live-status card" }, h("div", { class: "said-row" }, this.undoing, this.said), this.clock);
    fill(this.stage, two
      ? [status, this.common = h("p", { class: "common-told" }), h("div", { class: "walls" }, this.panes.map((pane) => pane.root)), h("div", { class: "walls below" }, sides)]
      : h("div", { class: "one-wall" }, h("div", {}, status, this.panes[0].root), h("aside", { class: "beside" }, sides)));
    this.choices();
    this.taps = [];
    this.undoing.disabled = true;
    fill(this.said, "Tap a poster to play it, or say what you like and what is not for you.");
    this.ticked();
    for (const user of owners) this.refresh(user);
  }

  choices() {
    const mode = h("div", { class: "segments", role: "group", "aria-label": "How many walls" }, MODES.map(([name, words]) => h("button", { "aria-pressed": String(this.mode === name), onclick: () => this.turn(name) }, words)));
    const person = (label, take, user) => h("div", { class: "who" }, h("span", { class: "who-label quiet small" }, label), h("strong", { class: "who-name", title: user }, called(user)),
      picker({ label: `${label}: search people`, placeholder: "Search people…", search: people, choose: take, own: (text) => ({ value: text, title: `“${text}”`, note: "a new person, or one with just this name" }) }),
      h("div", { class: "actions" },
        h("button", { onclick: () => this.some(take, [this.user, this.other]), title: "Somebody who has a profile" }, "⚂ Random"),
        h("button", { onclick: () => take(invented()), title: "A new user id of whom nothing is known" }, "+ Invent"),
        h("button", { onclick: () => take(`session:${invented()}`), title: "Somebody who has not signed in" }, "+ Anonymous")));
    const second = this.mode === "people" ? person("And", (user) => this.change({ other: user }), this.other)
      : this.mode === "releases" ? h("label", { class: "who" }, h("span", { class: "who-label quiet small" }, "Against release"),
        h("select", { "aria-label": "Against release", onchange: (event) => this.change({ release: event.target.value }) }, this.others.map((id) => h("option", { value: id, selected: id === this.release }, id)))) : null;
    fill(this.controls, person("For", (user) => this.change({ user }), this.user), second,
      h("div", { class: "how" }, mode, h("label", { class: "small", title: "Draw a fifth of the places by chance from the best; each drawn film is logged with its propensity" },
        h("input", { type: "checkbox", checked: this.explore, onchange: (event) => this.change({ explore: event.target.checked }) }), "explore a little")));
  }

  change(what) {
    Object.assign(this, what);
    this.arrange();
  }

  turn(mode) {
    if (mode === "people" && !this.other) return this.some((other) => this.change({ mode, other }), [this.user]);
    if (mode === "releases") {
      if (!this.others.length) return fill(this.said, "There is one release only. Another comes with: recsys update");
      this.release ??= this.others[0];
    }
    return this.change({ mode });
  }

  // Take somebody by chance, or say why there is nobody.
  async some(take, not) {
    try { take(await somebody(this.signal, not)); } catch (error) {
      if (!this.signal.aborted) fill(this.said, h("span", { class: "bad" }, error.message));
    }
  }

  // Send an event for somebody and show what it changed.
  async send(user, item, kind, pane) {
    const time = Date.now();
    const who = user.startsWith("session:") ? { session_id: user.slice(8) } : { user_id: user };
    const shown = pane && !pane.release && pane.request ? { request_id: pane.request } : {};
    this.mine.add(`${item.item_id}\n${kind}\n${time}`);
    const place = kind === "undo" ? this.taps.findLastIndex((one) => one.user === user && one.item.item_id === item.item_id) : -1;
    const taken = place >= 0 ? this.taps.splice(place, 1) : []; // before it is answered: whoever presses twice means two taps
    this.undoing.disabled = !this.taps.length;
    try {
      await post("/v1/events", { ...who, item_id: item.item_id, event_type: kind, timestamp: time / 1000, ...shown }, this.signal);
    } catch (error) {
      if (this.signal.aborted) return;
      this.taps.push(...taken);
      this.undoing.disabled = !this.taps.length;
      fill(this.said, h("span", { class: "bad" }, `Not counted: ${error.message}`));
      return;
    }
    if (kind !== "undo") this.taps.push({ user, item });
    this.undoing.disabled = !this.taps.length;
    const words = kind === "undo" ? "You took back" : kind === "play" ? "You played" : kind === "like" ? "You liked" : "Not for you:";
    await this.refresh(user, `${words} “${bare(item)}”. `);
  }

  undo() {
    const last = this.taps.at(-1);
    if (last) this.send(last.user, last.item, "undo");
  }

  // Ask again what concerns somebody: the walls and the profile, at once.
  async refresh(user, cause = "") {
    const panes = this.panes.filter((pane) => pane.user === user);
    const asked = [...panes.map((pane) => this.fetch(pane)), this.person(user)];
    const found = await Promise.allSettled(asked);
    const changed = panes.map((pane, place) => [pane, found[place].value]).filter(([, change]) => change);
    if (cause && changed.length) fill(this.said, h("strong", {}, cause), changed.map(([pane, change]) => `${changed.length > 1 ? `${pane.release ? `Release ${pane.release}` : "The live one"}: ` : ""}${told(change, changed.length < 2)} `));
    if (this.panes.length > 1) this.compare();
  }

  async fetch(pane) {
    const turn = (pane.turn += 1), user = part(pane.user);
    const explore = this.explore && !pane.release ? "&explore=0.2" : "";
    try {
      if (pane.release && !pane.request) fill(pane.head, h("span", { class: "quiet" }, `Loading release ${pane.release}…`));
      const answer = await get(pane.release ? `/v1/console/list?user=${user}&release=${part(pane.release)}&k=${pane.k}&explain=true` : `/v1/recommend/${user}?k=${pane.k}&explain=true${explore}`, this.signal);
      const items = await known(answer.items, this.signal);
      if (turn !== pane.turn || this.signal.aborted) return null; // a newer question is on its way
      pane.request = answer.request_id ?? "none";
      pane.stale = false;
      pane.note.hidden = !answer.degraded;
      if (answer.degraded) fill(pane.note, "Redis did not answer in time: these are the popular films, not theirs.");
      fill(pane.head, h("strong", {}, this.mode === "releases" ? `release ${answer.release}` : called(pane.user)), h("span", { class: "quiet small" },
        this.mode === "releases" ? (pane.release ? "would show" : "answers now") : `${items.length} films from release ${answer.release}${answer.variant ? `, the ${answer.variant} one` : ""}`));
      return pane.wall.show(items);
    } catch (error) {
      if (this.signal.aborted || error.name === "AbortError" || turn !== pane.turn) return null;
      pane.stale = true;
      pane.note.hidden = error.status === 0; // the banner says so
      fill(pane.note, error.message);
      return null;
    }
  }

  // What a profile holds; returns the events that came since, null where nothing did.
  async person(user) {
    const one = this.profiles.get(user);
    const found = await get(`/v1/console/person?user=${part(user)}&mark=${one.mark}`, this.signal);
    if (found.unchanged || this.profiles.get(user) !== one) return null;
    const release = one.release;
    Object.assign(one, { mark: found.mark, release: found.release });
    const fresh = one.view.show(found);
    return { fresh, released: release !== undefined && release !== found.release ? found.release : null };
  }

  async look() {
    for (const user of [...this.profiles.keys()]) {
      const came = await this.person(user);
      if (came) {
        const theirs = came.fresh.filter((event) => !this.mine.has(`${event.item_id}\n${event.event_type}\n${event.time}`));
        const cause = came.released ? `Release ${came.released} answers now. ` : theirs.length ? `${this.panes.length > 1 ? `${called(user)}, from another client: ` : "From another client: "}${theirs.slice(0, 2).map((event) => `${(EVENTS[event.event_type] ?? ["", event.event_type])[1]} “${bare(event)}”`).join(", ")}${theirs.length > 2 ? ` and ${theirs.length - 2} more` : ""}. ` : "";
        if (cause) await this.refresh(user, cause);
      } else if (this.panes.some((pane) => pane.user === user && pane.stale)) await this.refresh(user);
    }
  }

  compare() {
    const [first, second] = this.panes.map((pane) => new Set(pane.wall.ids()));
    if (!first.size || !second.size) return;
    const both = new Set([...first].filter((id) => second.has(id)));
    for (const pane of this.panes) pane.wall.both(both);
    fill(this.common, h("strong", {}, `${both.size} of ${Math.max(first.size, second.size)} films`), " are on both walls", both.size ? ", and say so; point at one to see it on the other." : ".");
  }

  timed({ method, path, ms, status }) {
    const what = method === "POST" && path === "/v1/events" ? "tap" : path.startsWith("/v1/recommend/") ? "list" : null;
    if (!what || status >= 400) return;
    this.times[what] = [...this.times[what], ms].slice(-REMEMBERED);
    this.ticked();
  }

  ticked() {
    const one = (name, words) => {
      const times = this.times[name];
      return h("div", { class: "tick", "data-time": name }, h("span", { class: "quiet small" }, words), h("b", {}, times.length ? seconds(times.at(-1) / 1000) : "–"),
        times.length > 1 ? sparkline(times, { label: `${words}: the last ${times.length}, the slowest ${seconds(Math.max(...times) / 1000)}`, width: 84, height: 22 }) : null);
    };
    fill(this.clock, one("tap", "tap"), one("list", "list with reasons"), h("span", { class: "quiet small clock-note" }, "as this browser measured it"));
  }
}
