/** Files to send: dropped, or picked with the keyboard. */

import { fill, h } from "../dom.js";
import { bytes, counted, shortened } from "../format.js";

/** A place to drop files on; give `element` a place. */
export class FileField {
  /**
   * @param {object} spec
   * @param {string} spec.name as the API calls it
   * @param {string} spec.label
   * @param {string} spec.hint
   * @param {string} spec.accept kinds of files that the picker offers
   * @param {boolean} spec.multiple
   * @param {number} spec.most_bytes of each file
   * @param {number} [spec.most_count]
   */
  constructor({ name, label, hint, accept, multiple, most_bytes, most_count = 1 }) {
    const id = `field-${name}`;
    this.name = name;
    this.multiple = multiple;
    this.most_bytes = most_bytes;
    this.most_count = most_count;
    /** @type {File[]} */
    this.files = [];
    this.trouble = h("p", { class: "trouble", id: `${id}-trouble` });
    this.list = h("div", { class: "chosen-files" });
    this.input = h("input", {
      type: "file",
      id,
      class: "unseen",
      accept,
      multiple,
      "aria-describedby": `${id}-hint ${id}-trouble`,
    });
    this.input.addEventListener("change", () => this.take([...this.input.files]));
    this.zone = h(
      "label",
      { class: "drop", for: id },
      h("strong", {}, label),
      h("span", { class: "hint", id: `${id}-hint` }, hint),
      this.list,
    );
    this.element = h("div", { class: "field file" }, this.input, this.zone, this.trouble);
    this.acceptDrops();
    this.draw();
  }

  acceptDrops() {
    const over = (/** @type {boolean} */ yes) => this.zone.classList.toggle("over", yes);
    this.zone.addEventListener("dragover", (/** @type {DragEvent} */ event) => (event.preventDefault(), over(true)));
    this.zone.addEventListener("dragleave", () => over(false));
    this.zone.addEventListener("drop", (/** @type {DragEvent} */ event) => {
      event.preventDefault();
      over(false);
      this.take([...(event.dataTransfer?.files ?? [])]);
    });
  }

  /** @param {File[]} files none: the picker was left without a choice, and what was chosen stays */
  take(files) {
    if (!files.length) return;
    this.files = this.multiple ? files : files.slice(0, 1);
    this.draw();
    this.check();
  }

  draw() {
    const size_bytes = this.files.reduce((sum, { size }) => sum + size, 0);
    const named = this.files.length === 1 ? shortened(this.files[0].name, 48) : counted(this.files.length, "file");
    fill(
      this.list,
      this.files.length
        ? `${named}, ${bytes(size_bytes)}`
        : h(
            "span",
            { class: "muted" },
            this.multiple ? "Drop files here or choose them" : "Drop a file here or choose it",
          ),
    );
    this.zone.classList.toggle("taken", this.files.length > 0);
  }

  /** @param {string[]} messages */
  complain(messages) {
    fill(this.trouble, messages.join(" "));
    if (messages.length) this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
  }

  /** @param {boolean} [required] @returns {boolean} whether the files can be sent */
  check(required = false) {
    const large = this.files.filter(({ size }) => size > this.most_bytes);
    const problems = [
      required && !this.files.length && "Choose a file.",
      this.files.length > this.most_count && `${counted(this.files.length, "file")}; at most ${this.most_count}.`,
      large.length > 0 &&
        `${large
          .map(({ name }) => shortened(name, 32))
          .slice(0, 3)
          .join(", ")}: larger than ${bytes(this.most_bytes)}.`,
    ].filter((problem) => typeof problem === "string");
    this.complain(problems);
    return !problems.length;
  }
}
