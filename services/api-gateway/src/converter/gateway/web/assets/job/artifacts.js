/** What a job made and where it went. */

import { h } from "../dom.js";
import { ago, bytes } from "../format.js";
import { active, stagesOf } from "../types.js";

/** @param {import("../types.js").Job} job */
export function artifacts(job) {
  const made = stagesOf(job).flatMap((stage) => {
    const artifact = job.artifacts[stage];
    return artifact ? [{ stage, artifact }] : [];
  });
  if (!made.length) return h("p", { class: "muted" }, active(job) ? "None yet." : "None.");
  return h(
    "ul",
    { class: "artifacts" },
    ...made.map(({ stage, artifact }) =>
      h(
        "li",
        {},
        h(
          "a",
          { href: download(job, artifact.filename), download: artifact.filename, title: artifact.filename },
          artifact.filename,
        ),
        h("span", { class: "figure" }, bytes(artifact.size_bytes)),
        h(
          "code",
          { class: "digest muted", title: `SHA-256 ${artifact.sha256}` },
          `${stage.toUpperCase()} sha256 ${artifact.sha256}`,
        ),
        artifact.provenance &&
          h(
            "a",
            {
              class: "statement",
              href: download(job, artifact.provenance.filename),
              download: artifact.provenance.filename,
              title: artifact.provenance.filename,
            },
            "Signed statement",
          ),
      ),
    ),
  );
}

/** @param {import("../types.js").Job} job @param {string} filename */
export function download(job, filename) {
  return `/jobs/${encodeURIComponent(job.job_id)}/download/${encodeURIComponent(filename)}`;
}

/** @param {import("../types.js").Job} job */
export function promotions(job) {
  return h(
    "ul",
    { class: "promotions" },
    ...job.promotions.map((promotion) =>
      h(
        "li",
        {},
        h(
          "span",
          { class: `status ${promotion.status === "pending" ? "running" : promotion.status}` },
          promotion.target_object_key,
        ),
        h("span", { class: "muted" }, `${promotion.source.toUpperCase()}, ${promotion.status}, `, ago(promotion.at)),
        promotion.error && h("p", {}, h("code", {}, promotion.error.code), ` ${promotion.error.message}`),
      ),
    ),
  );
}
