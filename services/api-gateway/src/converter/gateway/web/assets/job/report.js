/** What the conversion did to the model, in figures. */

import { h } from "../dom.js";
import { NONE, bytes, counted, decibels, duration, number } from "../format.js";
import { bars, curve, dots, plot, table } from "../plots/plot.js";
import { download } from "./artifacts.js";
import { GOOD_SNR_DB, figuresOf, snr } from "./figures.js";
import { fallbacks, operatorSupport } from "./operators.js";

const LAYERS_DRAWN = 12;

/** @param {import("../types.js").Report} found @param {import("../types.js").Job} job */
export function report(found, job) {
  const figures = figuresOf(found, job);
  return h(
    "section",
    { class: "card", "aria-labelledby": "report-title" },
    h(
      "div",
      { class: "card-head" },
      h("h2", { id: "report-title" }, "Report"),
      h("a", { href: `/jobs/${job.job_id}/report`, target: "_blank", rel: "noopener" }, "As a document"),
      ...job.files
        .filter(({ kind }) => kind === "report")
        .map(({ stage, filename }) => h("a", { href: download(job, filename), download: filename }, `${stage}.json`)),
    ),
    figures.notice && h("p", { class: "muted" }, figures.notice),
    tiles(figures),
    h(
      "div",
      { class: "plots" },
      layers(figures),
      sizes(figures),
      figures.operators && operatorSupport(figures.operators),
      ladder(figures),
      latency(figures),
      outputs(figures),
    ),
    calibration(figures),
  );
}

/** @param {import("./figures.js").Figures} figures */
function tiles({ verdict, snr_db, agreement, sizes, latency_ms, fps, operators, calibration }) {
  const madeUp = calibration?.origin === "synthetic"; // figures on such data are no reason to be glad
  const onCpu = operators ? fallbacks(operators) : 0;
  const last = sizes[sizes.length - 1];
  const tile = (/** @type {string} */ name, /** @type {string} */ value, /** @type {string} */ note, kind = "") =>
    h(
      "div",
      { class: `tile ${kind}` },
      h("dt", {}, name),
      h("dd", {}, h("span", { class: "big figure" }, value), h("span", { class: "muted" }, note)),
    );
  return h(
    "dl",
    { class: "tiles" },
    verdict &&
      tile(
        "Accuracy",
        decibels(snr_db),
        madeUp ? "on made-up data" : `${verdict}, worst output`,
        madeUp ? "fair" : verdict,
      ),
    agreement !== null && tile("Same top class", `${(100 * agreement).toFixed(1)} %`, "of the samples compared"),
    sizes.length > 1 &&
      tile(
        "Size",
        bytes(last.size_bytes),
        `${Math.round((100 * last.size_bytes) / sizes[0].size_bytes)} % of the model`,
      ),
    fps !== null && tile("Frames per second", fps.toFixed(1), "the NPU's part alone"),
    latency_ms && tile("Latency", duration(latency_ms.p50), "median, on this CPU"),
    operators &&
      tile(
        "CPU fallbacks",
        number(onCpu),
        onCpu ? "nodes, unless rewritten" : "every operator may be on the NPU",
        onCpu ? "fair" : "",
      ),
  );
}

/** @param {import("./figures.js").Figures} figures */
function layers({ layers }) {
  if (!layers.length) return null;
  const rows = layers.slice(0, LAYERS_DRAWN);
  const left = layers.length - rows.length;
  return plot(
    "SNR by layer",
    [
      dots(
        rows.map((layer) => ({
          label: layer.name,
          title: layer.op ? `${layer.name} (${layer.op})` : layer.name,
          values: [layer.snr_db],
          shown: snr(layer),
        })),
        { guide: GOOD_SNR_DB },
      ),
    ],
    {
      heads: ["Layer", "Operator", "SNR", "Cosine"],
      rows: layers.map((layer) => [layer.name, layer.op, snr(layer), layer.cosine?.toFixed(6) ?? NONE]),
    },
    `The worst first${left > 0 ? `, ${counted(left, "more layer")} in the table` : ""}. The line marks ${GOOD_SNR_DB} dB.`,
  );
}

/** @param {import("./figures.js").Figures} figures */
function sizes({ sizes }) {
  if (sizes.length < 2) return null;
  return plot(
    "Size by stage",
    [bars(sizes.map(({ label, size_bytes }) => ({ label, value: size_bytes, shown: bytes(size_bytes) })))],
    { heads: ["File", "Bytes"], rows: sizes.map(({ label, size_bytes }) => [label, number(size_bytes)]) },
  );
}

/** @param {import("./figures.js").Figures} figures */
function ladder({ ladder, min_snr_db }) {
  if (!ladder) return null;
  const measured = ladder.curve.flatMap(({ step, snr_db, size_bytes }) =>
    snr_db === null || size_bytes === null
      ? []
      : [
          {
            x: size_bytes,
            y: snr_db,
            name: step,
            shown: `${decibels(snr_db)}, ${bytes(size_bytes)}`,
            chosen: step === ladder.chosen,
          },
        ],
  );
  return plot(
    "Accuracy ladder",
    [curve(measured, { guide: min_snr_db })],
    {
      heads: ["Step", "SNR", "Size"],
      rows: ladder.curve.map(({ step, snr_db, size_bytes, failed }) => [
        step,
        failed ?? decibels(snr_db),
        bytes(size_bytes),
      ]),
    },
    `Chosen: ${ladder.chosen}, ${ladder.why}. Accuracy upwards, size to the right.`,
  );
}

/** @param {import("./figures.js").Figures} figures */
function latency({ latency_ms }) {
  if (!latency_ms) return null;
  const rows = [
    { label: "Median", value: latency_ms.p50, shown: duration(latency_ms.p50) },
    { label: "95th percentile", value: latency_ms.p95, shown: duration(latency_ms.p95) },
  ];
  return plot(
    "Latency on this CPU",
    [bars(rows)],
    null,
    "Of one inference with the packaged model; the chip's own is another.",
  );
}

/** @param {import("./figures.js").Figures} figures */
function outputs({ outputs }) {
  if (!outputs.length) return null;
  return plot("Outputs", [
    table(
      "Accuracy by output",
      ["Output", "SNR", "Cosine", "Collapsed"],
      outputs.map((output) => [
        output.name,
        snr(output),
        output.cosine?.toFixed(6) ?? NONE,
        output.collapsed ? h("strong", {}, number(output.collapsed)) : "none",
      ]),
    ),
  ]);
}

/** @param {import("./figures.js").Figures} figures */
function calibration({ calibration }) {
  if (!calibration) return null;
  const skipped = calibration.skipped ?? [];
  const synthetic = calibration.origin === "synthetic";
  return h(
    "div",
    {},
    h("h3", {}, "Calibration"),
    h(
      "p",
      { class: synthetic ? "poor" : "" },
      synthetic
        ? "Made-up data: no reference images were sent, so the figures above say little."
        : `${counted(calibration.used ?? 0, "image")} used, ${number(calibration.held_out ?? 0)} held out to measure the accuracy, ${number(skipped.length)} skipped.`,
    ),
    skipped.length > 0 &&
      h(
        "details",
        {},
        h("summary", {}, "Skipped"),
        h(
          "ul",
          {},
          ...skipped.map((/** @type {any} */ each) => h("li", {}, h("code", {}, each.name), `: ${each.reason}`)),
        ),
      ),
  );
}
