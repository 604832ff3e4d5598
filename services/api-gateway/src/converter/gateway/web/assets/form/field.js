/** One input with its label, what it means, and what is wrong with it. */

import { fill, h } from "../dom.js";

/**
 * @typedef {object} FieldSpec
 * @property {string} name as the API calls it
 * @property {string} label
 * @property {string} [hint] what it means
 * @property {HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement} input
 */

/** A labelled input; give `element` a place. */
export class Field {
  /** @param {FieldSpec} spec */
  constructor({ name, label, hint = "", input }) {
    const id = `field-${name}`;
    this.name = name;
    this.input = input;
    this.hint = h("p", { class: "hint", id: `${id}-hint` }, hint);
    this.trouble = h("p", { class: "trouble", id: `${id}-trouble` });
    input.id = id;
    input.setAttribute("aria-describedby", `${id}-hint ${id}-trouble`);
    input.addEventListener("input", () => this.complain([]));
    this.element = h("div", { class: "field" }, h("label", { for: id }, label), input, this.hint, this.trouble);
  }

  get value() {
    return this.input.value.trim();
  }

  set value(text) {
    this.input.value = text;
  }

  /** @param {string} hint */
  explain(hint) {
    fill(this.hint, hint);
  }

  /** @param {string[]} messages none: nothing is wrong any more */
  complain(messages) {
    fill(this.trouble, messages.join(" "));
    if (messages.length) this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
  }

  /** What the browser finds wrong with it; shown, and answered. @returns {boolean} whether it is fine */
  check() {
    const fine = this.input.checkValidity();
    this.complain(fine ? [] : [this.input.validationMessage]);
    return fine;
  }
}

/**
 * @param {[value: string, text: string][]} choices
 * @param {string} [chosen]
 * @returns {HTMLSelectElement}
 */
export function select(choices, chosen = "") {
  return h("select", {}, ...choices.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
}
