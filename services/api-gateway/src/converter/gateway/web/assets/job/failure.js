/** Why a job failed, and what to change. */

import { h } from "../dom.js";

const FAULTS = {
  input: "The model, the images or the options have to change.",
  toolchain: "The toolchain could not do it.",
  service: "The service is at fault, not the model.",
};

/** @param {import("../types.js").Failure} error */
export function failureCard(error) {
  return h(
    "section",
    { class: "notice bad failure", "aria-labelledby": "failure-title" },
    h(
      "h2",
      { id: "failure-title" },
      error.stage ? `Failed in ${error.stage.toUpperCase()}` : "Failed",
      " ",
      h("code", {}, error.code),
    ),
    h("p", { class: "message" }, error.message),
    h("p", {}, h("strong", {}, "What to do: "), error.hint),
    h(
      "dl",
      { class: "facts" },
      ...fact("Node", error.node),
      ...fact("Operator", error.op),
      h("dt", {}, "Cause"),
      h(
        "dd",
        {},
        FAULTS[error.fault] ?? error.fault,
        error.retryable ? " The same job may work when it is tried again." : "",
      ),
    ),
    error.evidence &&
      h(
        "figure",
        {},
        h("figcaption", { class: "muted" }, "Evidence"),
        h("pre", { class: "evidence", tabindex: "0" }, error.evidence),
      ),
  );
}

/** @param {string} name @param {string | null} value */
function fact(name, value) {
  return value ? [h("dt", {}, name), h("dd", {}, h("code", {}, value))] : [];
}
