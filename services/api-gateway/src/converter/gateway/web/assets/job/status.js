/** A job's state in a word, a colour and, where there is one, a place. */

import { h } from "../dom.js";
import { duration } from "../format.js";
import { STAGES } from "../types.js";

/** @type {Record<import("../types.js").Status, string>} */
const WORDS = {
  queued: "Queued",
  running: "Running",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
};

/** @param {import("../types.js").Job} job */
export function statusMark(job) {
  const status = job.v1_status;
  return h("span", { class: `status ${status}` }, h("span", { class: "words" }, WORDS[status], detail(job)));
}

/** @param {import("../types.js").Job} job */
function detail(job) {
  const stage = job.stage?.toUpperCase();
  const text = {
    queued: job.queue_position ? `${stage}, place ${job.queue_position}` : stage,
    running: `${stage}, ${Math.round(job.progress * 100)} %`,
    failed: job.error?.code,
    completed: null,
    cancelled: null,
  }[job.v1_status];
  return text && h("span", { class: "muted" }, ` ${text}`);
}

/**
 * How long the job's stages ran, waiting left out.
 * @param {import("../types.js").Job} job
 */
export function spent(job) {
  const ran = STAGES.map((stage) => job.stage_timings[stage]?.duration_ms).filter((ms) => typeof ms === "number");
  return ran.length ? duration(ran.reduce((sum, ms) => sum + ms, 0)) : duration(null);
}
