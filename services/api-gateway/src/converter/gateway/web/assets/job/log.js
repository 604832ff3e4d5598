/** What the toolchain writes, as it writes it: the last lines, searched, paused or followed. */

import { fill, h } from "../dom.js";
import { number } from "../format.js";

/** So many lines are kept on the page; the whole log is a link away. */
const KEPT = 2_000;

/** @typedef {{stage: string, attempt: number, line: string}} Line */

/** The log's panel; give `element` a place and lines to `add`. */
export class LogPanel {
  /** @param {string} whole address of the whole log */
  constructor(whole) {
    /** @type {Line[]} */
    this.lines = [];
    this.dropped = 0;
    /** @type {number | null} lines known when the pause began */
    this.paused_at = null;
    this.drawing = 0;
    this.wanted = "";
    /** @type {Map<Line, HTMLElement>} the lines that are shown, in which `wanted` is marked */
    this.drawn = new Map();
    this.list = h("div", { class: "lines", tabindex: "0", role: "region", "aria-label": "Log lines" });
    this.note = h("span", { class: "muted" });
    this.search = h("input", { type: "search", placeholder: "Search the log", "aria-label": "Search the log" });
    this.followed = h("input", { type: "checkbox", checked: true });
    this.pausing = h("button", { type: "button", "aria-pressed": "false", on: { click: () => this.pause() } }, "Pause");
    this.search.addEventListener("input", () => this.redraw());
    this.followed.addEventListener("change", () => this.toEnd());
    this.list.addEventListener("scroll", () => this.scrolled());
    this.element = h(
      "section",
      { class: "card log", "aria-labelledby": "log-title" },
      h(
        "div",
        { class: "log-tools" },
        h("h2", { id: "log-title" }, "Log"),
        this.note,
        this.search,
        h("label", { class: "check" }, this.followed, "Follow"),
        this.pausing,
        h("a", { class: "button", href: whole, target: "_blank", rel: "noopener" }, "Whole log"),
      ),
      this.list,
    );
    this.redraw();
  }

  /** Forgets every line, before they are told again from the first. */
  clear() {
    this.lines = [];
    this.dropped = 0;
    this.redraw();
  }

  /** @param {Line} line */
  add(line) {
    this.lines.push(line);
    if (this.lines.length > KEPT) {
      this.lines.shift();
      this.dropped += 1;
    }
    this.redraw();
  }

  pause() {
    const pausing = this.paused_at === null;
    this.paused_at = pausing ? this.dropped + this.lines.length : null;
    this.pausing.setAttribute("aria-pressed", String(pausing));
    this.redraw();
  }

  scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.list;
    const atEnd = scrollTop + clientHeight >= scrollHeight - 24;
    this.followed.checked = atEnd; // who scrolls up wants to read; who comes back wants to follow
  }

  toEnd() {
    if (this.followed.checked && this.paused_at === null) this.list.scrollTop = this.list.scrollHeight;
  }

  /** Once for all lines that came in the same frame. */
  redraw() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.draw();
      this.toEnd();
      this.drawing = 0;
    });
  }

  draw() {
    const wanted = this.search.value.trim().toLowerCase();
    const known =
      this.paused_at === null ? this.lines : this.lines.slice(0, Math.max(0, this.paused_at - this.dropped));
    const found = wanted ? known.filter(({ line }) => line.toLowerCase().includes(wanted)) : known;
    this.put(found, wanted);
    const waiting = this.lines.length - known.length;
    fill(
      this.note,
      wanted ? `${number(found.length)} of ${number(known.length)} lines` : "",
      this.dropped && !wanted ? `the last ${number(KEPT)} lines` : "",
      !this.lines.length && "no lines yet",
    );
    fill(this.pausing, this.paused_at === null ? "Pause" : waiting ? `Resume, ${number(waiting)} new` : "Resume");
  }

  /**
   * Shows the lines. Those that are shown already keep their elements, so that what is read or selected stays in place.
   * @param {Line[]} lines those shown before, of which the first may be missing, then new ones; or others altogether
   * @param {string} wanted
   */
  put(lines, wanted) {
    const known = wanted === this.wanted ? this.drawn : new Map();
    this.wanted = wanted;
    this.drawn = new Map(lines.map((line) => [line, known.get(line) ?? lineOf(line, wanted)]));
    const elements = [...this.drawn.values()];
    while (this.list.firstChild && this.list.firstChild !== elements[0]) this.list.firstChild.remove();
    this.list.append(...elements.slice(this.list.childElementCount));
  }
}

/** @param {Line} line @param {string} wanted in lower case @returns {HTMLElement} */
function lineOf({ stage, line }, wanted) {
  return h(
    "div",
    { class: "line" },
    h("span", { class: "source" }, stage.toUpperCase()),
    h("span", {}, marked(line, wanted)),
  );
}

/**
 * The line with every place marked where `wanted` stands.
 * @param {string} line
 * @param {string} wanted
 * @returns {import("../dom.js").Child[]}
 */
function marked(line, wanted) {
  if (!wanted) return [line];
  const parts = [];
  const lower = line.toLowerCase();
  let from = 0;
  for (let at = lower.indexOf(wanted); at >= 0; at = lower.indexOf(wanted, from)) {
    parts.push(line.slice(from, at), h("mark", {}, line.slice(at, at + wanted.length)));
    from = at + wanted.length;
  }
  return [...parts, line.slice(from)];
}
