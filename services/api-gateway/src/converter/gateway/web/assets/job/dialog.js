/** Asks before something is done that cannot be taken back, or that needs a word more. */

import { fill, h } from "../dom.js";
import { problem } from "../views/problem.js";

/**
 * @param {object} asked
 * @param {string} asked.title
 * @param {(import("../dom.js").Child)[]} asked.body fields among it are read by `act` itself
 * @param {string} asked.button
 * @param {boolean} [asked.danger]
 * @param {() => Promise<void>} asked.act what the button does; when it fails the dialog stays and says why
 */
export function ask({ title, body, button, danger = false, act }) {
  const trouble = h("div");
  const go = h("button", { type: "submit", class: danger ? "danger" : "primary" }, button);
  const form = h(
    "form",
    { method: "dialog" },
    h("h2", { id: "dialog-title" }, title),
    ...body,
    trouble,
    h("div", { class: "buttons" }, h("button", { type: "button", on: { click: () => dialog.close() } }, "Back"), go),
  );
  form.addEventListener("submit", async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (go.ariaDisabled === "true") return;
    go.ariaDisabled = "true"; // a disabled button would lose the focus
    fill(trouble);
    try {
      await act();
      dialog.close();
    } catch (error) {
      fill(trouble, problem(error));
    }
    go.ariaDisabled = "false";
  });
  const dialog = h("dialog", { "aria-labelledby": "dialog-title", on: { close: () => dialog.remove() } }, form);
  document.body.append(dialog);
  dialog.showModal();
  window.addEventListener("hashchange", () => dialog.close(), { once: true });
}
