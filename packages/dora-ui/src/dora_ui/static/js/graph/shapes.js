/** Nodes, groups and arrows of the graph. */

import { Component, html } from "htm/preact";

import { textWidth } from "./model.js";

/** @typedef {import("./model.js").Item} Item */
/** @typedef {import("./model.js").Bundle} Bundle */
/** @typedef {import("./layout.js").Area} Area */
/** @typedef {import("./layout.js").Group} GroupArea */
/** @typedef {import("./layout.js").Route} Route */
/** @typedef {{select: (selection: import("./drawing.js").Selection) => void, open: (item: Item) => void}} Handlers */
/**
 * How an item and an arrow look; `lines` are texts between line breaks.
 * @typedef {{status: string, tone: string, title: string, facts: string, restarts: number}} ItemLook
 * @typedef {{kind: "flow" | "drop" | "idle", width: number, lines: string, dropped: string}} ArrowLook
 */
/** `size` of nodes and groups is that of names in the overview, 0 if all texts are shown. */

const CORNER = 7;
const LINE = 14;

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
    /** @type {{item: Item, area: Area, size: number, chosen: boolean, dim: boolean} & ItemLook} */
    const { item, area, size, chosen, dim, status, tone, title, facts, restarts } = /** @type {any} */ (this.props);
    return html`<g class="node ${item.kind} ${tone} ${chosen ? "chosen" : ""} ${dim ? "dim" : ""}" transform="translate(${area.x} ${area.y})"
      data-node=${item.id} data-status=${status}
      onClick=${() => this.handlers.select({ kind: "item", id: item.id })} onDblClick=${() => this.handlers.open(item)}>
      <title>${title}</title>
      <rect class="box" width=${area.width} height=${area.height} rx="6" />
      ${size > 0
        ? html`<rect class="mark" width="3" height=${area.height - 8} x="4" y="4" rx="1.5" />
          <text class="name" x="11" y=${area.height / 2 + 0.36 * size} font-size=${size}>${shortened(item.name, area.width - 15, size)}</text>`
        : html`<rect class="mark" width="4" height=${area.height - 12} x="5" y="6" rx="2" />
          <text class="name" x="17" y="19" font-size="13">${item.name}</text>
          <text class="facts" x="17" y="36">${facts}</text>
          ${restarts > 0 && html`<text class="restarts" x=${area.width - 8} y="19">↻${restarts}</text>`}`}
    </g>`;
  }
}

/**
 * A name that fits, without its middle if it is long: names often differ at both ends, or in a number.
 * @param {string} name
 * @param {number} width
 * @param {number} size
 */
function shortened(name, width, size) {
  const fits = (/** @type {string} */ text) => textWidth(text, `600 ${size}px system-ui, sans-serif`) <= width;
  if (fits(name)) return name;
  const number = /[-_.]?\d*$/.exec(name)?.[0].length ?? 0;
  for (let letters = name.length - 1; letters > 3; letters -= 1) {
    const end = Math.min(letters - 1, Math.max(number, Math.floor(letters * 0.4)));
    const text = `${name.slice(0, letters - end)}…${name.slice(name.length - end)}`;
    if (fits(text)) return text;
  }
  const letters = [4, 3, 2].find((count) => fits(name.slice(0, count)));
  return name.slice(0, letters ?? 1);
}

/** @param {{group: GroupArea, lost: boolean, size: number, toggle: (key: string) => void}} props */
export function Group({ group, lost, size, toggle }) {
  const { area, key, title } = group;
  const text = `${title}${lost ? " · not reachable" : ""}`;
  return html`<g class="group ${lost ? "lost" : ""} ${key.slice(0, key.indexOf(" "))}" transform="translate(${area.x} ${area.y})">
    <rect width=${area.width} height=${area.height} rx="10" />
    ${size > 0
      ? html`<text x="8" y=${8 + 0.72 * size} font-size=${size} onClick=${() => toggle(key)}>${shortened(text, area.width - 12, size)}</text>`
      : html`<text x="14" y="22" font-size="13" onClick=${() => toggle(key)}>${text}</text>`}
  </g>`;
}

export class Arrow extends Unchanging {
  render() {
    /** @type {{bundle: Bundle, route: Route, chosen: boolean} & ArrowLook} */
    const { bundle, route, chosen, kind, width, lines } = /** @type {any} */ (this.props);
    const d = path(route.points);
    const look = chosen ? "chosen" : kind;
    return html`<g class="edge ${kind} ${chosen ? "chosen" : ""}" data-edge=${bundle.id} onClick=${() => this.handlers.select({ kind: "bundle", id: bundle.id })}>
      <title>${lines}</title>
      <path class="hit" d=${d} />
      <path class="line" d=${d} stroke-width=${width} marker-end="url(#arrow-${look})" />
    </g>`;
  }
}

/** Figures or names of an arrow; labels are drawn after all arrows, which would cross them out. */
export class Label extends Unchanging {
  render() {
    /** @type {{bundle: Bundle, area: Area} & ArrowLook} */
    const { bundle, area, lines, dropped } = /** @type {any} */ (this.props);
    const x = area.x + area.width / 2;
    return html`<g class="label" data-edge=${bundle.id} onClick=${() => this.handlers.select({ kind: "bundle", id: bundle.id })}>
      ${lines.split("\n").map((line, index) => html`<text key=${index} class="rate ${index > 0 ? "more" : ""}" x=${x} y=${area.y + 12 + LINE * index}>${line}${
        dropped && index === lines.split("\n").length - 1 && html`<tspan class="dropped"> ${dropped}</tspan>`}</text>`)}
    </g>`;
  }
}

/** A line with rounded corners. @param {import("./layout.js").Point[]} points */
function path(points) {
  let d = `M${points[0].x} ${points[0].y}`;
  for (let index = 1; index < points.length - 1; index += 1) {
    const [before, corner, after] = points.slice(index - 1, index + 2);
    const [start, end] = [towards(corner, before), towards(corner, after)];
    d += `L${start.x} ${start.y}Q${corner.x} ${corner.y} ${end.x} ${end.y}`;
  }
  const last = points[points.length - 1];
  return `${d}L${last.x} ${last.y}`;
}

/** The point where a corner begins. @param {import("./layout.js").Point} from @param {import("./layout.js").Point} to */
function towards(from, to) {
  const length = Math.hypot(to.x - from.x, to.y - from.y);
  const share = length === 0 ? 0 : Math.min(CORNER, length / 2) / length;
  return { x: from.x + (to.x - from.x) * share, y: from.y + (to.y - from.y) * share };
}
