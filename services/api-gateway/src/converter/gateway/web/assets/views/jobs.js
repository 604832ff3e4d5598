/** The list of jobs: filters and pages live in the address, rows follow what happens. */

import { get, poll } from "../api.js";
import { fill, h, say, update } from "../dom.js";
import { NONE, ago, counted, shortened } from "../format.js";
import { spent, statusMark } from "../job/status.js";
import { address, go, rewrite } from "../router.js";
import { active } from "../types.js";
import { problem } from "./problem.js";

const PAGE_SIZE = 50;
const LOOK_MS = 2_500;
const TYPED_MS = 250;
const STATUSES = ["queued", "running", "completed", "failed", "cancelled"];
const CHIPS = ["520", "530", "630", "720", "730"];
const FILTERS = ["q", "status", "platform", "client_id", "user_id"];
const COMPARED = 2;

/** @param {import("../main.js").Shown} shown */
export async function jobsView({ host, place, signal, title }) {
  title("Jobs");
  const rows = new Rows();
  const state = h("p", { class: "muted", role: "status" });
  const trouble = h("div");
  const pages = h("nav", { class: "pages", "aria-label": "Pages" });
  const filters = h("form", { class: "filters", role: "search" }, ...filterFields(place.query));
  filters.addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());
  let query = filled(filters);
  let cursor = place.query.get("cursor") ?? "";

  const look = async () => {
    const asked = JSON.stringify([query, cursor]);
    const page = await get("/jobs", { query: { ...query, limit: String(PAGE_SIZE), cursor }, signal });
    if (asked !== JSON.stringify([query, cursor])) return; // the filters have changed meanwhile
    fill(trouble);
    rows.show(page.jobs);
    list.hidden = !page.jobs.length;
    update(state, told(page.jobs.length, Boolean(page.next_cursor || cursor), Object.values(query).some(Boolean)));
    update(pages, pageLinks(query, cursor, page.next_cursor));
  };
  /** @param {unknown} error */
  const failed = (error) => update(trouble, problem(error));

  let typed = 0;
  filters.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(() => {
      if (signal.aborted) return; // the address is another view's
      query = filled(filters);
      cursor = "";
      rewrite(address("jobs", "", query));
      look().catch((error) => signal.aborted || failed(error));
    }, TYPED_MS);
  });
  const list = h(
    "div",
    { class: "scroll", role: "region", "aria-label": "Jobs", tabindex: "0", hidden: true },
    rows.table,
  );
  fill(host, h("div", { class: "heading" }, h("h1", {}, "Jobs"), state), filters, trouble, rows.bar, list, pages);
  await poll(look, LOOK_MS, signal, failed);
}

/** @param {URLSearchParams} given */
function filterFields(given) {
  /** @param {string} name @param {string} label @param {string[]} choices @param {(choice: string) => string} word */
  const choice = (name, label, choices, word) =>
    h(
      "label",
      {},
      label,
      h(
        "select",
        { name },
        h("option", { value: "" }, "Any"),
        ...choices.map((value) => h("option", { value, selected: given.get(name) === value }, word(value))),
      ),
    );
  /** @param {string} name @param {string} label @param {string} hint */
  const text = (name, label, hint) =>
    h("label", {}, label, h("input", { name, type: "search", placeholder: hint, value: given.get(name) ?? "" }));
  return [
    text("q", "Search", "file name or job id"),
    choice("status", "Status", STATUSES, (status) => status[0].toUpperCase() + status.slice(1)),
    choice("platform", "Chip", CHIPS, (chip) => `KL${chip}`),
    text("client_id", "Client", "any"),
    text("user_id", "User", "any"),
  ];
}

/**
 * @param {HTMLFormElement} form
 * @returns {Record<string, string>}
 */
function filled(form) {
  const data = new FormData(form);
  return Object.fromEntries(FILTERS.map((name) => [name, String(data.get(name) ?? "").trim()]));
}

/** @param {number} count @param {boolean} paged @param {boolean} filtered */
function told(count, paged, filtered) {
  if (count) return paged ? `${counted(count, "job")} on this page` : counted(count, "job");
  return filtered ? "No job matches these filters." : "No jobs yet.";
}

/** @param {Record<string, string>} query @param {string} cursor @param {string | null} next */
function pageLinks(query, cursor, next) {
  return [
    cursor && h("a", { class: "button", href: address("jobs", "", query) }, "Newest"),
    cursor && h("button", { class: "button", type: "button", on: { click: () => history.back() } }, "Back"),
    next && h("a", { class: "button", href: address("jobs", "", { ...query, cursor: next }) }, "Older"),
  ];
}

/**
 * The jobs chosen for comparison, file names by ids. They outlive the view: the second may be on another page.
 * @type {Map<string, string>}
 */
const chosen = new Map();

/** The rows of a page. */
class Rows {
  constructor() {
    this.body = h("tbody");
    this.table = h(
      "table",
      { class: "jobs" },
      h("caption", { class: "unseen" }, "Jobs, newest first"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col" }, h("span", { class: "unseen" }, "Compare")),
          ...["Status", "Model", "Chip", "User"].map((head) => h("th", { scope: "col" }, head)),
          ...["Time spent", "Created"].map((head) => h("th", { scope: "col", class: "figure" }, head)),
        ),
      ),
      this.body,
    );
    this.bar = h("div", { class: "chosen", role: "group", "aria-label": "Chosen jobs", hidden: true });
    this.tell();
  }

  /** @param {import("../types.js").Job[]} jobs */
  show(jobs) {
    update(
      this.body,
      jobs.map((job) => this.row(job)),
    );
  }

  /** @param {import("../types.js").Job} job */
  row(job) {
    const name = job.model.filename;
    const choose = h("input", {
      type: "checkbox",
      "aria-label": `Compare ${name}`,
      on: { change: () => this.choose(job, choose) },
    });
    choose.checked = chosen.has(job.job_id);
    return h(
      "tr",
      { id: `row-${job.job_id}` },
      h("td", { class: "choice" }, choose),
      h("td", { class: "state" }, statusMark(job)),
      h(
        "td",
        { class: "model" },
        h("a", { href: address("jobs", job.job_id), title: name }, shortened(name, 44)),
        h("code", { class: "muted id" }, job.job_id),
      ),
      h("td", { class: "chip" }, `KL${job.platform}`),
      h(
        "td",
        { class: "who" },
        job.user_id ?? job.client_id,
        job.user_id && h("span", { class: "muted" }, job.client_id),
      ),
      h("td", { class: "figure spent" }, active(job) ? NONE : spent(job)),
      h("td", { class: "figure created" }, ago(job.created_at)),
    );
  }

  /** @param {import("../types.js").Job} job @param {HTMLInputElement} box */
  choose(job, box) {
    if (!box.checked) chosen.delete(job.job_id);
    else if (chosen.size < COMPARED) chosen.set(job.job_id, job.model.filename);
    else {
      box.checked = false;
      this.tell("Two are compared at a time: let one go first.");
      return;
    }
    this.tell();
  }

  clear() {
    chosen.clear();
    for (const box of this.body.querySelectorAll("input")) box.checked = false;
    this.tell();
    this.table.parentElement?.focus();
  }

  /** @param {string} [trouble] why the last choice was not taken */
  tell(trouble = "") {
    const [a, b] = chosen.keys();
    this.bar.hidden = !chosen.size;
    const button = (/** @type {string} */ text, /** @type {() => void} */ click, kind = "") =>
      h("button", { type: "button", class: kind, on: { click } }, text);
    fill(
      this.bar,
      h("span", {}, `${[...chosen.values()].map((name) => shortened(name, 32)).join(" and ")} chosen`),
      (trouble || !b) && h("span", { class: "muted" }, trouble || "choose one more to compare"),
      h(
        "span",
        { class: "buttons" },
        button("Clear", () => this.clear()),
        b && button("Compare", () => go(address("compare", "", { a, b })), "primary"),
      ),
    );
    if (trouble) say(trouble);
  }
}
