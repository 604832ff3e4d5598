/** Two jobs side by side: what was asked differently, and what came of it. */

import { get } from "../api.js";
import { fill, h } from "../dom.js";
import { NONE, ago, bytes, decibels, duration, shortened } from "../format.js";
import { flatOptions } from "../job/facts.js";
import { GOOD_SNR_DB, figuresOf } from "../job/figures.js";
import { spent, statusMark } from "../job/status.js";
import { dots, plot } from "../plots/plot.js";
import { address, rewrite } from "../router.js";
import { problem } from "./problem.js";

const LAYERS_DRAWN = 40;
const CHOICES = 50;

/**
 * @typedef {object} Side
 * @property {import("../types.js").Job} job
 * @property {import("../job/figures.js").Figures} figures
 */

/** @param {import("../main.js").Shown} shown */
export async function compareView({ host, place, signal, title }) {
  title("Compare");
  const ids = [place.query.get("a") ?? "", place.query.get("b") ?? ""];
  const { jobs } = await get("/jobs", { query: { limit: String(CHOICES) }, signal });
  const cards = [h("div"), h("div")];
  const below = h("div", { class: "view" }); // spaced as the view itself

  async function show() {
    const wanted = [...ids];
    const current = () => wanted.every((id, at) => id === ids[at]);
    try {
      const sides = await Promise.all(wanted.map((id) => (id ? side(id, signal) : null)));
      if (!current()) return;
      sides.forEach((each, at) => fill(cards[at], each && summary(at, each.job)));
      const [a, b] = sides;
      fill(below, a && b ? comparison(a, b) : h("p", { class: "muted" }, "Choose two jobs."));
    } catch (error) {
      if (current() && !signal.aborted) fill(below, problem(error));
    }
  }

  // The pickers are not made anew by a choice: somebody may be going through a list with the arrow keys.
  const pickers = ids.map((id, at) =>
    picker(at, id, jobs, (chosen) => {
      ids[at] = chosen;
      rewrite(address("compare", "", { a: ids[0], b: ids[1] }));
      void show();
    }),
  );
  fill(
    host,
    h("div", { class: "heading" }, h("h1", {}, "Compare")),
    h(
      "div",
      { class: "sides" },
      pickers.map((select, at) =>
        h("section", { class: `card side-${at}`, "aria-label": at ? "Second" : "First" }, select, cards[at]),
      ),
    ),
    below,
  );
  await show();
}

/** @param {string} id @param {AbortSignal} signal @returns {Promise<Side>} */
async function side(id, signal) {
  const path = `/jobs/${encodeURIComponent(id)}`;
  const [job, report] = await Promise.all([get(path, { signal }), get(`${path}/report`, { signal })]);
  return { job, figures: figuresOf(report, job) };
}

/**
 * @param {number} at which side
 * @param {string} id of the job that is chosen at first
 * @param {import("../types.js").Job[]} jobs
 * @param {(id: string) => void} choose
 */
function picker(at, id, jobs, choose) {
  const option = (/** @type {string} */ value, /** @type {string} */ text) =>
    h("option", { value, selected: value === id }, text);
  const select = h(
    "select",
    { "aria-label": at ? "Second job" : "First job" },
    option("", "Choose a job…"),
    id && !jobs.some(({ job_id }) => job_id === id) && option(id, id), // older than those that are listed
    ...jobs.map((job) =>
      option(
        job.job_id,
        `${shortened(job.model.filename, 40)}, KL${job.platform}, ${new Date(job.created_at).toLocaleString("en-GB", { dateStyle: "short", timeStyle: "medium" })}`,
      ),
    ),
  );
  select.addEventListener("change", () => choose(select.value));
  return select;
}

/** @param {number} at which side @param {import("../types.js").Job} job */
function summary(at, job) {
  return [
    h(
      "p",
      {},
      h("span", { class: `swatch series-${at}`, "aria-hidden": "true" }),
      h("a", { href: address("jobs", job.job_id) }, job.model.filename),
    ),
    h("p", {}, statusMark(job), " ", h("span", { class: "muted" }, ago(job.created_at))),
  ];
}

/** @param {Side} a @param {Side} b */
function comparison(a, b) {
  return [
    h(
      "section",
      { class: "card", "aria-labelledby": "results-title" },
      h("h2", { id: "results-title" }, "Results"),
      sideBySide("Results", results(a), results(b), false),
    ),
    h(
      "section",
      { class: "card", "aria-labelledby": "differing-title" },
      h("h2", { id: "differing-title" }, "Options that differ"),
      sideBySide("Options that differ", asked(a), asked(b), true),
    ),
    h(
      "section",
      { class: "card", "aria-labelledby": "layers-title" },
      h("h2", { id: "layers-title" }, "Accuracy"),
      layers(a, b),
    ),
  ];
}

/** @param {Side} side @returns {Record<string, string>} */
function results({ job, figures }) {
  const size = (/** @type {string} */ label) => bytes(figures.sizes.find((each) => each.label === label)?.size_bytes);
  return {
    "Accuracy, worst output": decibels(figures.snr_db),
    Verdict: figures.verdict ?? NONE,
    "Same top class": figures.agreement === null ? NONE : `${(100 * figures.agreement).toFixed(1)} %`,
    "Latency, median": duration(figures.latency_ms?.p50),
    "Frames per second": figures.fps?.toFixed(1) ?? NONE,
    "Size as sent": size("Model as sent"),
    "Size of ONNX": size("ONNX"),
    "Size of BIE": size("BIE"),
    "Size of NEF": size("NEF"),
    "Time spent": spent(job),
  };
}

/** @param {Side} side @returns {Record<string, string>} */
function asked({ job }) {
  return {
    model: shortened(job.model.filename, 40),
    model_sha256: `${job.model.sha256.slice(0, 12)}…`,
    platform: job.platform,
    model_id: String(job.model_id),
    version: job.version,
    ref_images: String(job.ref_images_count),
    toolchain: job.toolchain ? `${job.toolchain.name} ${job.toolchain.version}` : NONE,
    ...flatOptions(job),
  };
}

/**
 * @param {string} caption
 * @param {Record<string, string>} a
 * @param {Record<string, string>} b
 * @param {boolean} onlyDiffering
 */
function sideBySide(caption, a, b, onlyDiffering) {
  const names = [...new Set([...Object.keys(a), ...Object.keys(b)])];
  const rows = names
    .map((name) => ({ name, first: a[name] ?? NONE, second: b[name] ?? NONE }))
    .filter(({ first, second }) => (onlyDiffering ? first !== second : first !== NONE || second !== NONE));
  if (!rows.length) return h("p", { class: "muted" }, "None.");
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      { class: "sideways" },
      h("caption", { class: "unseen" }, caption),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("td"),
          h("th", { scope: "col", class: "figure" }, "First"),
          h("th", { scope: "col", class: "figure" }, "Second"),
        ),
      ),
      h(
        "tbody",
        {},
        ...rows.map(({ name, first, second }) =>
          h(
            "tr",
            { class: first === second ? "" : "differs" },
            h("th", { scope: "row" }, name),
            h("td", { class: "figure" }, first),
            h("td", { class: "figure" }, second),
          ),
        ),
      ),
    ),
  );
}

/** @param {Side} a @param {Side} b */
function layers(a, b) {
  const names = [...new Set([...a.figures.layers, ...b.figures.layers].map(({ name }) => name))];
  if (!names.length) return h("p", { class: "muted" }, "Neither report has figures by layer.");
  const [first, second] = [a, b].map(
    ({ figures }) => new Map(figures.layers.map(({ name, snr_db }) => [name, snr_db])),
  );
  const rows = names
    .map((name) => ({ name, values: [first.get(name) ?? null, second.get(name) ?? null] }))
    .sort((one, other) => worst(one.values) - worst(other.values));
  const shown = (/** @type {(number | null)[]} */ values) =>
    values.map((value) => value?.toFixed(1) ?? NONE).join(" / ");
  return plot(
    "SNR by layer",
    [
      dots(
        rows.slice(0, LAYERS_DRAWN).map(({ name, values }) => ({ label: name, values, shown: shown(values) })),
        { guide: GOOD_SNR_DB },
      ),
    ],
    {
      heads: ["Layer", "First", "Second"],
      rows: rows.map(({ name, values: [one, other] }) => [name, decibels(one), decibels(other)]),
    },
    `In dB, the worst first, first job / second job. The line marks ${GOOD_SNR_DB} dB.`,
  );
}

/** @param {(number | null)[]} values */
function worst(values) {
  return Math.min(...values.map((value) => value ?? Infinity));
}
