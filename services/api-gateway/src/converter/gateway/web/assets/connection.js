/**
 * Whether the gateway answers. Everything that talks to it tells here how that went; while it does not answer, the
 * banner is shown and its liveness is asked until it does.
 */

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 5_000;

let lost = false;
/** @type {Set<() => void>} */
const waiting = new Set();

/** A request got an answer, whatever it was. */
export function answered() {
  if (!lost) return;
  lost = false;
  show();
  for (const wake of waiting) wake();
  waiting.clear();
}

/** A request got none. */
export function unanswered() {
  if (lost) return;
  lost = true;
  show();
  void askUntilAnswered();
}

/**
 * Until the gateway answers again, or `signal` is aborted; at once when it does.
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export function reachable(signal) {
  if (!lost || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    waiting.add(resolve);
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/**
 * @param {number} ms
 * @param {AbortSignal} [signal] ends the pause early
 * @returns {Promise<void>}
 */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end); // or they would pile up on a view that is open for days
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener("abort", end);
  });
}

/**
 * Until somebody looks at the page, or `signal` is aborted.
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export function visible(signal) {
  if (!document.hidden || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", () => resolve(), { once: true, signal });
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

async function askUntilAnswered() {
  for (let wait = FIRST_RETRY_MS; lost; wait = Math.min(wait * 2, LONGEST_RETRY_MS)) {
    await pause(wait);
    try {
      await fetch("/health/live", { cache: "no-store" });
      answered();
    } catch {
      // Still away: ask again, later.
    }
  }
}

function show() {
  const banner = document.getElementById("banner");
  if (banner) banner.hidden = !lost;
}
