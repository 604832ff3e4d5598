/** Everything that is asked of a job but its files. */

import { h } from "../dom.js";
import { Field, select } from "./field.js";
import { Keywords } from "./keywords.js";

const CUSTOM = "custom";

/** @type {Record<string, string>} */
const PRESETS = {
  kneron: "kneron: x / 256 − 0.5",
  tensorflow: "tensorflow: x / 127.5 − 1",
  yolo: "yolo: x / 255",
  pytorch: "pytorch: (x / 255 − mean) / std of ImageNet",
  caffe: "caffe: BGR, minus the mean of ImageNet",
  none: "none: x as it is",
};

/** @type {[string, string][]} */
const TARGETS = [
  ["nef", "NEF: the whole way"],
  ["bie", "BIE: optimise and quantise"],
  ["onnx", "ONNX: check and optimise only"],
];

/** The form's fields; give `element` a place. */
export class JobForm {
  /** @param {any} options what `/options` answers */
  constructor(options) {
    const { platforms, fields, quantization } = options;
    const chips = platforms.map((/** @type {string} */ chip) => /** @type {[string, string]} */ ([chip, `KL${chip}`]));
    const { model_id, version, preprocess, targets } = fields;
    const presets = preprocess.anyOf.flatMap((/** @type {any} */ schema) => schema.enum ?? []);
    this.platform = new Field({
      name: "platform",
      label: "Chip",
      hint: "Decides which options there are.",
      input: select(chips, "720"),
    });
    this.model_id = new Field({
      name: "model_id",
      label: "Model id",
      hint: "Names the model on the chip. Ids up to 32767 are the vendor's.",
      input: h("input", {
        type: "number",
        required: true,
        min: model_id.minimum,
        max: model_id.maximum,
        step: "1",
        value: "40001",
      }),
    });
    this.version = new Field({
      name: "version",
      label: "Version",
      hint: "Four hex digits.",
      input: h("input", {
        required: true,
        pattern: bare(version.pattern),
        value: "0001",
        autocomplete: "off",
        spellcheck: "false",
        maxlength: "4",
      }),
    });
    this.targets = new Field({
      name: "targets",
      label: "Convert to",
      hint: "The artifacts of the stages before it are kept, too.",
      input: select(TARGETS, targets.default),
    });
    this.preprocess = new Field({
      name: "preprocess",
      label: "Pixels become input as",
      hint: "How the reference images are scaled, x in 0..255. It has to be what the model was trained with.",
      input: select(
        [
          ...presets.map((/** @type {string} */ preset) => [preset, PRESETS[preset] ?? preset]),
          [CUSTOM, "mean and scale of your own…"],
        ],
        preprocess.default,
      ),
    });
    this.pixels = new Field({
      name: "pixels",
      label: "Mean and scale",
      hint: "JSON; (x − mean) / scale, one number or one for each channel.",
      input: h("input", { value: '{"mean": [127.5], "scale": 128}', spellcheck: "false", autocomplete: "off" }),
    });
    this.input_shape = new Field({
      name: "input_shape",
      label: "Static input shapes",
      hint: "Only for dynamic inputs, one a line: name:1,3,224,224. A single input needs no name.",
      input: h("textarea", { rows: "1", spellcheck: "false", placeholder: "taken from the model" }),
    });
    this.keywords = new Keywords(quantization);
    this.element = this.laidOut();
    this.platform.input.addEventListener("change", () => this.keywords.offer(this.platform.value));
    this.preprocess.input.addEventListener("change", () => this.offerPixels());
    this.keywords.offer(this.platform.value);
    this.offerPixels();
  }

  /** Asks for mean and scale only where no preset gives them. */
  offerPixels() {
    this.pixels.element.hidden = this.preprocess.value !== CUSTOM;
  }

  /** The fields that are not keywords. */
  get plain() {
    return [this.platform, this.model_id, this.version, this.targets, this.preprocess, this.pixels, this.input_shape];
  }

  laidOut() {
    const part = (/** @type {string} */ name, /** @type {Field[]} */ fields) =>
      h(
        "fieldset",
        { class: "card" },
        h("legend", {}, name),
        h("div", { class: "grid" }, ...fields.map(({ element }) => element)),
      );
    return h(
      "div",
      { class: "job-form" },
      part("Target", [this.platform, this.model_id, this.version, this.targets]),
      part("Input", [this.preprocess, this.pixels, this.input_shape]),
      h(
        "details",
        { class: "card" },
        h(
          "summary",
          {},
          h("h2", {}, "Quantisation"),
          h("span", { class: "muted" }, "bit widths, ranges, accuracy wanted; the toolchain chooses what is left open"),
        ),
        this.keywords.element,
      ),
    );
  }

  /** What is asked for, in the API's names. */
  get value() {
    const shapes = this.input_shape.value
      .split("\n")
      .map((line) => line.trim())
      .filter(Boolean);
    return {
      platform: this.platform.value,
      model_id: this.model_id.value,
      version: this.version.value,
      targets: this.targets.value,
      preprocess: this.preprocess.value === CUSTOM ? this.pixels.value : this.preprocess.value,
      input_shape: shapes,
      quantization: this.keywords.value,
    };
  }

  /** Shows what was asked for before. @param {import("../types.js").Job} job */
  prefill(job) {
    const { preprocess, input_shape, quantization, targets } = job.options;
    this.platform.value = job.platform;
    this.model_id.value = String(job.model_id);
    this.version.value = job.version;
    this.targets.value = targets;
    this.preprocess.value = typeof preprocess === "string" ? preprocess : CUSTOM;
    if (typeof preprocess !== "string") this.pixels.value = JSON.stringify(preprocess);
    this.input_shape.value = Object.entries(input_shape)
      .map(([name, shape]) => (name ? `${name}:` : "") + shape.join(","))
      .join("\n");
    this.offerPixels();
    this.keywords.offer(job.platform);
    this.keywords.value = quantization;
    const details = this.element.querySelector("details");
    if (details) details.open = Object.keys(quantization).length > 0;
  }

  /** @returns {boolean} whether everything can be sent */
  check() {
    return [...this.plain.map((field) => field.check()), this.keywords.check()].every(Boolean);
  }

  /**
   * Shows each problem at the field that it is about.
   * @param {import("../types.js").FieldProblem[]} problems
   * @returns {import("../types.js").FieldProblem[]} those that no field here is about
   */
  complain(problems) {
    /** @type {Map<Field, string[]>} */
    const found = new Map();
    const left = problems.filter(({ field, message }) => {
      const named = this.fieldFor(field, message);
      if (named) found.set(named, [...(found.get(named) ?? []), message]);
      return !named;
    });
    for (const [field, messages] of found) field.complain(messages);
    return left;
  }

  /** @param {string} name @param {string} message a message about a keyword begins with its name */
  fieldFor(name, message) {
    if (name === "quantization") return this.keywords.fields.get(/^\w+/.exec(message)?.[0] ?? "");
    if (name === "preprocess" && this.preprocess.value === CUSTOM) return this.pixels;
    return this.plain.find((field) => field.name === name);
  }
}

/** A pattern without its anchors, as an input wants it. @param {string} pattern */
function bare(pattern) {
  return pattern.replace(/^\^|\$$/g, "");
}
