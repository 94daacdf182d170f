// Users / Items: who somebody is to the system and why they are shown what they are shown; what is known of a film.

import { card, empty, fill, h } from "../lib/dom.js";
import { get, part } from "../lib/api.js";
import { address, settle } from "../app.js";
import { called, facts, filmLink, known, nobodyAnswers, source, thumb } from "../lib/films.js";
import { count, percent } from "../lib/format.js";
import { filmView, films } from "../lib/film.js";
import { picker } from "../lib/picker.js";
import { full } from "../lib/poster.js";
import { sessions } from "../lib/profile.js";
import { people } from "./live.js";

const SHOWN = 10;

const go = (params) => { location.hash = address("people", params); };

export async function mount(root, { params, signal }) {
  const { live, releases } = await get("/v1/releases", signal);
  const body = h("div", {});
  fill(root, h("h1", {}, "Users / Items"), h("p", { class: "lead" }, "Who somebody is to the system, why they are shown what they are shown, and what is known of a film."), search(), body);
  if (!live) fill(body, nobodyAnswers(releases));
  else if (params.get("user")) await personView(body, params.get("user"), params.get("why"), signal);
  else if (params.get("item")) await filmView(body, params.get("item"), signal);
  else await start(body, signal);
}

function search() {
  return h("div", { class: "card searches" },
    h("label", {}, "A person", picker({ label: "Search people", placeholder: "Name or part of it…", search: people, choose: (user) => go({ user }), own: (text) => ({ value: text, title: `“${text}”`, note: "look at just this name" }) })),
    h("label", {}, "A film", picker({ label: "Search films", placeholder: "Title or id…", search: films, choose: (item) => go({ item }), own: (text) => ({ value: text, title: `“${text}”`, note: "look at just this id" }) })));
}

// Where nobody is chosen yet: some people and films to begin with.
async function start(root, signal) {
  const [{ people: some }, { items }] = await Promise.all([get("/v1/console/people?k=8", signal), get("/v1/console/items?k=8", signal)]);
  fill(root, h("div", { class: "grid" },
    card("Some people", some.length ? h("ul", { class: "links" }, some.map((person) => h("li", {}, h("a", { href: address("people", { user: person.user }) }, called(person.user)), h("span", { class: "quiet small" }, `${count(person.events)} ${person.events === 1 ? "event" : "events"}`))))
      : empty("Nobody has a profile yet.", "A profile begins with the first event; tap a film on Live, or import a log and start the server again.", "recsys import LOG.csv")),
    card("Most watched films", items.length ? h("ul", { class: "links" }, items.map((item) => h("li", {}, thumb(item), h("span", { class: "grow" }, filmLink(item), h("div", { class: "quiet small" }, facts(item))))))
      : empty("No film is known yet.", "Import what is known of them.", "recsys import --items ITEMS.csv"))));
}

async function personView(root, user, why, signal) {
  const name = part(user);
  const [person, list] = await Promise.all([get(`/v1/console/person?user=${name}`, signal), get(`/v1/console/list?user=${name}&k=${SHOWN}&explain=true&stages=true`, signal)]);
  const stages = Object.values(list.stages).flat();
  const items = new Map((await known([...list.items, ...stages], signal)).map((item) => [item.item_id, item]));
  const dressed = (some) => some.map((item) => ({ ...items.get(item.item_id), ...item }));
  const answer = h("div", { class: "why-answer", role: "status", "aria-live": "polite" });
  const ask = async (item) => {
    settle("people", { user, why: item });
    await whyNot(answer, user, item, signal);
  };
  const standing = person.events.filter((event) => !event.taken_back && event.event_type !== "undo").length;
  fill(root,
    h("section", { class: "card person-head" },
      h("div", {}, h("h2", {}, called(user)), h("p", { class: "quiet" }, person.known
        ? `${count(standing)} ${standing === 1 ? "event counts" : "events count"}${person.events.length > standing ? `, ${person.events.length - standing} are undone or undo` : ""}; a profile holds the newest ${count(person.most)}.`
        : "Nobody has this name in Redis: an answer for them is what anybody new gets.")),
      h("a", { class: "button", href: address("live", { user }) }, "Open on Live")),
    list.degraded && h("p", { class: "problem" }, "Redis did not answer in time: what stands here is what anybody new gets."),
    h("div", { class: "person-grid" },
      h("div", {}, card("What they did, by session", person.events.length ? sessions(person) : empty("Nothing yet.", "Tap a film for them on Live, or send an event to POST /v1/events.")),
        person.sessions.length > 0 && card("Sessions they signed in from", h("ul", { class: "links" }, person.sessions.map((one) => h("li", {}, h("code", {}, one.session), h("span", { class: "quiet small" }, new Date(one.time).toLocaleString())))))),
      h("div", {}, card(`What they are shown, and why`, shown(dressed(list.items), list)),
        card("Why not another?", h("p", { class: "quiet" }, "Name a film, and the release says at which stage it falls out, or where it stands."),
          picker({ label: "Search a film to ask about", placeholder: "Title or id…", search: films, choose: ask, own: (text) => ({ value: text, title: `“${text}”`, note: "ask about just this id" }) }), answer))),
    byStage(list, dressed));
  if (why) await whyNot(answer, user, why, signal);
}

function shown(items, list) {
  if (!items.length) return empty("Nothing can be recommended.", "Every film of the release was seen, refused or withdrawn.");
  return h("div", {}, h("p", { class: "quiet small" }, `Release ${list.release}, house rules applied. A bar says how much of the score goes without that film. Looking here is not logged as shown.`),
    h("ol", { class: "shown" }, items.map((item) => h("li", { "data-item": item.item_id }, thumb(item), h("div", { class: "grow" },
      h("div", {}, filmLink(item), " ", h("span", { class: "quiet small" }, facts(item))), h("div", { class: "small" }, source(item.source), h("span", { class: "quiet" }, `score ${item.score.toPrecision(3)}`)),
      (item.because ?? []).map((reason) => h("div", { class: "reason small" }, h("span", { class: "reason-bar", style: { "--share": reason.share } }), h("span", {}, `−${percent(reason.share, 0)} without `, filmLink(reason))))))) ));
}

const EXPERTS = [["tower", "Towers alone", "nearest to the vector that the history makes"], ["neighbours", "Neighbours alone", "what people with such sessions went on to"], ["popular", "Popularity alone", "what most people watch"]];

// What each expert alone would give, beside what they give together.
function byStage(list, dressed) {
  const place = new Map(list.items.map((item, at) => [item.item_id, at + 1]));
  const weights = list.weights && { ...list.weights, tower: 1 - list.weights.neighbours - list.weights.popular };
  const nothing = { tower: "The towers have nothing to say: no event of theirs is of a film that the release knows.", neighbours: list.fused ? "No neighbour has a word for anything else." : "This release answers by the towers alone: neighbours.fuse is off.", popular: "Nothing left." };
  const column = (title, about, weight, items, mine) => h("section", { class: "expert", "aria-label": title }, h("h3", {}, title),
    h("p", { class: "quiet small" }, weight === undefined ? about : [h("b", {}, percent(weight, 0)), ` of the word · ${about}`]),
    items.length ? h("ol", {}, items.map((item) => {
      const at = place.get(item.item_id);
      return h("li", { "data-item": item.item_id, tabindex: -1 }, thumb(item), h("span", { class: "grow" }, filmLink(item)),
        mine ? source(item.source) : h("span", { class: `badge ${at ? "accent" : ""}`, title: at ? `at place ${at} of what is shown` : `not among the ${SHOWN} shown` }, at ? `→ ${at}` : "out"));
    })) : h("p", { class: "quiet" }, nothing[mine ? "popular" : title === EXPERTS[0][1] ? "tower" : title === EXPERTS[1][1] ? "neighbours" : "popular"]));
  const stages = h("div", { class: "experts" }, EXPERTS.map(([name, title, about]) => column(title, about, weights?.[name], dressed(list.stages[name]))),
    column("Together: what is shown", `fused${list.fused ? " with these weights" : ""}, house rules applied`, undefined, dressed(list.items), true));
  const light = (event) => { const id = event.target.closest?.("li[data-item]")?.dataset.item; for (const one of stages.querySelectorAll("li[data-item]")) one.classList.toggle("lit", one.dataset.item === id); };
  stages.addEventListener("pointerover", light);
  stages.addEventListener("focusin", light);
  stages.addEventListener("pointerleave", light);
  return card("By stage", h("p", { class: "quiet small" }, `The best ${SHOWN} of each. An arrow says at which place it is shown; point at a film to see it in all of them.`), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "recommendations by stage" }, stages));
}

const GATES = [["known", "the release or the shelf knows it", ["unknown"]], ["on offer", "it was not withdrawn", ["withdrawn"]], ["not seen", "they have not had it", ["seen"]], ["not refused", "they did not dislike or skip it", ["dislike", "skip"]],
  ["no near copy", "it is not nearly the same as something they dislike", ["near copy"]], ["ranked high enough", `it is among the ${SHOWN} best`, ["ranked"]], ["house rules", "they let it through", ["house rules"]]];

async function whyNot(root, user, item, signal) {
  if (user.includes("/")) return void fill(root, h("p", { class: "warn" }, "The API cannot be asked this for a name with a slash in it: the address would be read otherwise (GET /v1/why-not/USER/ITEM)."));
  const [found, [about]] = await Promise.all([get(`/v1/why-not/${part(user)}/${part(item)}?k=${SHOWN}`, signal), known([{ item_id: item }], signal)]);
  const at = found.stage === "recommended" ? GATES.length : GATES.findIndex(([, , stages]) => stages.includes(found.stage));
  fill(root, h("div", { class: "why-film" }, thumb(about), h("div", { class: "grow" }, h("strong", {}, filmLink(about, full(about))), h("div", { class: found.stage === "recommended" ? "good" : "" }, `${found.detail[0].toUpperCase()}${found.detail.slice(1)}.`))),
    h("ol", { class: "gates" }, GATES.map(([name, words], place) => {
      const state = place < at ? "passed" : place === at ? "fell" : "unasked";
      return h("li", { class: state, title: words }, h("span", { "aria-hidden": "true" }, { passed: "✓", fell: "✕", unasked: "·" }[state]), " ", name, h("span", { class: "unseen" }, `: ${{ passed: "yes", fell: "here it falls out", unasked: "not asked" }[state]}`));
    })),
    found.rank && h("p", { class: "quiet small" }, `Place ${found.rank}, score ${found.score.toPrecision(3)}, by `, source(found.source)));
  return undefined;
}
