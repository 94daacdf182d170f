// A wall of films in an order that changes: what rose, fell, came and went is seen to move, and says so.

import { fill, h } from "./dom.js";
import { address } from "../app.js";
import { facts, filmLink, source } from "./films.js";
import { bare, full, poster } from "./poster.js";

const STILL = matchMedia("(prefers-reduced-motion: reduce)");

// What changed between two orders of ids: places gained (a Map, negative for lost), and who came and went.
export function changes(before, after) {
  const was = new Map(before.map((id, place) => [id, place]));
  const here = new Set(after);
  const moved = new Map();
  for (const [place, id] of after.entries()) if (was.has(id) && was.get(id) !== place) moved.set(id, was.get(id) - place);
  return { moved, came: after.filter((id) => !was.has(id)), went: before.filter((id) => !here.has(id)) };
}

// tap: (item, kind) => void, or null where nobody can; name: what the wall is called.
export function wall({ name, tap }) {
  const list = h("ol", { class: "wall", "aria-label": name });
  const ghosts = h("div", { class: "ghosts", "aria-hidden": "true" });
  const root = h("div", { class: "wall-frame" }, list, ghosts);
  const cards = new Map(); // item id -> card
  let order = [];

  function show(items) {
    const ids = items.map((item) => item.item_id);
    const changed = order.length ? changes(order, ids) : { moved: new Map(), came: [], went: [] };
    const went = changed.went.map((id) => cards.get(id).item);
    const held = holder();
    motion(() => {
      for (const id of changed.went) { cards.get(id).root.remove(); cards.delete(id); }
      for (const [place, item] of items.entries()) {
        if (!cards.has(item.item_id)) cards.set(item.item_id, card(item, tap));
        const one = cards.get(item.item_id);
        one.tell(item, place + 1, changed.came.includes(item.item_id) ? "new" : changed.moved.get(item.item_id) ?? 0);
        if (list.children[place] !== one.root) list.insertBefore(one.root, list.children[place] ?? null);
      }
    });
    order = ids;
    if (held && !list.contains(document.activeElement)) (held.element.isConnected ? held.element : list.children[Math.min(held.place, ids.length - 1)]?.querySelector(held.same))?.focus({ preventScroll: true });
    return { ...changed, went };
  }

  // Where the keyboard is on the wall. A card that moves loses it, and one that goes leaves it to the same button of whoever stands there then.
  function holder() {
    const element = document.activeElement, film = element.closest?.("li.film");
    if (!list.contains(film)) return null;
    return { element, place: [...list.children].indexOf(film), same: element.dataset.tap ? `[data-tap="${element.dataset.tap}"]` : "button" };
  }

  // First, last, invert, play: where each card was is where it starts from.
  function motion(change) {
    if (STILL.matches || !order.length) return change();
    const before = new Map([...list.children].map((child) => [child, child.getBoundingClientRect()]));
    const frame = root.getBoundingClientRect();
    change();
    for (const child of list.children) {
      const was = before.get(child), now = child.getBoundingClientRect();
      if (!was) child.animate([{ opacity: 0, transform: "scale(.8)" }, { opacity: 1, transform: "none" }], { duration: 420, easing: "ease-out" });
      else if (was.left !== now.left || was.top !== now.top) {
        child.style.zIndex = was.top > now.top || (was.top === now.top && was.left > now.left) ? 2 : 1; // who rises passes before who falls
        child.animate([{ transform: `translate(${was.left - now.left}px, ${was.top - now.top}px)` }, { transform: "none" }], { duration: 620, easing: "cubic-bezier(.25,.8,.25,1)" })
          .finished.then(() => { child.style.zIndex = ""; }, () => {});
      }
    }
    for (const [child, was] of before) {
      if (child.isConnected) continue;
      const ghost = h("div", { class: "ghost film", style: { left: `${was.left - frame.left}px`, top: `${was.top - frame.top}px`, width: `${was.width}px` } }, child.firstElementChild.cloneNode(true));
      ghosts.append(ghost);
      ghost.animate([{ opacity: 0.9, transform: "none" }, { opacity: 0, transform: "scale(.7)" }], { duration: 420, easing: "ease-in" }).finished.finally(() => ghost.remove()).catch(() => {});
    }
    return undefined;
  }

  return {
    root, show,
    ids: () => order,
    item: (id) => cards.get(id)?.item,
    both: (ids) => { for (const [id, one] of cards) one.both(ids.has(id)); },
    over: (id) => { for (const [other, one] of cards) one.root.classList.toggle("twin", other === id); },
    onover: (told) => {
      const id = (event) => event.target.closest?.("li.film")?.dataset.item ?? null;
      list.addEventListener("pointerover", (event) => told(id(event)));
      list.addEventListener("pointerleave", () => told(null));
      list.addEventListener("focusin", (event) => told(id(event)));
    },
  };
}

function card(first, tap) {
  const rank = h("span", { class: "rank" });
  const move = h("span", { class: "move", hidden: true });
  const common = h("span", { class: "common", hidden: true, title: "on both walls" }, "both");
  const about = h("a", { class: "film-facts small", href: address("people", { item: first.item_id }), title: `What is known of ${full(first)}` }, facts(first) || first.item_id);
  const why = h("div", { class: "film-why small" });
  const one = { item: first };
  const button = (kind, props, ...children) => h("button", { ...props, "data-tap": kind, onclick: (event) => { if (event.detail < 2) tap(one.item, kind); } }, children); // the second of two quick clicks would hit another
  const play = button("play", { class: "poster", "aria-label": `Play ${full(first)}`, title: `Play ${full(first)}` },
    poster(first), h("span", { class: "play", "aria-hidden": "true" }, "▶"));
  one.root = h("li", { class: "film", "data-item": first.item_id },
    h("div", { class: "poster-frame" }, play, h("div", { class: "marks" }, rank, move, common)), about,
    h("div", { class: "film-taps" },
      button("like", { class: "tap", title: `Like ${full(first)}` }, h("span", { "aria-hidden": "true" }, "♥"), " Like", h("span", { class: "unseen" }, ` ${bare(first)}`)),
      button("dislike", { class: "tap", title: `${full(first)} is not for me` }, h("span", { "aria-hidden": "true" }, "✕"), " Not for me", h("span", { class: "unseen" }, `: ${bare(first)}`))),
    why);
  one.tell = (item, place, moved) => {
    one.item = item;
    rank.textContent = place;
    rank.title = `place ${place}`;
    move.hidden = !moved;
    move.className = `move ${moved === "new" ? "came" : moved > 0 ? "rose" : "fell"}`;
    move.textContent = moved === "new" ? "new" : moved > 0 ? `▲ ${moved}` : `▼ ${-moved}`;
    move.title = moved === "new" ? "was not on the wall before" : moved > 0 ? `rose by ${moved}` : `fell by ${-moved}`;
    fill(why, source(item.source), reasons(item));
  };
  one.both = (is) => { common.hidden = !is; };
  return one;
}

function reasons(item) {
  const because = item.because ?? [];
  if (!because.length) return null;
  const parts = because.flatMap((reason, place) => [place ? " and " : "", filmLink(reason)]);
  return h("span", { class: "because", title: because.map((reason) => `${full(reason)}: without it the score would be ${Math.round(100 * reason.share)}% lower`).join("\n") }, "because you watched ", parts);
}

// What happened to a wall, in a sentence.
export function told(changed, names = true) {
  const rose = [...changed.moved.values()].filter((by) => by > 0).length, fell = changed.moved.size - rose;
  if (!changed.moved.size && !changed.came.length && !changed.went.length) return "The order stayed as it was.";
  const parts = [rose && `${rose} rose`, fell && `${fell} fell`, changed.came.length && `${changed.came.length} came`, changed.went.length && `${changed.went.length} went`].filter(Boolean);
  const gone = !names ? "" : changed.went.slice(0, 3).map((item) => bare(item)).join(", ");
  return `${parts.join(", ")}.${gone ? ` Gone: ${gone}${changed.went.length > 3 ? ` and ${changed.went.length - 3} more` : ""}.` : ""}`;
}

