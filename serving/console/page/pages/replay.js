// Replay.

import { empty, fill, h } from "../lib/dom.js";

export async function mount(root) {
  fill(root, h("h1", {}, "Replay"), empty("Nothing here yet."));
}
