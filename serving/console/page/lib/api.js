// Asking the API: the key, errors in plain words, and questions that are asked again while somebody looks.

const KEY = "recsys.key";

// Where the API is: a folder above the page, wherever a proxy has put the two.
export const ROOT = new URL("..", document.baseURI).href.replace(/\/$/, "");

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status; // 0 where no answer came
  }
}

export const keep = (key) => sessionStorage.setItem(KEY, key);

// Where every answer is told: {method, path, ms, status}.
export const asked = new EventTarget();

async function ask(method, path, body, signal) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (/[^ -~]/.test(key ?? "")) throw new Problem(401, "the API key holds a letter that no key has; copy the whole key anew");
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const began = performance.now();
  let answer;
  try {
    answer = await fetch(ROOT + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "the API does not answer");
  }
  const text = await answer.text();
  const ms = performance.now() - began;
  asked.dispatchEvent(new CustomEvent("asked", { detail: { method, path, ms, status: answer.status } }));
  let told = text;
  try { told = JSON.parse(text); } catch { /* metrics are plain text */ }
  if (!answer.ok) throw new Problem(answer.status, told?.detail ?? `the API answered ${answer.status}`);
  return told;
}

export const get = (path, signal) => ask("GET", path, undefined, signal);
export const post = (path, body = {}, signal) => ask("POST", path, body, signal);
export const put = (path, body, signal) => ask("PUT", path, body, signal);
export const del = (path, signal) => ask("DELETE", path, undefined, signal);

// The part of an address that names something: every letter of an id is a letter.
export const part = (id) => encodeURIComponent(id);

// Do something at once and then every so many ms, while the page is looked at and until the signal ends it. What goes wrong goes to `failed`.
export async function poll(ms, signal, work, failed = () => {}) {
  while (!signal.aborted) {
    if (!document.hidden) {
      try { await work(); } catch (error) { if (!signal.aborted) failed(error); }
    }
    await pause(ms, signal);
  }
}

export const pause = (ms, signal) => new Promise((resolve) => {
  const done = () => { clearTimeout(timer); signal?.removeEventListener("abort", done); resolve(); }; // a page is open for days
  const timer = setTimeout(done, ms);
  signal?.addEventListener("abort", done);
});
