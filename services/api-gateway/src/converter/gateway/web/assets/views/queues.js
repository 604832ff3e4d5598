/** Who works, what waits, and whether what the service needs is there. */

import { Refused, get, poll, request } from "../api.js";
import { fill, h, update } from "../dom.js";
import { NONE, ago, duration, number } from "../format.js";
import { address } from "../router.js";
import { problem } from "./problem.js";

const LOOK_MS = 2_000;

/** @type {Record<string, string>} */
const NAMES = {
  nats: "Event bus",
  object_storage: "Object storage",
  member_center: "Token issuer",
  file_access_agent: "File store",
  onnx: "ONNX",
  bie: "BIE",
  nef: "NEF",
  promoter: "Promoter",
};

/** @param {import("../main.js").Shown} shown */
export async function queuesView({ host, signal, title }) {
  title("Queues");
  const stages = h("div", { class: "queues" });
  const health = h("div");
  const trouble = h("div");
  const overall = h("div");
  fill(
    host,
    h("div", { class: "heading" }, h("h1", {}, "Queues"), overall),
    trouble,
    stages,
    h(
      "section",
      { class: "card", "aria-labelledby": "health-title" },
      h("h2", { id: "health-title" }, "Dependencies"),
      health,
    ),
  );
  const look = async () => {
    const [stats, report] = await Promise.all([get("/queues/stats", { signal }), healthReport(signal)]);
    fill(trouble);
    update(
      stages,
      Object.entries(stats.stages).map(([name, stage]) => queue(name, stage)),
    );
    update(
      overall,
      h(
        "span",
        { class: `status ${report.status}` },
        report.status,
        h("span", { class: "muted" }, "looked at ", ago(report.checked_at)),
      ),
    );
    update(health, dependencies(report));
  };
  await poll(look, LOOK_MS, signal, (error) => update(trouble, problem(error)));
}

/** The report, which an unhealthy gateway answers with 503. @param {AbortSignal} signal */
async function healthReport(signal) {
  try {
    return await (await request("/health", { signal })).json();
  } catch (error) {
    if (error instanceof Refused && error.body.dependencies) return error.body;
    throw error;
  }
}

/** @param {string} name @param {any} stage */
function queue(name, stage) {
  const figure = (/** @type {string} */ label, /** @type {string} */ value) =>
    h("div", { class: "tile" }, h("dt", {}, label), h("dd", { class: "big figure" }, value));
  return h(
    "section",
    { class: "card", "aria-labelledby": `queue-${name}` },
    h("h2", { id: `queue-${name}` }, NAMES[name] ?? name),
    h(
      "dl",
      { class: "tiles" },
      figure("Waiting", number(stage.pending)),
      figure("In progress", number(stage.in_progress)),
      figure("Redelivered", number(stage.redelivered)),
      figure(
        "Oldest",
        stage.oldest_age_s === null || stage.oldest_age_s === undefined ? NONE : duration(stage.oldest_age_s * 1_000),
      ),
    ),
    stage.workers.length
      ? h("ul", { class: "workers" }, ...stage.workers.map(worker))
      : h("p", { class: "poor" }, "No live worker: jobs wait here until one is started."),
  );
}

/** @param {any} worker */
function worker({ id, state, job_id, since }) {
  return h(
    "li",
    { id: `worker-${id}` },
    h("span", { class: `status ${state === "busy" ? "running" : "idle"}` }, state),
    h("code", { class: "muted id", title: id }, id),
    job_id ? h("a", { href: address("jobs", job_id) }, h("code", {}, job_id)) : null,
    h("span", { class: "muted" }, "since ", ago(since)),
  );
}

/** @param {any} report */
function dependencies(report) {
  return h(
    "ul",
    { class: "workers dependencies" },
    ...Object.entries(report.dependencies).map(([name, { status, latency_ms, error }]) =>
      h(
        "li",
        {},
        h("span", { class: `status ${status === "up" ? "completed" : "failed"}` }, NAMES[name] ?? name),
        h("span", { class: "figure muted" }, status === "up" ? duration(latency_ms) : "down"),
        error && h("span", {}, error),
      ),
    ),
  );
}
