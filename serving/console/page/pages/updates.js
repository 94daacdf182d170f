// Updates.

import { empty, fill, h } from "../lib/dom.js";

export async function mount(root) {
  fill(root, h("h1", {}, "Updates"), empty("Nothing here yet."));
}
