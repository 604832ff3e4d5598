/**
 * Plots that keep their text at its size: places along x are percentages, text is HTML beside the drawing. Every figure
 * that is drawn is also written, and `plot` puts a table of all of them below.
 */

import { h, svg } from "../dom.js";

const ROW_PX = 22;
const DOT_PX = { alone: 4.5, inRing: 3 };

/**
 * A figure with a heading and its figures as a table.
 * @param {string} title
 * @param {import("../dom.js").Child[]} drawing
 * @param {{heads: string[], rows: import("../dom.js").Child[][]} | null} [figures] the columns after the first hold figures
 * @param {string} [note]
 */
export function plot(title, drawing, figures = null, note = "") {
  return h(
    "figure",
    { class: "plot", id: `plot-${title.toLowerCase().replaceAll(/\W+/g, "-")}` },
    h("figcaption", {}, h("h3", {}, title), note && h("p", { class: "muted" }, note)),
    ...drawing,
    figures && h("details", {}, h("summary", {}, "As a table"), table(title, figures.heads, figures.rows)),
  );
}

/**
 * @param {string} caption read to those who do not see the heading
 * @param {string[]} heads
 * @param {import("../dom.js").Child[][]} rows
 */
export function table(caption, heads, rows) {
  const kind = (/** @type {number} */ column) => (column ? "figure" : "");
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, ...heads.map((head, at) => h("th", { scope: "col", class: kind(at) }, head)))),
      h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((cell, at) => h("td", { class: kind(at) }, cell))))),
    ),
  );
}

/**
 * A bar for each row, all from zero.
 * @param {{label: string, value: number, shown: string, series?: number}[]} rows
 */
export function bars(rows) {
  const most = Math.max(...rows.map(({ value }) => value), Number.MIN_VALUE);
  return rowsOf(
    rows.map(({ label, value, shown, series = 0 }) => ({
      label,
      shown,
      marks: [
        svg("rect", { class: `series-${series}`, y: 5, height: ROW_PX - 10, rx: 2, width: percent(value / most) }),
      ],
    })),
  );
}

/**
 * A dot for each value of a row, on one scale. Two series make a dumb-bell of a dot and a ring, so that each is seen
 * where both are the same.
 * @param {{label: string, values: (number | null)[], shown: string, title?: string}[]} rows
 * @param {{guide: number}} options `guide` is a value worth a line of its own
 */
export function dots(rows, { guide }) {
  const values = rows.flatMap((row) => row.values.filter((value) => value !== null));
  const [least, most] = [Math.min(0, ...values), Math.max(guide * 1.2, ...values)];
  const at = (/** @type {number} */ value) => percent(0.01 + (0.98 * (value - least)) / (most - least));
  return rowsOf(
    rows.map(({ label, values, shown, title }) => {
      const there = values.flatMap((value, series) => (value === null ? [] : [{ value, series }]));
      const ends = there.map(({ value }) => value);
      return {
        label,
        title,
        shown,
        marks: [
          svg("line", { class: "guide", x1: at(guide), x2: at(guide), y1: 0, y2: ROW_PX }),
          ends.length > 0 &&
            svg("line", {
              class: "stem",
              x1: at(ends.length > 1 ? Math.min(...ends) : least),
              x2: at(Math.max(...ends)),
              y1: ROW_PX / 2,
              y2: ROW_PX / 2,
            }),
          ...there
            .map(({ value, series }) =>
              svg("circle", {
                class: series ? `ring series-${series}` : "series-0",
                cx: at(value),
                cy: ROW_PX / 2,
                r: series ? 5 : DOT_PX[values.length > 1 ? "inRing" : "alone"],
              }),
            )
            .reverse(), // the dot is drawn into the ring
        ],
      };
    }),
  );
}

/** @param {{label: string, title?: string, shown: string, marks: import("../dom.js").Child[]}[]} rows */
function rowsOf(rows) {
  return h(
    "div",
    { class: "plot-rows" },
    ...rows.flatMap(({ label, title, shown, marks }) => [
      h("span", { class: "plot-label", title: title ?? label }, label),
      svg("svg", { class: "track", height: ROW_PX, "aria-hidden": "true" }, ...marks),
      h("span", { class: "plot-value figure" }, shown),
    ]),
  );
}

/**
 * Parts of a whole in one strip, with a legend that says how many of each there are.
 * @param {{label: string, count: number, kind: string}[]} parts
 */
export function strip(parts) {
  const all = parts.reduce((sum, { count }) => sum + count, 0) || 1;
  let before = 0;
  const marks = parts.map(({ count, kind }) => {
    const x = before / all;
    before += count;
    return svg("rect", { class: kind, x: percent(x), width: percent(count / all), height: 14 });
  });
  return h(
    "div",
    { class: "strip" },
    svg("svg", { class: "track", height: 14, "aria-hidden": "true" }, ...marks),
    h(
      "ul",
      { class: "legend" },
      ...parts
        .filter(({ count }) => count)
        .map(({ label, count, kind }) => h("li", { class: kind }, `${label}: ${count}`)),
    ),
  );
}

const CURVE_PX = 150;
const CURVE_PAD_PX = 34;

/**
 * Points along x with a line through them: each with its name, the chosen one with its figures.
 * @param {{x: number, y: number, name: string, shown: string, chosen: boolean}[]} points
 * @param {{guide: number | null}} options `guide`: a value of y that was asked for
 */
export function curve(points, { guide }) {
  const [xs, ys] = [points.map(({ x }) => x), [...points.map(({ y }) => y), ...(guide === null ? [] : [guide])]];
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const x = (/** @type {number} */ value) =>
    percent(0.14 + 0.72 * (right > left ? (value - left) / (right - left) : 0.5));
  const y = (/** @type {number} */ value) =>
    CURVE_PX - CURVE_PAD_PX - (CURVE_PX - 2 * CURVE_PAD_PX) * (high > low ? (value - low) / (high - low) : 0.5);
  return svg(
    "svg",
    { class: "curve", height: CURVE_PX, "aria-hidden": "true" },
    guide !== null && svg("line", { class: "guide", x1: "0%", x2: "100%", y1: y(guide), y2: y(guide) }),
    ...points.slice(1).map((point, before) =>
      svg("line", {
        class: "stem",
        x1: x(points[before].x),
        y1: y(points[before].y),
        x2: x(point.x),
        y2: y(point.y),
      }),
    ),
    ...points.flatMap((point) => [
      svg("circle", {
        class: point.chosen ? "series-0" : "passed",
        cx: x(point.x),
        cy: y(point.y),
        r: point.chosen ? 6 : 4.5,
      }),
      svg("text", { x: x(point.x), y: y(point.y) - 14, "text-anchor": "middle", class: "strong" }, point.name),
      point.chosen && svg("text", { x: x(point.x), y: y(point.y) + 22, "text-anchor": "middle" }, point.shown),
    ]),
  );
}

/** @param {number} fraction */
function percent(fraction) {
  return `${(100 * fraction).toFixed(2)}%`;
}
