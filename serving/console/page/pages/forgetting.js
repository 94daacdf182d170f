// Forgetting.

import { empty, fill, h } from "../lib/dom.js";

export async function mount(root) {
  fill(root, h("h1", {}, "Forgetting"), empty("Nothing here yet."));
}
