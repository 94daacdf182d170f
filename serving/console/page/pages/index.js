// Index & drift.

import { empty, fill, h } from "../lib/dom.js";

export async function mount(root) {
  fill(root, h("h1", {}, "Index & drift"), empty("Nothing here yet."));
}
