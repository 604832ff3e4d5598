/** The stages of a job side by side: which is done, which runs and how far it is. */

import { h, svg } from "../dom.js";
import { duration } from "../format.js";
import { PURPOSES, stagesOf } from "../types.js";

/**
 * @typedef {"done" | "running" | "waiting" | "failed" | "cancelled" | "ahead"} StageState
 * @typedef {import("../types.js").Job} Job
 * @typedef {import("../types.js").Stage} Stage
 */

/** @type {Record<StageState, string>} */
const WORDS = {
  done: "Done",
  running: "Running",
  waiting: "Waiting for a worker",
  failed: "Failed",
  cancelled: "Cancelled",
  ahead: "Not started",
};

/** What is drawn into the circle of a stage that is over. @type {Partial<Record<StageState, string>>} */
const MARKS = { done: "M7.5 12.5l3 3 6-6.5", failed: "M8.5 8.5l7 7m0-7l-7 7", cancelled: "M8 12h8" };

/**
 * @param {Job} job
 * @param {import("../types.js").StageProgress | null} progress what was told last of the stage that runs
 */
export function pipeline(job, progress) {
  return h("ol", { class: "pipeline" }, ...stagesOf(job).map((stage) => stageOf(job, stage, progress)));
}

/** @param {Job} job @param {Stage} stage @param {import("../types.js").StageProgress | null} progress */
function stageOf(job, stage, progress) {
  const state = stateOf(job, stage);
  const timing = job.stage_timings[stage];
  const told = state === "running" && progress?.stage === stage ? progress : null;
  return h(
    "li",
    { class: `stage ${state}` },
    svg(
      "svg",
      { class: "knob", viewBox: "0 0 24 24", "aria-hidden": "true" },
      svg("circle", { cx: 12, cy: 12, r: 10 }),
      MARKS[state] && svg("path", { d: MARKS[state] }),
    ),
    h("h3", {}, stage.toUpperCase(), h("span", { class: "muted" }, PURPOSES[stage])),
    h(
      "p",
      { class: "stage-state" },
      h("span", {}, told?.activity || (state === "running" && job.activity) || waited(job, state) || WORDS[state]),
      timing?.cached &&
        h("span", { class: "tag", title: "An earlier job with the same input made this artifact." }, "cached"),
      timing?.duration_ms !== null &&
        timing?.duration_ms !== undefined &&
        h("span", { class: "figure" }, duration(timing.duration_ms)),
    ),
    state === "running" &&
      h("progress", { max: "1", value: String(told?.fraction ?? 0), "aria-label": `${stage.toUpperCase()} progress` }),
  );
}

/** @param {Job} job @param {StageState} state */
function waited(job, state) {
  if (state !== "waiting" || !job.queue_position) return null;
  const wait = job.estimated_wait_s === null ? "" : `, about ${duration(job.estimated_wait_s * 1_000)} to wait`;
  return `Place ${job.queue_position} in the queue${wait}`;
}

/** @param {Job} job @param {Stage} stage @returns {StageState} */
function stateOf(job, stage) {
  if (job.artifacts[stage]) return "done";
  if (job.stage !== stage) return "ahead";
  switch (job.v1_status) {
    case "running":
      return "running";
    case "queued":
      return "waiting";
    case "failed":
      return "failed";
    case "cancelled":
      return "cancelled";
    default:
      return "ahead";
  }
}
