/** What was asked for, as two columns of words. */

import { h } from "../dom.js";
import { ago, bytes, number } from "../format.js";
import { address } from "../router.js";

/** @param {import("../types.js").Job} job */
export function facts(job) {
  return h(
    "dl",
    { class: "facts" },
    ...pairs([
      ["Chip", `KL${job.platform}`],
      ["Model id", `${job.model_id}, version ${job.version}`],
      ["Model", bytes(job.model.size_bytes)],
      ["Reference images", number(job.ref_images_count)],
      ["User", job.user_id && h("a", { href: address("jobs", "", { user_id: job.user_id }) }, job.user_id)],
      ["Client", h("a", { href: address("jobs", "", { client_id: job.client_id }) }, job.client_id)],
      ["Toolchain", job.toolchain && `${job.toolchain.name} ${job.toolchain.version}`],
      ["Created", ago(job.created_at)],
      [
        "Kept until",
        h(
          "time",
          { datetime: job.expires_at },
          new Date(job.expires_at).toLocaleDateString("en-GB", { dateStyle: "medium" }),
        ),
      ],
      ["Job id", h("code", {}, job.job_id)],
      ["Model sha256", h("code", {}, job.model.sha256)],
    ]),
  );
}

/** @param {import("../types.js").Job} job */
export function chosenOptions(job) {
  const entries = Object.entries(flatOptions(job));
  return h("dl", { class: "facts" }, ...pairs(entries.map(([name, value]) => [name, h("code", {}, value)])));
}

/**
 * Every option of the job by its name, as text; the quantisation keywords each for itself.
 * @param {import("../types.js").Job} job
 * @returns {Record<string, string>}
 */
export function flatOptions({ options }) {
  const shapes = Object.entries(options.input_shape).map(([name, shape]) => (name ? `${name}:` : "") + shape.join(","));
  return {
    targets: options.targets,
    ...(shapes.length ? { input_shape: shapes.join("  ") } : {}),
    preprocess: text(options.preprocess),
    ...Object.fromEntries(Object.entries(options.quantization).map(([name, value]) => [name, text(value)])),
  };
}

/** @param {unknown} value */
function text(value) {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** @param {[string, import("../dom.js").Child][]} entries those without a value are left out */
function pairs(entries) {
  return entries.filter(([, value]) => value).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]);
}
