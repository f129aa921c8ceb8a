/** Nodes, groups and arrows of the graph. */

import { Component, html } from "htm/preact";

import { bytes, counted, micros, percent, short, tone } from "../format.js";

/** @typedef {import("./model.js").Item} Item */
/** @typedef {import("./model.js").Bundle} Bundle */
/** @typedef {import("./model.js").Sum} Sum */
/** @typedef {import("./layout.js").Area} Area */
/** @typedef {import("../types.js").NodeRow} NodeRow */
/** @typedef {{select: (selection: import("./drawing.js").Selection) => void, open: (item: Item) => void}} Handlers */
/** @typedef {"near" | "far" | "tiny"} Level How much is shown: all, names, or colours. */

/** Length of an arrow's longest piece above which all figures are in one line. */
const LABEL_ROOM = 150;
const NAME_LETTERS = { near: 22, far: 13, tiny: 0 };

/** Renders again only when a property has changed. Handlers take functions from `props` when they are called. */
class Unchanging extends Component {
  /** @param {any} next */
  shouldComponentUpdate(next) {
    const before = /** @type {any} */ (this.props);
    return Object.keys(next).some((key) => typeof next[key] !== "function" && next[key] !== before[key]);
  }

  /** @returns {Handlers} */
  get handlers() {
    return /** @type {any} */ (this.props);
  }

  /** @returns {any} */
  render() {
    return null;
  }
}

export class Node extends Unchanging {
  render() {
    /** @type {{item: Item, area: Area, level: Level, row: NodeRow | undefined, status: string, failed: number, chosen: boolean, dim: boolean}} */
    const { item, area, level, row, status, failed, chosen, dim } = /** @type {any} */ (this.props);
    const letters = NAME_LETTERS[level];
    const label = item.label.length > letters ? `…${item.label.slice(1 - letters)}` : item.label;
    return html`<g class="node ${item.kind} ${tone(status)} ${chosen ? "chosen" : ""} ${dim ? "dim" : ""}" transform="translate(${area.x} ${area.y})"
      data-node=${item.id} data-status=${status}
      onClick=${() => this.handlers.select({ kind: "item", id: item.id })} onDblClick=${() => this.handlers.open(item)}>
      <title>${item.label}: ${status}${row?.error ? `\n${row.error}` : ""}</title>
      <rect class="box" width=${area.width} height=${area.height} rx="6" />
      ${level !== "tiny" && html`<rect class="mark" width="4" height=${area.height - 12} x="5" y="6" rx="2" />
        <text class="name" x="17" y=${level === "far" ? 29 : 18}>${label}</text>`}
      ${level === "near" && html`<text class="facts" x="17" y="34">${facts(item, row, status, failed)}</text>`}
      ${level === "near" && row !== undefined && row.restarts > 0 && html`<text class="restarts" x=${area.width - 8} y="18">↻${row.restarts}</text>`}
    </g>`;
  }
}

/** @param {Item} item @param {NodeRow | undefined} row @param {string} status @param {number} failed */
function facts(item, row, status, failed) {
  const found =
    item.kind === "node"
      ? [row?.cpu === undefined ? status : percent(row.cpu), row?.memory === undefined ? "" : bytes(row.memory), item.timers.length ? `every ${item.timers[0]}` : ""]
      : [counted(item.nodes.length, "node"), failed > 0 ? `${failed} failed` : status];
  return found.filter(Boolean).join("  ·  ");
}

/** @param {{name: string, area: Area, lost: boolean, level: Level, toggle: (key: string) => void}} props */
export function Group({ name, area, lost, level, toggle }) {
  return html`<g class="group ${lost ? "lost" : ""}" transform="translate(${area.x} ${area.y})">
    <rect width=${area.width} height=${area.height} rx="10" />
    ${level !== "tiny" && html`<text x="16" y="20" onClick=${() => toggle(`machine ${name}`)}>${name}${lost ? " · not reachable" : ""}</text>`}
  </g>`;
}

/** How an arrow looks. @param {Sum} sum @param {boolean} chosen */
export function arrowProps(sum, chosen) {
  return {
    kind: chosen ? "chosen" : sum.dropRate > 0 || sum.blocked ? "drop" : sum.rate > 0 ? "flow" : "idle",
    width: sum.rate > 0 ? Math.round(10 * Math.min(4, 1.2 + Math.log10(1 + sum.rate) * 0.7)) / 10 : 1.2,
  };
}

/** The figures beside an arrow. @param {Sum} sum */
export function labelProps(sum) {
  return {
    rate: `${short(sum.rate)}/s`,
    drops: sum.dropRate > 0 ? `−${short(sum.dropRate)}/s` : "",
    latency: sum.p50Us > 0 ? micros(sum.p50Us) : "",
  };
}

export class Arrow extends Unchanging {
  render() {
    /** @type {{bundle: Bundle, from: Area, to: Area, points: {x: number, y: number}[] | undefined, level: Level, kind: string, width: number}} */
    const { bundle, from, to, points, level, kind, width } = /** @type {any} */ (this.props);
    const { d } = curve(from, to, points ?? []);
    return html`<g class="edge ${kind}" data-edge=${bundle.id} onClick=${() => this.handlers.select({ kind: "bundle", id: bundle.id })}>
      ${level !== "tiny" && html`<path class="hit" d=${d} />`}
      <path class="line" d=${d} stroke-width=${width} marker-end=${level === "tiny" ? undefined : `url(#arrow-${kind})`} />
    </g>`;
  }
}

/** Figures of an arrow; labels are drawn after all arrows, which would cross them out. */
export class Label extends Unchanging {
  render() {
    /** @type {{bundle: Bundle, from: Area, to: Area, points: {x: number, y: number}[] | undefined, rate: string, drops: string, latency: string}} */
    const { bundle, from, to, points, rate, drops, latency } = /** @type {any} */ (this.props);
    const { middle, room } = curve(from, to, points ?? []);
    const beside = latency !== "" && room > LABEL_ROOM;
    return html`<g class="label" data-edge=${bundle.id} onClick=${() => this.handlers.select({ kind: "bundle", id: bundle.id })}>
      <text class="rate" x=${middle.x} y=${middle.y - 5}>${rate}${drops && html`<tspan class="dropped"> ${drops}</tspan>`}${beside && html`<tspan class="latency"> · ${latency}</tspan>`}</text>
      ${latency && !beside && html`<text class="rate latency" x=${middle.x} y=${middle.y + 13}>${latency}</text>`}
    </g>`;
  }
}

/**
 * A smooth line from the right side of a box to the left side of another, through points.
 * @param {Area} from
 * @param {Area} to
 * @param {{x: number, y: number}[]} points
 */
function curve(from, to, points) {
  const start = { x: from.x + from.width, y: from.y + from.height / 2 };
  const end = { x: to.x - 1, y: to.y + to.height / 2 };
  if (end.x < start.x + 10) {
    const below = Math.max(from.y + from.height, to.y + to.height) + 26;
    const middle = { x: (start.x + end.x) / 2, y: below };
    return {
      d: `M${start.x} ${start.y}C${start.x + 50} ${start.y} ${start.x + 50} ${below} ${start.x} ${below}L${end.x} ${below}C${end.x - 50} ${below} ${end.x - 50} ${end.y} ${end.x} ${end.y}`,
      middle,
      room: start.x - end.x,
    };
  }
  const inner = points.filter((point) => point.x > start.x + 8 && point.x < end.x - 8);
  const all = [start, ...inner, end];
  let d = `M${start.x} ${start.y}`;
  for (let index = 1; index < all.length; index += 1) {
    const [a, b] = [all[index - 1], all[index]];
    const half = (b.x - a.x) / 2;
    d += `C${a.x + half} ${a.y} ${b.x - half} ${b.y} ${b.x} ${b.y}`;
  }
  // The label is on the longest piece.
  const lengths = all.slice(1).map((point, index) => point.x - all[index].x);
  const at = lengths.indexOf(Math.max(...lengths));
  const [a, b] = [all[at], all[at + 1]];
  return { d, middle: { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 }, room: b.x - a.x };
}
