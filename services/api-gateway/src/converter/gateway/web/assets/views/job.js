/** One job: what it does now, what came of it, and what can be done with it. */

import { get, poll } from "../api.js";
import { fill, h, say, update } from "../dom.js";
import { actions } from "../job/actions.js";
import { artifacts, promotions } from "../job/artifacts.js";
import { chosenOptions, facts } from "../job/facts.js";
import { failureCard } from "../job/failure.js";
import { LogPanel } from "../job/log.js";
import { pipeline } from "../job/pipeline.js";
import { report } from "../job/report.js";
import { statusMark } from "../job/status.js";
import { address } from "../router.js";
import { follow } from "../stream.js";
import { STAGES, active } from "../types.js";
import { problem } from "./problem.js";

const LOOK_MS = 3_000;

/** @param {import("../main.js").Shown} shown */
export async function jobView({ host, place, signal, title }) {
  const path = `/jobs/${encodeURIComponent(place.id)}`;
  /** @type {import("../types.js").Job} */
  let job = await get(path, { signal });
  /** @type {import("../types.js").StageProgress | null} */
  let progress = null;
  let gone = false;
  title(job.model.filename);
  const page = new JobPage(host, `${path}/logs`);

  const show = () => page.show(job, progress, () => void refresh().catch(quietly));
  const showReport = async () => {
    if (!STAGES.some((stage) => job.artifacts[stage])) return;
    const found = await get(`${path}/report`, { signal });
    update(page.report, report(found, job));
  };
  /** @param {import("../types.js").Job} told */
  const take = (told) => {
    const before = job;
    job = told;
    show();
    if (before.v1_status !== job.v1_status) say(`The job is ${job.v1_status}.`);
    if (JSON.stringify(before.artifacts) !== JSON.stringify(job.artifacts)) showReport().catch(quietly);
  };
  const refresh = async () => {
    take(await get(path, { signal }));
    fill(page.trouble);
  };
  /** @param {unknown} error */
  const quietly = (error) => {
    if (!signal.aborted) update(page.trouble, problem(error)); // what is known of the job stays to be seen
  };

  show();
  showReport().catch(quietly);
  poll(async () => (job.v1_status === "queued" ? refresh() : undefined), LOOK_MS, signal, quietly);
  const heard = (/** @type {string} */ kind, /** @type {any} */ data) => {
    if (kind === "status" && data.updated_at >= job.updated_at) take(withPlace(data, job)); // the stream begins with the past
    if (kind === "log") page.log.add(data);
    if (kind === "progress") {
      progress = data;
      job = { ...job, progress: data.progress };
      show();
    }
    if (kind === "deleted") gone = true;
    return gone || kind === "end"; // the end of a followed log; asked for again, it would tell every line again
  };
  // The events of an active job tell everything from the first on; of one that is over only the log is followed.
  const over = !active(job);
  if (over) await follow(`${path}/logs?follow=true`, heard, signal, { opened: () => page.log.clear() });
  else {
    await follow(`${path}/events`, heard, signal);
    if (gone) throw new Error("This job was deleted.");
    await refresh();
  }
}

/**
 * The job of an event, which does not tell its place in the queue: the known one stays while it waits for the same stage.
 * @param {import("../types.js").Job} told
 * @param {import("../types.js").Job} known
 */
function withPlace(told, known) {
  if (told.v1_status !== known.v1_status || told.stage !== known.stage) return told;
  return { ...told, queue_position: known.queue_position, estimated_wait_s: known.estimated_wait_s };
}

/** The view's parts. */
class JobPage {
  /** @param {HTMLElement} host @param {string} whole_log */
  constructor(host, whole_log) {
    const card = (/** @type {string} */ id, /** @type {string} */ name, /** @type {HTMLElement} */ content) =>
      h("section", { class: "card", "aria-labelledby": id }, h("h2", { id }, name), content);
    this.heading = h("div");
    this.status = h("div");
    this.actions = h("div");
    this.trouble = h("div");
    this.stages = h("div", { class: "stages" });
    this.failure = h("div");
    this.warnings = h("div");
    this.report = h("div", { class: "report" });
    this.artifacts = h("div");
    this.promotions = h("div");
    this.options = h("div");
    this.facts = h("div");
    this.log = new LogPanel(whole_log);
    this.promoted = card("promotions-title", "Promotions", this.promotions);
    fill(
      host,
      h("div", { class: "heading job-heading" }, this.heading, this.status, this.actions),
      this.trouble,
      this.stages,
      this.failure,
      this.warnings,
      h(
        "div",
        { class: "columns" },
        h("div", { class: "wide" }, this.report, this.log.element),
        h(
          "div",
          { class: "side" },
          card("artifacts-title", "Artifacts", this.artifacts),
          this.promoted,
          card("options-title", "Options", this.options),
          card("facts-title", "About", this.facts),
        ),
      ),
    );
  }

  /**
   * @param {import("../types.js").Job} job
   * @param {import("../types.js").StageProgress | null} progress
   * @param {() => void} changed
   */
  show(job, progress, changed) {
    update(
      this.heading,
      h("p", { class: "trail" }, h("a", { href: address("jobs") }, "Jobs"), " / ", h("code", {}, job.job_id)),
      h("h1", {}, job.model.filename),
    );
    update(this.status, statusMark(job));
    update(this.actions, actions(job, changed));
    update(this.stages, pipeline(job, progress));
    update(this.failure, job.error && failureCard(job.error));
    update(this.warnings, warnings(job.warnings));
    update(this.artifacts, artifacts(job));
    this.promoted.hidden = !job.promotions.length;
    update(this.promotions, promotions(job));
    update(this.options, chosenOptions(job));
    update(this.facts, facts(job));
  }
}

/** @param {string[]} found */
function warnings(found) {
  if (!found.length) return null;
  return h(
    "section",
    { class: "notice warn", "aria-labelledby": "warnings-title" },
    h("h2", { id: "warnings-title" }, found.length === 1 ? "Warning" : `${found.length} warnings`),
    h("ul", {}, ...found.map((warning) => h("li", {}, warning))),
  );
}
