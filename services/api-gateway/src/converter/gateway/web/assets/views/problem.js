/** What went wrong, in the place of what was asked for. */

import { Refused } from "../api.js";
import { h } from "../dom.js";

/** @param {unknown} error */
export function problem(error) {
  const refused = error instanceof Refused ? error : null;
  const message = error instanceof Error ? error.message : String(error);
  return h(
    "div",
    { class: "notice bad", role: "alert" },
    h("p", {}, h("strong", {}, message)),
    refused?.hint && h("p", {}, refused.hint),
    ...(refused?.fields ?? []).map(({ field, message }) => h("p", {}, h("code", {}, field), `: ${message}`)),
    refused && h("p", { class: "muted" }, h("code", {}, refused.code)),
  );
}
