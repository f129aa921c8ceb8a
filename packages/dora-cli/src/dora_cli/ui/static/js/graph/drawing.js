/** The drawing of the graph: pan, zoom, selection by pointer and keyboard. */

import { Component, html } from "htm/preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { bytes, percent, short, tone } from "../format.js";
import { total, worst } from "./model.js";

/** @typedef {import("./model.js").Item} Item */
/** @typedef {import("./model.js").Bundle} Bundle */
/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./layout.js").Layout} Layout */
/** @typedef {import("./layout.js").Area} Area */
/** @typedef {import("../types.js").NodeRow} NodeRow */
/** @typedef {import("../types.js").EdgeRow} EdgeRow */
/** @typedef {{kind: "item" | "bundle", id: string} | null} Selection */

const FAR = 0.4;
const TINY = 0.2;
const LEAST_ZOOM = 0.04;
const MOST_ZOOM = 2.5;
const MARGIN = 24;

/**
 * Lay out the model in a worker; returns the last layout until the next is ready.
 * @param {Model} model
 * @returns {Layout | null}
 */
export function useLayout(model) {
  const [layout, setLayout] = useState(/** @type {Layout | null} */ (null));
  const worker = useRef(/** @type {Worker | null} */ (null));
  const number = useRef(0);
  const key = useMemo(
    () => JSON.stringify([model.items.map((one) => [one.id, one.machine]), model.bundles.map((one) => one.id), model.grouped]),
    [model],
  );
  useEffect(() => {
    worker.current = new Worker("/static/js/graph/worker.js", { type: "module" });
    worker.current.onmessage = (event) => {
      if (event.data.number === number.current) setLayout(event.data.layout);
    };
    return () => worker.current?.terminate();
  }, []);
  useEffect(() => {
    number.current += 1;
    worker.current?.postMessage({
      number: number.current,
      boxes: model.items.map((one) => ({ id: one.id, width: one.width, height: one.height, group: one.machine, alone: one.kind === "machine" })),
      arrows: model.bundles.map((one) => ({ from: one.from, to: one.to })),
      grouped: model.grouped,
    });
  }, [key]);
  return layout;
}

/** @param {{model: Model, layout: Layout, nodes: Record<string, NodeRow>, edges: Record<string, EdgeRow>, selection: Selection, select: (selection: Selection) => void, open: (item: Item) => void, toggle: (key: string) => void, lost: Set<string>}} props */
export function Drawing({ model, layout, nodes, edges, selection, select, open, toggle, lost }) {
  const svg = useRef(/** @type {SVGSVGElement | null} */ (null));
  const scene = useRef(/** @type {SVGGElement | null} */ (null));
  const camera = useRef({ x: 0, y: 0, zoom: 1, fitted: true });

  const apply = () => {
    const { x, y, zoom } = camera.current;
    scene.current?.setAttribute("transform", `translate(${x} ${y}) scale(${zoom})`);
    svg.current?.classList.toggle("far", zoom < FAR);
    svg.current?.classList.toggle("tiny", zoom < TINY);
  };
  const fit = () => {
    const box = svg.current?.getBoundingClientRect();
    if (box === undefined || box.width === 0) return;
    const zoom = Math.min(1.4, (box.width - 2 * MARGIN) / layout.width, (box.height - 2 * MARGIN) / layout.height);
    camera.current = {
      zoom: Math.max(LEAST_ZOOM, zoom),
      x: (box.width - layout.width * zoom) / 2,
      y: (box.height - layout.height * zoom) / 2,
      fitted: true,
    };
    apply();
  };
  const zoomAt = (/** @type {number} */ factor, /** @type {number} */ px, /** @type {number} */ py) => {
    const { x, y, zoom } = camera.current;
    const next = Math.min(MOST_ZOOM, Math.max(LEAST_ZOOM, zoom * factor));
    camera.current = { zoom: next, x: px - ((px - x) / zoom) * next, y: py - ((py - y) / zoom) * next, fitted: false };
    apply();
  };
  const zoomMiddle = (/** @type {number} */ factor) => {
    const box = svg.current?.getBoundingClientRect();
    if (box !== undefined) zoomAt(factor, box.width / 2, box.height / 2);
  };
  const pan = (/** @type {number} */ dx, /** @type {number} */ dy) => {
    camera.current.x += dx;
    camera.current.y += dy;
    camera.current.fitted = false;
    apply();
  };
  useEffect(fit, [layout]);
  useEffect(() => {
    const element = svg.current;
    if (element === null) return undefined;
    const observer = new ResizeObserver(() => camera.current.fitted && fit());
    observer.observe(element);
    return () => observer.disconnect();
  }, [layout]);
  usePointer(svg, pan, zoomAt);

  const keys = (/** @type {KeyboardEvent} */ event) => {
    /** @type {Record<string, [number, number]>} */
    const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const direction = directions[event.key];
    const chosen = model.items.find((one) => selection?.kind === "item" && one.id === selection.id);
    if (direction !== undefined) {
      const next = neighbour(model.items, layout, chosen, direction);
      if (next !== undefined) select({ kind: "item", id: next.id });
    } else if (event.key === "+" || event.key === "=") zoomMiddle(1.25);
    else if (event.key === "-") zoomMiddle(0.8);
    else if (event.key === "0") fit();
    else if (event.key === "Enter" && chosen !== undefined) open(chosen);
    else if (event.key === "Escape") select(null);
    else return;
    event.preventDefault();
  };
  const background = (/** @type {MouseEvent} */ event) => {
    if (event.target === svg.current) select(null);
  };
  const chosenItem = selection?.kind === "item" ? selection.id : null;
  return html`<div class="drawing">
    <svg ref=${svg} tabindex="0" role="application" onKeyDown=${keys} onClick=${background}
      aria-label="Graph of the dataflow. Arrow keys select a node, Enter opens it, plus and minus zoom, 0 shows all.">
      <defs>
        ${["flow", "drop", "idle", "chosen"].map((name) => html`<marker key=${name} id="arrow-${name}" class="arrow ${name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse"><path d="M0 1 7 4 0 7z" /></marker>`)}
      </defs>
      <g ref=${scene}>
        ${Object.entries(layout.groups).map(([name, area]) => html`<${Group} key=${name} name=${name} area=${area} lost=${lost.has(name)} toggle=${toggle} />`)}
        ${model.bundles.map((bundle) => html`<${Arrow} key=${bundle.id} bundle=${bundle} from=${layout.boxes[bundle.from]} to=${layout.boxes[bundle.to]}
          points=${layout.arrows[bundle.id]} sum=${total(bundle.edges, edges)} select=${select}
          chosen=${(selection?.kind === "bundle" && selection.id === bundle.id) || bundle.from === chosenItem || bundle.to === chosenItem} />`)}
        ${model.items.map((item) => html`<${Node} key=${item.id} item=${item} area=${layout.boxes[item.id]} row=${item.kind === "node" ? nodes[item.id] : undefined}
          status=${worst(item.nodes, nodes)} failed=${item.kind === "node" ? 0 : item.nodes.filter((id) => nodes[id]?.status === "Failed").length}
          chosen=${item.id === chosenItem} select=${select} open=${open} />`)}
      </g>
    </svg>
    <div class="zoom">
      <button type="button" onClick=${() => zoomMiddle(1.25)} aria-label="Zoom in">+</button>
      <button type="button" onClick=${() => zoomMiddle(0.8)} aria-label="Zoom out">−</button>
      <button type="button" onClick=${fit} aria-label="Show all" title="Show all">⤢</button>
    </div>
  </div>`;
}

/** @param {{current: SVGSVGElement | null}} svg @param {(dx: number, dy: number) => void} pan @param {(factor: number, x: number, y: number) => void} zoomAt */
function usePointer(svg, pan, zoomAt) {
  const latest = useRef({ pan, zoomAt });
  latest.current = { pan, zoomAt };
  useEffect(() => {
    const element = svg.current;
    if (element === null) return undefined;
    /** @type {Map<number, {x: number, y: number}>} */
    const pointers = new Map();
    const local = (/** @type {{clientX: number, clientY: number}} */ event) => {
      const box = element.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    const down = (/** @type {PointerEvent} */ event) => pointers.set(event.pointerId, local(event));
    const move = (/** @type {PointerEvent} */ event) => {
      const before = pointers.get(event.pointerId);
      if (before === undefined) return;
      const now = local(event);
      if (pointers.size === 1) {
        if (event.buttons === 0) pointers.clear();
        else latest.current.pan(now.x - before.x, now.y - before.y);
      } else {
        const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
        const size = Math.hypot(before.x - other.x, before.y - other.y) || 1;
        latest.current.zoomAt(Math.hypot(now.x - other.x, now.y - other.y) / size, other.x, other.y);
      }
      pointers.set(event.pointerId, now);
    };
    const up = (/** @type {PointerEvent} */ event) => pointers.delete(event.pointerId);
    const wheel = (/** @type {WheelEvent} */ event) => {
      event.preventDefault();
      const { x, y } = local(event);
      latest.current.zoomAt(Math.exp(-event.deltaY * 0.0016), x, y);
    };
    element.addEventListener("pointerdown", down);
    element.addEventListener("wheel", wheel, { passive: false });
    addEventListener("pointermove", move);
    addEventListener("pointerup", up);
    addEventListener("pointercancel", up);
    return () => {
      element.removeEventListener("pointerdown", down);
      element.removeEventListener("wheel", wheel);
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", up);
      removeEventListener("pointercancel", up);
    };
  }, []);
}

/**
 * Return the nearest item in a direction.
 * @param {Item[]} items
 * @param {Layout} layout
 * @param {Item | undefined} from
 * @param {[number, number]} direction
 */
function neighbour(items, layout, from, direction) {
  if (from === undefined) return items[0];
  const start = layout.boxes[from.id];
  /** @type {Item | undefined} */
  let best;
  let least = Infinity;
  for (const item of items) {
    const area = layout.boxes[item.id];
    if (item === from || area === undefined || start === undefined) continue;
    const [dx, dy] = [area.x - start.x, area.y - start.y];
    const along = dx * direction[0] + dy * direction[1];
    const across = Math.abs(dx * direction[1] + dy * direction[0]);
    if (along <= 1) continue;
    const cost = along + 2.5 * across;
    if (cost < least) [best, least] = [item, cost];
  }
  return best;
}

/** Renders again only when a property has changed. */
class Unchanging extends Component {
  /** @param {any} next */
  shouldComponentUpdate(next) {
    const before = /** @type {any} */ (this.props);
    return Object.keys(next).some((key) => typeof next[key] !== "function" && next[key] !== before[key]);
  }

  /** @returns {any} */
  render() {
    return null;
  }
}

class Node extends Unchanging {
  render() {
    /** @type {{item: Item, area: Area | undefined, row: NodeRow | undefined, status: string, failed: number, chosen: boolean, select: (selection: Selection) => void, open: (item: Item) => void}} */
    const { item, area, row, status, failed, chosen, select, open } = /** @type {any} */ (this.props);
    if (area === undefined) return null;
    const facts =
      item.kind === "node"
        ? [row?.cpu === undefined ? status : percent(row.cpu), row?.memory === undefined ? "" : bytes(row.memory), item.timers.length ? `every ${item.timers[0]}` : ""]
        : [`${item.nodes.length} nodes`, failed > 0 ? `${failed} failed` : status];
    const label = item.label.length > 22 ? `…${item.label.slice(-21)}` : item.label;
    return html`<g class="node ${item.kind} ${tone(status)} ${chosen ? "chosen" : ""}" transform="translate(${area.x} ${area.y})"
      data-node=${item.id} data-status=${status}
      onClick=${() => select({ kind: "item", id: item.id })} onDblClick=${() => open(item)}>
      <title>${item.label}: ${status}${row?.error ? `\n${row.error}` : ""}</title>
      <rect class="box" width=${area.width} height=${area.height} rx="6" />
      <rect class="mark" width="4" height=${area.height - 12} x="5" y="6" rx="2" />
      <text class="name" x="17" y="18">${label}</text>
      <text class="facts" x="17" y="34">${facts.filter(Boolean).join("  ·  ")}</text>
      ${row !== undefined && row.restarts > 0 && html`<text class="restarts" x=${area.width - 8} y="18">↻${row.restarts}</text>`}
    </g>`;
  }
}

/** @param {{name: string, area: Area, lost: boolean, toggle: (key: string) => void}} props */
function Group({ name, area, lost, toggle }) {
  return html`<g class="group ${lost ? "lost" : ""}" transform="translate(${area.x} ${area.y})">
    <rect width=${area.width} height=${area.height} rx="10" />
    <text x="16" y="20" onClick=${() => toggle(`machine ${name}`)}>${name}${lost ? " · not reachable" : ""}</text>
  </g>`;
}

/** @typedef {ReturnType<typeof total>} Sum */

/** @param {{bundle: Bundle, from: Area | undefined, to: Area | undefined, points: {x: number, y: number}[] | undefined, sum: Sum, select: (selection: Selection) => void, chosen: boolean}} props */
function Arrow({ bundle, from, to, points, sum, select, chosen }) {
  if (from === undefined || to === undefined) return null;
  const path = useMemo(() => curve(from, to, points ?? []), [from, to, points]);
  const kind = chosen ? "chosen" : sum.dropRate > 0 || sum.blocked ? "drop" : sum.rate > 0 ? "flow" : "idle";
  const width = sum.rate > 0 ? Math.min(4, 1.2 + Math.log10(1 + sum.rate) * 0.7) : 1.2;
  return html`<g class="edge ${kind}" data-edge=${bundle.id} onClick=${() => select({ kind: "bundle", id: bundle.id })}>
    <path class="hit" d=${path.d} />
    <path class="line" d=${path.d} stroke-width=${width} marker-end="url(#arrow-${kind})" />
    ${sum.known && html`<text class="rate" x=${path.middle.x} y=${path.middle.y - 5}>${short(sum.rate)}/s${sum.dropRate > 0 ? html`<tspan class="dropped"> −${short(sum.dropRate)}/s</tspan>` : ""}</text>`}
  </g>`;
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
  const at = Math.floor((all.length - 1) / 2);
  const [a, b] = [all[at], all[at + 1]];
  return { d, middle: { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 } };
}
