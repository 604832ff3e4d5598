/** Which operators of a model the chip's NPU computes. */

import { number } from "../format.js";
import { plot, strip } from "../plots/plot.js";

/** @type {[string, string][]} each verdict and its words, what runs on the NPU first */
const SUPPORT = [
  ["npu", "NPU"],
  ["npu-conditional", "NPU, on conditions"],
  ["cpu-or-rewritten", "CPU or rewritten"],
  ["unknown", "not in the vendor's table"],
];

/**
 * @typedef {object} OperatorTable
 * @property {string} platform
 * @property {string | null} headline what does not run on the NPU
 * @property {{op: string, count: number, verdict: string, reason: string}[]} operators
 */

/** @param {OperatorTable} table */
export function operatorSupport({ platform, headline, operators }) {
  const words = new Map(SUPPORT);
  return plot(
    `Operators on the KL${platform}`,
    [strip(SUPPORT.map(([verdict, label]) => ({ label, count: nodes(operators, verdict), kind: verdict })))],
    {
      heads: ["Operator", "Nodes", "Runs on", "Because"],
      rows: operators.map(({ op, count, verdict, reason }) => [
        op,
        number(count),
        words.get(verdict) ?? verdict,
        reason,
      ]),
    },
    headline ?? "By the vendor's public table.",
  );
}

/** How many nodes fall to the CPU. @param {OperatorTable} table */
export function fallbacks({ operators }) {
  return nodes(operators, "cpu-or-rewritten");
}

/** @param {OperatorTable["operators"]} operators @param {string} wanted */
function nodes(operators, wanted) {
  return operators.filter(({ verdict }) => verdict === wanted).reduce((sum, { count }) => sum + count, 0);
}
