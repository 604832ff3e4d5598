/** The figures of a report (`converter.contracts.report`). What it does not say is null or empty here. */

import { decibels } from "../format.js";
import { STAGES } from "../types.js";

/**
 * @typedef {{name: string, op: string, snr_db: number | null, exact: boolean, cosine: number | null}} Layer
 * @typedef {{step: string, snr_db: number | null, size_bytes: number | null, failed: string | null}} Rung
 *
 * @typedef {object} Figures
 * @property {string | null} verdict good, fair or poor
 * @property {number | null} snr_db the lowest of any output
 * @property {number | null} agreement part of the samples on which the largest score is the same, 0..1
 * @property {(Layer & {collapsed: number})[]} outputs `collapsed` counts channels that vary in the float model alone
 * @property {Layer[]} layers the worst first
 * @property {{p50: number, p95: number} | null} latency_ms
 * @property {number | null} fps of the NPU's part alone
 * @property {import("./operators.js").OperatorTable | null} operators
 * @property {{chosen: string, curve: Rung[], why: string} | null} ladder
 * @property {number | null} min_snr_db what was asked for
 * @property {{label: string, size_bytes: number}[]} sizes of the model and of each stage's artifact
 * @property {Record<string, any> | null} calibration
 * @property {string | null} notice
 */

/** What the vendor calls accurate enough. */
export const GOOD_SNR_DB = 20;

/** @param {import("../types.js").Report} report @param {import("../types.js").Job} job @returns {Figures} */
export function figuresOf(report, job) {
  const { onnx, bie, nef } = report.stages;
  const accuracy = bie?.accuracy;
  const minimum = job.options.quantization.min_snr_db;
  return {
    verdict: bie?.verdict ?? null,
    snr_db: accuracy?.snr_db ?? null,
    agreement: accuracy?.top1_agreement?.simulated ?? null,
    outputs: (accuracy?.outputs ?? []).map(output),
    layers: layersOf(bie),
    latency_ms: nef?.timings?.latency_ms ?? null,
    fps: bie?.speed?.fps ?? null,
    operators: onnx?.operators?.operators.length ? onnx.operators : null,
    ladder: bie?.ladder?.curve?.length > 1 ? bie.ladder : null,
    min_snr_db: typeof minimum === "number" ? minimum : null,
    sizes: [
      { label: "Model as sent", size_bytes: job.model.size_bytes },
      ...STAGES.flatMap((stage) => {
        const artifact = job.artifacts[stage];
        return artifact ? [{ label: stage.toUpperCase(), size_bytes: artifact.size_bytes }] : [];
      }),
    ],
    calibration: bie?.calibration ?? null,
    notice: nef?.notice ?? bie?.notice ?? onnx?.notice ?? null,
  };
}

/** @param {any} found @returns {Layer & {collapsed: number}} */
function output(found) {
  const { snr_db, cosine, exact } = found.simulated;
  const collapsed = found.collapsed ? found.channels : found.collapsed_channels_count;
  return { name: found.name, op: "", snr_db, cosine, exact, collapsed };
}

/** @param {any} bie @returns {Layer[]} */
function layersOf(bie) {
  const measured = (bie?.accuracy?.layers ?? []).map((/** @type {any} */ layer) => ({
    name: layer.node || layer.tensor,
    op: layer.op,
    snr_db: layer.snr_db,
    exact: layer.exact,
    cosine: layer.cosine,
  }));
  const vendors = Object.entries(bie?.layers_snr_db ?? {}).map(([name, snr_db]) => ({
    name,
    op: "",
    snr_db: /** @type {number} */ (snr_db),
    exact: false,
    cosine: null,
  }));
  return [...measured, ...vendors].sort((a, b) => (a.snr_db ?? Infinity) - (b.snr_db ?? Infinity));
}

/** @param {{snr_db: number | null, exact: boolean}} figures */
export function snr({ snr_db, exact }) {
  return exact ? "exact" : decibels(snr_db);
}
