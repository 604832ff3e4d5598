/**
 * Server-sent events by fetch: an EventSource gives up for good when a proxy in front of a restarting gateway answers
 * 502, and one in every hidden tab would use up the browser's six connections to the gateway.
 */

import { Refused, Unreachable, request } from "./api.js";
import { pause, reachable, unanswered, visible } from "./connection.js";

const RETRY_MS = 1_000;

/**
 * Calls `take` for each event of `path`, and connects again where it broke off, until the server says that nothing
 * more will come (204), `take` answers true, or `signal` is aborted.
 * @param {string} path
 * @param {(kind: string, data: any) => boolean | void} take
 * @param {AbortSignal} signal
 * @param {{opened?: () => void}} [options] `opened` is called whenever a connection stands, before its first event
 */
export async function follow(path, take, signal, { opened = () => {} } = {}) {
  let lastId = "";
  while (!signal.aborted) {
    await visible(signal);
    await reachable(signal);
    if (signal.aborted) return;
    const connection = new AbortController();
    const end = () => connection.abort();
    const endWhenHidden = () => document.hidden && end();
    signal.addEventListener("abort", end, { once: true });
    document.addEventListener("visibilitychange", endWhenHidden);
    try {
      const headers = lastId ? { "Last-Event-ID": lastId } : undefined;
      const answer = await request(path, { signal: connection.signal, headers });
      if (answer.status === 204 || !answer.body) return;
      opened();
      for await (const event of events(answer.body, connection.signal)) {
        lastId = event.id ?? lastId;
        if (take(event.kind, event.data)) return;
      }
    } catch (error) {
      const passes = error instanceof Unreachable || (error instanceof Refused && error.status >= 500);
      if (!passes && !connection.signal.aborted) throw error;
    } finally {
      document.removeEventListener("visibilitychange", endWhenHidden);
      signal.removeEventListener("abort", end);
      end();
    }
    await pause(RETRY_MS, signal);
  }
}

/**
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} body
 * @param {AbortSignal} signal ends it
 * @returns {AsyncGenerator<{kind: string, id: string | null, data: any}>}
 */
async function* events(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      if (signal.aborted) throw error;
      unanswered();
      throw new Unreachable();
    });
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const event = parsed(block);
      if (event) yield event;
    }
  }
}

/**
 * @param {string} block the lines of one event
 * @returns {{kind: string, id: string | null, data: any} | null} null for a heartbeat
 */
function parsed(block) {
  /** @type {Record<string, string>} */
  const fields = {};
  for (const line of block.split("\n")) {
    const [, name, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
    if (name) fields[name] = name in fields ? `${fields[name]}\n${value}` : value;
  }
  if (fields.data === undefined) return null;
  return { kind: fields.event ?? "message", id: fields.id ?? null, data: JSON.parse(fields.data) };
}
