/** The internal API: JSON in, JSON out, and every refusal as an exception that says what to do about it. */

import { answered, pause, reachable, unanswered, visible } from "./connection.js";

const RETRY_MS = 250;

/** The gateway said no. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {Record<string, any>} body `{error, code, details}`, or what else was answered
   */
  constructor(status, body) {
    super(body.error ?? `The gateway answered ${status}.`);
    this.status = status;
    this.body = body;
    this.code = body.code ?? "unknown";
    this.details = body.details ?? {};
  }

  /** @returns {string | null} what the caller can do about it */
  get hint() {
    return this.fields.length ? null : (this.details.hint ?? null);
  }

  /** @returns {import("./types.js").FieldProblem[]} the bad fields, where it is about fields */
  get fields() {
    return Array.isArray(this.details.fields) ? this.details.fields : [];
  }
}

/** The gateway did not answer. */
export class Unreachable extends Error {
  constructor() {
    super("The gateway did not answer.");
  }
}

/**
 * Reads; a gateway that is away is waited for, as a read may be repeated.
 * @param {string} path
 * @param {{query?: Record<string, string>, signal: AbortSignal}} options empty values of `query` are left out
 * @returns {Promise<any>}
 */
export async function get(path, { query = {}, signal }) {
  const given = Object.entries(query).filter(([, value]) => value);
  const search = given.length ? `?${new URLSearchParams(given)}` : "";
  for (;;) {
    try {
      return await (await request(path + search, { signal })).json();
    } catch (error) {
      if (signal.aborted || !(error instanceof Unreachable || error instanceof TypeError)) throw error;
      if (error instanceof TypeError) unanswered(); // it broke off within its answer
      await reachable(signal);
      await pause(RETRY_MS, signal);
    }
  }
}

/**
 * @param {"POST" | "DELETE"} method
 * @param {string} path
 * @param {object} [body] sent as JSON
 * @returns {Promise<any>} null where the answer has no body
 */
export async function send(method, path, body) {
  const headers = body ? { "Content-Type": "application/json" } : undefined;
  const answer = await request(path, { method, headers, body: body && JSON.stringify(body) });
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 */
export async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    unanswered();
    throw new Unreachable();
  }
  answered();
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

/**
 * Posts a form and tells how much of it is sent, which fetch does not.
 * @param {string} path
 * @param {FormData} form
 * @param {(fraction: number) => void} tell
 * @param {AbortSignal} signal
 * @returns {Promise<any>}
 */
export function upload(path, form, tell, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.upload.onprogress = (event) => event.lengthComputable && tell(event.loaded / event.total);
    request.onload = () => {
      answered();
      const body = parsed(request.responseText);
      if (request.status < 300) resolve(body);
      else reject(new Refused(request.status, body));
    };
    request.onerror = () => {
      unanswered();
      reject(new Unreachable());
    };
    request.onabort = () => reject(new DOMException("The upload was stopped.", "AbortError"));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

/**
 * Calls `look` now and then every `every_ms` while somebody looks at the page, until `signal` is aborted. It waits out
 * a gateway that is away.
 * @param {() => Promise<void>} look
 * @param {number} every_ms
 * @param {AbortSignal} signal
 * @param {(error: unknown) => void} failed is given what `look` throws, a gateway that is away excepted
 */
export async function poll(look, every_ms, signal, failed) {
  while (!signal.aborted) {
    try {
      await look();
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Unreachable)) failed(error);
    }
    await pause(every_ms, signal);
    await reachable(signal);
    await visible(signal);
  }
}
