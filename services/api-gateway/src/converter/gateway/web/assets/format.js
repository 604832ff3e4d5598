/** Figures and times as people read them. */

import { h } from "./dom.js";

const NUMBER = new Intl.NumberFormat("en-GB");
const RELATIVE = new Intl.RelativeTimeFormat("en-GB", { numeric: "auto" });
const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
/** @type {[Intl.RelativeTimeFormatUnit, number][]} */
const UNITS = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];

const MIB = 1024 * 1024;

/** Stands where there is no figure. */
export const NONE = "–";

/** @param {number | null | undefined} value */
export function number(value) {
  return value === null || value === undefined ? NONE : NUMBER.format(value);
}

/**
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 */
export function counted(count, one, many = `${one}s`) {
  return `${NUMBER.format(count)} ${count === 1 ? one : many}`;
}

/** A whole number of MiB, as limits are, stays one. @param {number | null | undefined} size_bytes */
export function bytes(size_bytes) {
  if (size_bytes === null || size_bytes === undefined) return NONE;
  if (size_bytes && size_bytes % MIB === 0) return `${NUMBER.format(size_bytes / MIB)} MiB`;
  if (size_bytes < 1_000) return `${size_bytes} B`;
  let value = size_bytes;
  let unit = "B";
  for (const next of ["kB", "MB", "GB"]) {
    if (value < 1_000) break;
    value /= 1_000;
    unit = next;
  }
  return `${value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : Math.round(value)} ${unit}`;
}

/** @param {number | null | undefined} value */
export function decibels(value) {
  return value === null || value === undefined ? NONE : `${value.toFixed(1)} dB`;
}

/** @param {number | null | undefined} ms */
export function duration(ms) {
  if (ms === null || ms === undefined) return NONE;
  if (ms < 1_000) return `${ms < 10 && ms % 1 ? ms.toFixed(2) : Math.round(ms)} ms`;
  const seconds = ms / 1_000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const [days, hours, minutes] = [seconds / 86_400, (seconds / 3_600) % 24, (seconds / 60) % 60].map(Math.floor);
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${Math.floor(seconds % 60)} s`;
}

/**
 * "2 minutes ago", with the exact moment as a tooltip; it goes on counting while it is shown.
 * @param {string | null} at RFC 3339
 */
export function ago(at) {
  if (!at) return NONE;
  return h("time", { datetime: at, title: MOMENT.format(new Date(at)), "data-ago": true }, since(at));
}

/** @param {string} at */
function since(at) {
  const seconds = Math.round((Date.parse(at) - Date.now()) / 1_000);
  const [unit, size] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? UNITS[3];
  return Math.abs(seconds) < 5 ? "just now" : RELATIVE.format(Math.trunc(seconds / size), unit);
}

/** Brings every `ago` on the page up to date. */
export function retell() {
  for (const element of document.querySelectorAll("time[data-ago]")) {
    const text = since(element.getAttribute("datetime") ?? "");
    if (element.textContent !== text) element.textContent = text;
  }
}

/**
 * A text too long for its place, with its middle left out.
 * @param {string} text
 * @param {number} most characters
 */
export function shortened(text, most) {
  if (text.length <= most) return text;
  const kept = (most - 1) / 2;
  return `${text.slice(0, Math.ceil(kept))}…${text.slice(text.length - Math.floor(kept))}`;
}
