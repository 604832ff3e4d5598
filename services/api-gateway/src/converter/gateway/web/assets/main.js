/** Shows the view that the address names, and again whenever the address changes. */

import { fill, h } from "./dom.js";
import { retell } from "./format.js";
import { here } from "./router.js";
import { compareView } from "./views/compare.js";
import { jobView } from "./views/job.js";
import { jobsView } from "./views/jobs.js";
import { newView } from "./views/new.js";
import { problem } from "./views/problem.js";
import { queuesView } from "./views/queues.js";

/**
 * @typedef {object} Shown what a view is given
 * @property {HTMLElement} host takes the view
 * @property {import("./router.js").Place} place
 * @property {AbortSignal} signal aborted when the view is left
 * @property {(title: string) => void} title names the view in the browser
 */

const RETELL_MS = 5_000;

/** @type {Record<string, (shown: Shown) => void | Promise<void>>} */
const VIEWS = { jobs: jobsView, new: newView, compare: compareView, queues: queuesView };

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
let left = new AbortController();

function show() {
  left.abort();
  left = new AbortController();
  const { signal } = left;
  const place = here();
  const host = h("div", { class: "view" });
  fill(main, host);
  for (const link of document.querySelectorAll("header [data-view]")) {
    const current = link.getAttribute("data-view") === place.name;
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  /** @param {string} title */
  const title = (title) => (document.title = `${title} · Model converter`);
  /** @param {unknown} error */
  const failed = (error) => {
    if (!signal.aborted) fill(host, problem(error));
  };
  const view = place.name === "jobs" && place.id ? jobView : VIEWS[place.name];
  if (!view) return failed(new Error("There is no such page."));
  void Promise.resolve(view({ host, place, signal, title })).catch(failed);
}

let first = true;
function moved() {
  show();
  // Who came by keyboard goes on from the new view; on the first load the browser decides.
  if (!first) {
    main.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
  first = false;
}

document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault(); // the address belongs to the router
  main.focus();
});
for (const kind of ["dragover", "drop"]) {
  // A file that misses its field would be opened in place of the page, and take a filled form with it.
  window.addEventListener(kind, (event) => event.preventDefault());
}
window.addEventListener("hashchange", moved);
setInterval(retell, RETELL_MS);
moved();
