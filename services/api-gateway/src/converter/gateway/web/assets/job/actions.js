/** What can be done with a job now. */

import { send } from "../api.js";
import { h, say } from "../dom.js";
import { address, go } from "../router.js";
import { active, stagesOf } from "../types.js";
import { ask } from "./dialog.js";

/**
 * @param {import("../types.js").Job} job
 * @param {() => void} changed called when an action may have changed the job
 */
export function actions(job, changed) {
  const link = (/** @type {string} */ text, /** @type {string} */ href) => h("a", { class: "button", href }, text);
  const button = (/** @type {string} */ text, /** @type {() => void} */ click, kind = "") =>
    h("button", { type: "button", class: kind, on: { click } }, text);
  const promotable = job.v1_status === "completed";
  return h(
    "div",
    { class: "buttons" },
    promotable && button("Promote…", () => promote(job, changed), "primary"),
    link(active(job) ? "Copy with changes…" : "Retry with changes…", address("new", "", { retry: job.job_id })),
    link("Compare…", address("compare", "", { a: job.job_id })),
    active(job)
      ? button("Cancel…", () => cancel(job, changed), "danger")
      : button("Delete…", () => remove(job), "danger"),
  );
}

/** @param {import("../types.js").Job} job @param {() => void} changed */
function cancel(job, changed) {
  ask({
    title: "Cancel this job?",
    body: [h("p", {}, "What runs now is stopped. The record, its logs and finished artifacts stay.")],
    button: "Cancel the job",
    danger: true,
    act: async () => {
      await send("POST", `/jobs/${job.job_id}/cancel`);
      say("The job is being cancelled.");
      changed();
    },
  });
}

/** @param {import("../types.js").Job} job */
function remove(job) {
  ask({
    title: "Delete this job?",
    body: [
      h("p", {}, "Its artifacts, reports, logs and record are removed. What was promoted stays in the file store."),
    ],
    button: "Delete for good",
    danger: true,
    act: async () => {
      await send("DELETE", `/jobs/${job.job_id}`);
      say("The job was deleted.");
      go(address("jobs"));
    },
  });
}

/** @typedef {import("../types.js").Stage} Stage */

/** @param {import("../types.js").Job} job @param {() => void} changed */
function promote(job, changed) {
  const made = stagesOf(job).filter((stage) => job.artifacts[stage]);
  const last = made[made.length - 1];
  const source = h(
    "select",
    { id: "promote-source" },
    ...made.map((stage) =>
      h(
        "option",
        { value: stage, selected: stage === last },
        `${stage.toUpperCase()}: ${job.artifacts[stage]?.filename}`,
      ),
    ),
  );
  const suggested = () =>
    `models/${job.user_id || "operator"}/${job.artifacts[/** @type {Stage} */ (source.value)]?.filename ?? ""}`;
  const key = h("input", {
    id: "promote-key",
    required: true,
    maxlength: "1024",
    autocomplete: "off",
    spellcheck: "false",
    value: suggested(),
  });
  let offered = key.value;
  source.addEventListener("change", () => {
    if (key.value === offered) key.value = suggested(); // one that was typed stays
    offered = suggested();
  });
  ask({
    title: "Promote to the file store",
    body: [
      h("div", { class: "field" }, h("label", { for: "promote-source" }, "Artifact"), source),
      h(
        "div",
        { class: "field" },
        h("label", { for: "promote-key" }, "Key in the file store"),
        key,
        h("p", { class: "hint" }, "A relative path, as in models/alice/yolo.nef. What stands there is replaced."),
      ),
    ],
    button: "Promote",
    act: async () => {
      await send("POST", `/jobs/${job.job_id}/promote`, { source: source.value, target_object_key: key.value });
      say("The artifact was promoted.");
      changed();
    },
  });
}
