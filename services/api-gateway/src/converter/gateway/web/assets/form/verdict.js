/** What a dry run says: whether the model would be taken, what it is, and what would not run on the NPU. */

import { h } from "../dom.js";
import { bytes, counted, number } from "../format.js";
import { operatorSupport } from "../job/operators.js";

/** @param {any} verdict */
export function verdictCard({ valid, problems, warnings, model, operators, ref_images_count }) {
  return h(
    "section",
    { class: "card verdict", "aria-labelledby": "verdict-title" },
    h(
      "h2",
      { id: "verdict-title" },
      h(
        "span",
        { class: `status ${valid ? "completed" : "failed"}` },
        valid ? "This would be taken" : "This would fail",
      ),
    ),
    ...problems.map(problem),
    warnings.length > 0 &&
      h("ul", { class: "warned" }, ...warnings.map((/** @type {string} */ warning) => h("li", {}, warning))),
    model && summary(model, ref_images_count),
    operators?.operators.length > 0 && operatorSupport(operators),
  );
}

/** @param {any} problem */
function problem({ code, message, hint, node, op }) {
  return h(
    "div",
    { class: "notice bad" },
    h("p", {}, h("strong", {}, message)),
    h("p", {}, hint),
    h(
      "p",
      { class: "muted" },
      h("code", {}, code),
      node && [", node ", h("code", {}, node)],
      op && [", operator ", h("code", {}, op)],
    ),
  );
}

/** @param {any} model @param {number} images */
function summary(model, images) {
  const tensors = (/** @type {any[]} */ values) =>
    values.map(({ name, shape }) =>
      h(
        "code",
        { class: "line" },
        `${name} ${shape ? `[${shape.map((/** @type {unknown} */ size) => size ?? "?").join(", ")}]` : "of unknown shape"}`,
      ),
    );
  return h(
    "dl",
    { class: "facts" },
    ...[
      ["Model", `${bytes(model.size_bytes)}, opset ${model.opset}, IR ${model.ir_version}`],
      ["Graph", `${counted(model.nodes, "node")}, ${number(model.parameters)} parameters`],
      ["Inputs", tensors(model.inputs)],
      ["Outputs", tensors(model.outputs)],
      [
        "Reference images",
        images ? number(images) : h("strong", {}, "none: made-up data would calibrate it, less accurately"),
      ],
    ].flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
  );
}
