/** The quantisation keywords, as far as the chosen chip allows them. */

import { fill, h } from "../dom.js";
import { Field } from "./field.js";

/**
 * @typedef {{allowed?: (string | number)[], minimum?: number, maximum?: number, by_node?: boolean}} Allowed
 * @typedef {Record<string, Record<string, Allowed>>} Tables by platform, by keyword
 */

const BITS = "Bit width of";

/** @type {[title: string, keywords: [name: string, explanation: string][]][]} */
const GROUPS = [
  [
    "Accuracy wanted",
    [
      ["min_snr_db", "The job fails when its worst output stays below this signal-to-noise ratio, in dB. 20 is good."],
      ["ladder", "auto tries int8, then a mix, then int16, and takes the first that reaches min_snr_db."],
    ],
  ],
  [
    "Bit widths",
    [
      ["datapath_bitwidth_mode", `${BITS} activations. Wider is more accurate and slower.`],
      ["weight_bitwidth_mode", `${BITS} weights.`],
      ["model_in_bitwidth_mode", `${BITS} the model's inputs. Ignored with mixbw.`],
      ["model_out_bitwidth_mode", `${BITS} the model's outputs. Ignored with mixbw.`],
      ["cpu_node_bitwidth_mode", `${BITS} nodes that run on the CPU. Ignored with mixbw.`],
      ["flops_ratio", "With mixbw: the part of the operations that may be wide. 0.2 by default."],
      ["quan_config", "Bit widths by node, as JSON."],
    ],
  ],
  [
    "Ranges",
    [
      ["quantize_mode", "post_sigmoid for models whose outputs go through a sigmoid."],
      ["datapath_range_method", "How the range of activations is found in the reference images."],
      ["percentage", "The part of values that the range covers; 1.0 is advised for detection. 0.999 by default."],
      ["percentage_16b", "The same where 16 bits are used. 0.999999 by default."],
      ["percentile", "With mmse: where its search begins. 0.001 by default."],
      ["outlier_factor", "With mmse: how far outliers are cut. 1.0 by default."],
    ],
  ],
  [
    "Effort",
    [
      ["mode", "1 quantises; 2 also verifies on one image; 3 verifies every layer on all, which is very slow."],
      ["optimize", "0 none; 1 and 2 adjust biases in parallel; 3 and 4 in sequence, which is slow."],
      ["compiler_tiling", "deep_search looks longer for a faster program."],
    ],
  ],
];

/** All keywords; give `element` a place. */
export class Keywords {
  /** @param {Tables} tables */
  constructor(tables) {
    this.tables = tables;
    const every = [...new Set(Object.values(tables).flatMap((table) => Object.keys(table)))];
    const grouped = new Set(GROUPS.flatMap(([, keywords]) => keywords.map(([name]) => name)));
    const rest = every.filter((name) => !grouped.has(name)).map((name) => /** @type {[string, string]} */ ([name, ""]));
    /** @type {Map<string, Field>} */
    this.fields = new Map();
    this.element = h("div", { class: "keywords" });
    for (const [title, keywords] of [...GROUPS, /** @type {const} */ (["More", rest])]) {
      const known = keywords.filter(([name]) => every.includes(name));
      if (!known.length) continue;
      const fields = known.map(([name, explanation]) => this.field(name, explanation));
      this.element.append(
        h("fieldset", {}, h("legend", {}, title), h("div", { class: "grid" }, ...fields.map(({ element }) => element))),
      );
    }
  }

  /** @param {string} name @param {string} explanation */
  field(name, explanation) {
    const offered = Object.values(this.tables).find((table) => table[name])?.[name] ?? {};
    const { minimum, maximum } = offered;
    const input = offered.allowed
      ? h("select")
      : offered.by_node
        ? h("input", { type: "text", placeholder: '{"Conv_0": …}', spellcheck: "false" })
        : h("input", {
            type: "number",
            min: minimum,
            max: maximum,
            step: "any",
            placeholder: `${minimum} to ${maximum}`,
          });
    const field = new Field({ name, label: name, hint: explanation, input });
    field.hint.dataset.explanation = explanation;
    this.fields.set(name, field);
    return field;
  }

  /** Offers what the chip allows, and says what it does not. @param {string} platform */
  offer(platform) {
    const all = (/** @type {string} */ name) => [
      ...new Set(Object.values(this.tables).flatMap((table) => table[name]?.allowed ?? [])),
    ];
    for (const [name, field] of this.fields) {
      const offered = this.tables[platform]?.[name];
      field.input.disabled = !offered;
      const missing = offered?.allowed ? all(name).filter((choice) => !offered.allowed?.includes(choice)) : [];
      const note = offered
        ? missing.length
          ? ` Not on the KL${platform}: ${missing.join(", ")}.`
          : ""
        : ` Not on the KL${platform}.`;
      field.explain((field.hint.dataset.explanation ?? "") + note);
      if (offered?.allowed) this.offerChoices(field, offered.allowed);
      if (!offered) field.value = "";
    }
  }

  /** @param {Field} field @param {(string | number)[]} allowed */
  offerChoices(field, allowed) {
    const chosen = field.value;
    fill(
      field.input,
      h("option", { value: "" }, "toolchain's choice"),
      allowed.map((choice) => h("option", { value: JSON.stringify(choice) }, choice)),
    );
    field.value = allowed.some((choice) => JSON.stringify(choice) === chosen) ? chosen : "";
  }

  /** @returns {Record<string, unknown>} the keywords that are set */
  get value() {
    const set = [...this.fields.values()].filter((field) => field.value !== "");
    return Object.fromEntries(set.map((field) => [field.name, JSON.parse(field.value)]));
  }

  /** @param {Record<string, unknown>} keywords */
  set value(keywords) {
    for (const [name, value] of Object.entries(keywords)) {
      const field = this.fields.get(name);
      if (field) field.value = JSON.stringify(value);
    }
  }

  /** @returns {boolean} whether every keyword can be read */
  check() {
    return [...this.fields.values()].map((field) => field.check() && this.readable(field)).every(Boolean);
  }

  /** @param {Field} field */
  readable(field) {
    try {
      if (field.value !== "") JSON.parse(field.value);
      return true;
    } catch {
      field.complain(["This is no JSON."]);
      return false;
    }
  }
}
