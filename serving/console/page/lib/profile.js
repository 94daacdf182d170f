// What somebody did, newest first, on the side of a wall and on their page.

import { fill, h } from "./dom.js";
import { address } from "../app.js";
import { EVENTS, called, filmLink, thumb } from "./films.js";
import { ago, count, moment, percent } from "./format.js";

const SHOWN = 12;

// Lately: how long ago; else: on which day.
const when = (time) => Date.now() - time < 14 * 86400e3 ? ago(time) : moment(time).slice(0, 10);

// undo: (event) => void, or null where nothing can be taken back.
export function profile({ undo = null, links = true } = {}) {
  const head = h("div", { class: "profile-head" });
  const list = h("ol", { class: "events", "aria-label": "events, newest first" });
  const more = h("button", { class: "small", hidden: true, onclick: () => { all = true; draw(); } });
  const root = h("div", { class: "profile" }, head, list, more);
  let person = null, seen = null, all = false;

  function draw() {
    const events = all ? person.events : person.events.slice(0, SHOWN);
    const newest = new Set();
    fill(list, events.map((event) => {
      const [sign, word, tone] = EVENTS[event.event_type] ?? ["·", event.event_type, "quiet"];
      const standing = !event.taken_back && event.event_type !== "undo";
      const last = standing && !newest.has(event.item_id);
      if (standing) newest.add(event.item_id);
      return h("li", { class: `event ${event.taken_back ? "gone" : ""} ${seen && !seen.has(event.event_id) ? "fresh" : ""}`, "data-event": event.event_id },
        thumb(event),
        h("div", { class: "event-text" },
          h("div", {}, h("span", { class: `event-kind ${tone}` }, h("span", { "aria-hidden": "true" }, sign), " ", word), event.taken_back && event.event_type !== "undo" && h("span", { class: "badge" }, "taken back")),
          h("div", { class: "event-title" }, filmLink(event)), h("div", { class: "quiet small", title: moment(event.time) }, when(event.time), typeof event.value === "number" && h("span", { title: "the event's value: a rating as a share of its scale, or the share that was watched" }, ` · ${percent(event.value, 0)}`))),
        undo && last && h("button", { class: "icon-button", title: "Take it back", "aria-label": `Take back: ${word} ${event.title ?? event.item_id}`, onclick: (click) => { if (click.detail < 2) undo(event); } }, "↶"));
    }));
    more.hidden = all || person.events.length <= SHOWN;
    more.textContent = `Show all ${person.events.length}`;
  }

  return {
    root,
    // Show a person as /v1/console/person tells; returns the events that are new since the last time.
    show(found) {
      const same = person?.user === found.user;
      seen = same ? new Set(person.events.map((event) => event.event_id)) : null;
      const fresh = same ? found.events.filter((event) => !seen.has(event.event_id)) : [];
      if (!same) all = false;
      person = found;
      fill(head, h("strong", { class: "profile-name" }, called(found.user)), " ",
        h("span", { class: "quiet small" }, found.events.length ? `${count(found.events.length)} ${found.events.length === 1 ? "event" : "events"}${found.events.length >= found.most ? ", the newest that a profile holds" : ""}` : "nothing known yet"),
        links && h("a", { class: "small", href: address("people", { user: found.user }) }, "Why these?"));
      draw();
      if (!found.events.length) fill(list, h("li", { class: "quiet small" }, "Tap a film: the next list counts it."));
      return fresh;
    },
  };
}

const GAP = 30 * 60e3; // what ends a session by default (data.session_gap)

// A profile by sessions, newest first: what lies less than half an hour apart is one.
export function sessions(person) {
  const groups = [];
  for (const event of person.events) {
    const group = groups.at(-1);
    if (group && group.at(-1).time - event.time < GAP) group.push(event);
    else groups.push([event]);
  }
  let shown = 15;
  const list = h("ol", { class: "sessions" });
  const more = h("button", { class: "small", onclick: () => { shown = groups.length; draw(); } });
  function draw() {
    fill(list, groups.slice(0, shown).map((group) => h("li", {}, h("div", { class: "session-when quiet small" }, moment(group.at(-1).time), group.length > 1 ? ` · ${group.length} events` : ""),
      h("ul", {}, group.map((event) => {
        const [sign, word, tone] = EVENTS[event.event_type] ?? ["·", event.event_type, "quiet"];
        return h("li", { class: `event ${event.taken_back ? "gone" : ""}` }, thumb(event), h("div", { class: "event-text" }, h("div", { class: "event-title" }, filmLink(event)),
          h("span", { class: `event-kind ${tone}` }, h("span", { "aria-hidden": "true" }, sign), " ", word), event.taken_back && event.event_type !== "undo" && h("span", { class: "badge" }, "taken back"),
          typeof event.value === "number" && h("span", { class: "quiet small" }, percent(event.value, 0))));
      })))));
    more.hidden = groups.length <= shown;
    more.textContent = `Show all ${groups.length} sessions`;
  }
  draw();
  return h("div", { class: "profile" }, h("p", { class: "quiet small" }, `${count(groups.length)} ${groups.length === 1 ? "session" : "sessions"}: what lies less than 30 minutes apart is one.`), list, more);
}
