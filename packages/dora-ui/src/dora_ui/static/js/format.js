/** Numbers, times and names as text. */

import { now } from "./time.js";

const THIN = "\u202f";

/** @param {number | undefined} bytes */
export function bytes(bytes) {
  if (bytes === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${short(value)}${THIN}${units[unit]}`;
}

/**
 * Three significant digits at most.
 * @param {number} value
 * @returns {string}
 */
export function short(value) {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size >= 1e6) return `${short(value / 1e6)}M`;
  if (size >= 1e4) return `${short(value / 1e3)}k`;
  if (size >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return size >= 10 ? value.toFixed(1).replace(/\.0$/, "") : value.toPrecision(2).replace(/\.0$/, "");
}

/** A value that a node has sent: integers in full, others with seven digits. @param {number} value */
export function exact(value) {
  return String(Number.isInteger(value) ? value : Number(value.toPrecision(7)));
}

/** @param {number | undefined} rate per second */
export function rate(rate) {
  return rate === undefined ? "–" : `${short(rate)}/s`;
}

/** @param {number | undefined} percent */
export function percent(percent) {
  return percent === undefined ? "–" : `${percent < 10 ? percent.toFixed(1) : Math.round(percent)}${THIN}%`;
}

/** @param {number | undefined} micros */
export function micros(micros) {
  if (micros === undefined) return "–";
  if (micros < 1000) return `${short(micros)}${THIN}µs`;
  if (micros < 1e6) return `${short(micros / 1000)}${THIN}ms`;
  return `${short(micros / 1e6)}${THIN}s`;
}

/** @param {number | undefined} millis signed */
export function offset(millis) {
  if (millis === undefined) return "–";
  const sign = millis > 0 ? "+" : millis < 0 ? "−" : "";
  const size = Math.abs(millis);
  return size < 1000 ? `${sign}${size}${THIN}ms` : `${sign}${duration(size / 1000)}`;
}

/** @param {number} seconds */
export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s}${THIN}s`;
  if (s < 3600) return `${Math.floor(s / 60)}${THIN}min`;
  if (s < 86400) return `${Math.floor(s / 3600)}${THIN}h ${Math.floor((s % 3600) / 60)}${THIN}min`;
  return `${Math.floor(s / 86400)}${THIN}d ${Math.floor((s % 86400) / 3600)}${THIN}h`;
}

/** Time since `unix`, by the clock of the state. @param {number} unix */
export function since(unix) {
  return duration(now() - unix);
}

/** @param {number} unix */
export function ago(unix) {
  return `${since(unix)} ago`;
}

/** @param {string} ts RFC 3339 */
export function clock(ts) {
  const time = new Date(ts);
  if (Number.isNaN(time.getTime())) return ts;
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  const ms = String(time.getMilliseconds()).padStart(3, "0");
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${ms}`;
}

/** @param {number} millis Unix time */
export function clockAt(millis) {
  const time = new Date(millis);
  return Number.isNaN(time.getTime()) ? "–" : clock(time.toISOString());
}

/** @param {number} count @param {string} word */
export function counted(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

/** @type {Record<string, string>} Colour of each state of a dataflow or node. */
const TONES = {
  Running: "ok",
  Starting: "busy",
  Restarting: "warn",
  Recovering: "warn",
  Degraded: "warn",
  Stopping: "busy",
  Finished: "done",
  Stopped: "done",
  Failed: "bad",
  Unknown: "lost",
  connected: "ok",
  lost: "bad",
  ended: "done",
  current: "ok",
  changing: "busy",
  checking: "busy",
  waiting: "busy",
  paused: "warn",
  unready: "warn",
  "by hand": "warn",
  off: "lost",
  failed: "bad",
};

/** @param {string} status */
export function tone(status) {
  return TONES[status] ?? "done";
}
