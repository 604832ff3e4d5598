/** A new job, from files or from an earlier job with other options. */

import { Refused, get, send, upload } from "../api.js";
import { fill, h, say } from "../dom.js";
import { FileField } from "../form/files.js";
import { JobForm } from "../form/job_form.js";
import { verdictCard } from "../form/verdict.js";
import { bytes } from "../format.js";
import { address, go } from "../router.js";
import { problem } from "./problem.js";

/** @param {import("../main.js").Shown} shown */
export async function newView({ host, place, signal, title }) {
  const from = place.query.get("retry");
  const [options, earlier] = await Promise.all([
    get("/options", { signal }),
    from ? get(`/jobs/${encodeURIComponent(from)}`, { signal }) : null,
  ]);
  title(earlier ? `Retry ${earlier.model.filename}` : "New job");
  const form = new JobForm(options);
  if (earlier) form.prefill(earlier);
  const order = earlier ? new Retry(earlier) : new Upload(options.limits);
  const outcome = h("div", { class: "outcome" });
  const convert = h("button", { type: "submit", class: "primary" }, "Convert");
  const check = h("button", { type: "button" }, "Check only");
  const buttons = [convert, ...(order instanceof Upload ? [check] : [])];

  let busy = false;
  const setBusy = (/** @type {boolean} */ now) => {
    busy = now;
    for (const button of buttons) button.ariaDisabled = String(now); // a disabled button would lose the focus
  };
  const run = async (/** @type {(tell: (done: import("../dom.js").Child) => void) => Promise<void>} */ work) => {
    if (busy) return;
    const fine = [order.check(), form.check()].every(Boolean);
    if (!fine) return pointAt(host, outcome);
    setBusy(true);
    try {
      await work((done) => fill(outcome, done));
    } catch (error) {
      if (signal.aborted) return;
      const left = error instanceof Refused ? form.complain(order.complain(error.fields)) : [];
      if (error instanceof Refused && error.fields.length && !left.length) pointAt(host, outcome);
      else fill(outcome, stoppedByHand(error) ? null : problem(error));
    }
    setBusy(false);
  };
  const element = h(
    "form",
    { class: "new", novalidate: true },
    h("div", { class: "wide" }, order.element, form.element),
    h(
      "div",
      { class: "side" },
      h(
        "div",
        { class: "card send" },
        h("div", { class: "buttons" }, ...buttons),
        h("p", { class: "hint" }, order.hint),
      ),
      outcome,
    ),
  );
  element.addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    void run(async (tell) => {
      const job = await order.send(form, tell, signal);
      say("The job was created.");
      go(address("jobs", job.job_id));
    });
  });
  check.addEventListener("click", () =>
    run(async (tell) => {
      if (!(order instanceof Upload)) return;
      const verdict = await order.judge(form, tell, signal);
      tell(verdictCard(verdict));
      say(verdict.valid ? "The model would be taken." : "The model would fail.");
    }),
  );
  fill(
    host,
    h("div", { class: "heading" }, h("h1", {}, earlier ? `Retry ${earlier.model.filename}` : "New job")),
    element,
  );
}

/** Says that something has to be mended, and goes to the first of it. @param {HTMLElement} host @param {HTMLElement} outcome */
function pointAt(host, outcome) {
  const wrong = /** @type {NodeListOf<HTMLElement>} */ (host.querySelectorAll("[aria-invalid]"));
  const count = wrong.length === 1 ? "One field needs" : `${wrong.length} fields need`;
  fill(
    outcome,
    h("div", { class: "notice bad", role: "alert" }, h("p", {}, h("strong", {}, `${count} another value.`))),
  );
  const details = wrong[0]?.closest("details");
  if (details) details.open = true;
  wrong[0]?.focus();
}

/** @param {unknown} error */
function stoppedByHand(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/** A job from files. */
class Upload {
  /** @param {any} limits */
  constructor(limits) {
    this.hint = "Check sends the model and images, and says what would become of them; nothing is kept.";
    this.model = new FileField({
      name: "model",
      label: "Model",
      hint: `ONNX, up to ${bytes(limits.model_max_bytes)}`,
      accept: ".onnx",
      multiple: false,
      most_bytes: limits.model_max_bytes,
    });
    this.images = new FileField({
      name: "ref_images",
      label: "Reference images",
      hint: `PNG, JPEG, BMP or WebP, one ZIP of them, or NumPy arrays; up to ${limits.ref_images_max_count}. About 100 typical ones make an accurate model.`,
      accept: "image/png,image/jpeg,image/bmp,image/webp,.zip,.npy,.npz",
      multiple: true,
      most_bytes: limits.model_max_bytes,
      most_count: limits.ref_images_max_count,
    });
    this.element = h("div", { class: "files" }, this.model.element, this.images.element);
  }

  check() {
    return [this.model.check(true), this.images.check()].every(Boolean);
  }

  /** @param {import("../types.js").FieldProblem[]} problems */
  complain(problems) {
    return problems.filter(({ field, message }) => {
      const own = [this.model, this.images].find(({ name }) => name === field);
      own?.complain([message]);
      return !own;
    });
  }

  /** @param {JobForm} form @param {(done: import("../dom.js").Child) => void} tell @param {AbortSignal} signal */
  send(form, tell, signal) {
    return this.post("/jobs", form, tell, signal);
  }

  /** @param {JobForm} form @param {(done: import("../dom.js").Child) => void} tell @param {AbortSignal} signal */
  judge(form, tell, signal) {
    return this.post("/jobs?dry_run=true", form, tell, signal);
  }

  /**
   * @param {string} path
   * @param {JobForm} form
   * @param {(done: import("../dom.js").Child) => void} tell
   * @param {AbortSignal} signal
   */
  post(path, form, tell, signal) {
    const stopped = new AbortController();
    signal.addEventListener("abort", () => stopped.abort(), { once: true });
    const bar = h("progress", { max: "1", value: "0", "aria-label": "Upload" });
    const state = h("p", {}, "Uploading…");
    const stop = h("button", { type: "button", on: { click: () => stopped.abort() } }, "Stop");
    tell(h("div", { class: "card sending" }, state, bar, stop));
    const told = (/** @type {number} */ fraction) => {
      bar.value = fraction;
      fill(state, fraction < 1 ? `Uploading, ${Math.round(100 * fraction)} %` : "Looking at the files…");
    };
    return upload(path, this.body(form), told, stopped.signal);
  }

  /** The fields go first, so that a bad one is refused before the files are sent. @param {JobForm} form */
  body(form) {
    const { quantization, input_shape, ...texts } = form.value;
    const body = new FormData();
    for (const [name, text] of Object.entries(texts)) body.append(name, text);
    for (const shape of input_shape) body.append("input_shape", shape);
    if (Object.keys(quantization).length) body.append("quantization", JSON.stringify(quantization));
    for (const image of this.images.files) body.append("ref_images", image);
    body.append("model", this.model.files[0]);
    return body;
  }
}

/** A job with the files of an earlier one. */
class Retry {
  /** @param {import("../types.js").Job} job */
  constructor(job) {
    this.job = job;
    this.hint = "Makes a new job; the first one stays as it is.";
    this.element = h(
      "p",
      { class: "card" },
      "The model ",
      h("a", { href: address("jobs", job.job_id) }, job.model.filename),
      ` (${bytes(job.model.size_bytes)}) and its ${job.ref_images_count} reference images are used again.`,
    );
  }

  check() {
    return true;
  }

  /** @param {import("../types.js").FieldProblem[]} problems */
  complain(problems) {
    return problems;
  }

  /** @param {JobForm} form */
  send(form) {
    return send("POST", `/jobs/${this.job.job_id}/retry`, form.value);
  }
}
