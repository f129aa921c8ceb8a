/** The drawing of the graph: pan, zoom, selection by pointer and keyboard. */

import { html } from "htm/preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { usePointer } from "../pointer.js";
import { modulesOf, total, worst } from "./model.js";
import { Arrow, Group, Label, Node, arrowProps, labelProps } from "./shapes.js";

/** @typedef {import("./model.js").Item} Item */
/** @typedef {import("./model.js").Bundle} Bundle */
/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./layout.js").Layout} Layout */
/** @typedef {import("./layout.js").Area} Area */
/** @typedef {import("../types.js").NodeRow} NodeRow */
/** @typedef {import("../types.js").EdgeRow} EdgeRow */
/** @typedef {{kind: "item" | "bundle", id: string} | null} Selection */

const FAR = 0.5;
const TINY = 0.22;
/** Of graphs with more items, only those near the visible part are drawn. */
const DRAW_ALL = 300;
const MIN_ZOOM = 0.04;
const MAX_ZOOM = 2.5;
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
    worker.current = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
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

/** @typedef {{level: import("./shapes.js").Level, area: Area}} View */

const EVERYWHERE = { x: -Infinity, y: -Infinity, width: Infinity, height: Infinity };
const NOWHERE = { x: 0, y: 0, width: 0, height: 0 };

/** @param {Area} one @param {Area} other */
function touches(one, other) {
  if (one === EVERYWHERE) return true;
  return one.x < other.x + other.width && other.x < one.x + one.width && one.y < other.y + other.height && other.y < one.y + one.height;
}

/** @param {Area} outer @param {Area | undefined} inner */
function contains(outer, inner) {
  if (inner === undefined) return true;
  return outer.x <= inner.x && outer.y <= inner.y && outer.x + outer.width >= inner.x + inner.width && outer.y + outer.height >= inner.y + inner.height;
}

/** @param {Area} one @param {Area} other @returns {Area} */
function union(one, other) {
  const [x, y] = [Math.min(one.x, other.x), Math.min(one.y, other.y)];
  return { x, y, width: Math.max(one.x + one.width, other.x + other.width) - x, height: Math.max(one.y + one.height, other.y + other.height) - y };
}

/** Half a screen more on each side. @param {Area} area @returns {Area} */
function enlarged(area) {
  return { x: area.x - area.width / 2, y: area.y - area.height / 2, width: 2 * area.width, height: 2 * area.height };
}

/** @param {{model: Model, layout: Layout, nodes: Record<string, NodeRow>, absent: string, edges: Record<string, EdgeRow>, selection: Selection, select: (selection: Selection) => void, open: (item: Item) => void, toggle: (key: string) => void, lost: Set<string>, found: Set<string> | null, handle: {current: {center: (id: string) => void} | null}}} props */
export function Drawing({ model, layout, nodes, absent, edges, selection, select, open, toggle, lost, found, handle }) {
  const svg = useRef(/** @type {SVGSVGElement | null} */ (null));
  const scene = useRef(/** @type {SVGGElement | null} */ (null));
  const camera = useRef({ x: 0, y: 0, zoom: 1, fitted: true });

  const [view, setView] = useState(/** @type {View} */ ({ level: "near", area: NOWHERE }));
  const scheduled = useRef(0);
  const look = () => {
    scheduled.current = 0;
    const { zoom } = camera.current;
    const level = zoom < TINY ? "tiny" : zoom < FAR ? "far" : "near";
    const area = visible();
    setView((known) => (known.level === level && contains(known.area, area) ? known : { level, area: enlarged(area) }));
  };
  const apply = () => {
    const { x, y, zoom } = camera.current;
    scene.current?.setAttribute("transform", `translate(${x} ${y}) scale(${zoom})`);
    if (scheduled.current === 0) scheduled.current = requestAnimationFrame(look);
  };
  useEffect(() => () => cancelAnimationFrame(scheduled.current), []);
  const center = (/** @type {string} */ id) => {
    const [area, box] = [layout.boxes[id], svg.current?.getBoundingClientRect()];
    if (area === undefined || box === undefined) return;
    const zoom = Math.max(camera.current.zoom, 0.8);
    camera.current = { zoom, x: box.width / 2 - (area.x + area.width / 2) * zoom, y: box.height / 2 - (area.y + area.height / 2) * zoom, fitted: false };
    apply();
  };
  handle.current = { center };
  const fit = () => {
    const box = svg.current?.getBoundingClientRect();
    if (box === undefined || box.width === 0) return;
    const zoom = Math.min(1.4, (box.width - 2 * MARGIN) / layout.width, (box.height - 2 * MARGIN) / layout.height);
    camera.current = {
      zoom: Math.max(MIN_ZOOM, zoom),
      x: (box.width - layout.width * zoom) / 2,
      y: (box.height - layout.height * zoom) / 2,
      fitted: true,
    };
    apply();
  };
  const zoomAt = (/** @type {number} */ factor, /** @type {number} */ px, /** @type {number} */ py) => {
    const { x, y, zoom } = camera.current;
    const next = Math.min(MAX_ZOOM, Math.max(MIN_ZOOM, zoom * factor));
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

  const visible = () => {
    const box = svg.current?.getBoundingClientRect();
    const { x, y, zoom } = camera.current;
    return { x: -x / zoom, y: -y / zoom, width: (box?.width ?? 0) / zoom, height: (box?.height ?? 0) / zoom };
  };
  const keys = (/** @type {KeyboardEvent} */ event) => {
    /** @type {Record<string, [number, number]>} */
    const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const direction = directions[event.key];
    const chosen = model.items.find((one) => selection?.kind === "item" && one.id === selection.id);
    if (direction !== undefined) {
      const next = neighbour(model.items, layout, chosen, direction);
      if (next !== undefined) {
        select({ kind: "item", id: next.id });
        if (!contains(visible(), layout.boxes[next.id])) center(next.id);
      }
    } else if (event.key === "+" || event.key === "=") zoomMiddle(1.25);
    else if (event.key === "-") zoomMiddle(0.8);
    else if (event.key === "0") fit();
    else if (event.key === "Enter" && chosen !== undefined) open(chosen);
    else if (event.key === "c" && chosen !== undefined && !event.ctrlKey && !event.metaKey) {
      const module = modulesOf(chosen.label).findLast((one) => model.modules.has(one));
      if (module !== undefined) toggle(`module ${module}`);
      else if (model.grouped && chosen.kind !== "machine") toggle(`machine ${chosen.machine}`);
    }
    else if (event.key === "Escape") select(null);
    else return;
    event.preventDefault();
  };
  const background = (/** @type {MouseEvent} */ event) => {
    if (event.target === svg.current) select(null);
  };
  const chosenItem = selection?.kind === "item" ? selection.id : null;
  const drawn = model.items.length > DRAW_ALL ? view.area : EVERYWHERE;
  const arrows = model.bundles.flatMap((bundle) => {
    const [from, to] = [layout.boxes[bundle.from], layout.boxes[bundle.to]];
    const hidden = from === undefined || to === undefined || !touches(drawn, union(from, to));
    return hidden ? [] : [{ bundle, from, to, sum: total(bundle.edges, edges) }];
  });
  return html`<div class="drawing">
    <p class="hidden" role="status">${chosenItem === null ? "" : `${chosenItem}: ${worst(model.items.find((one) => one.id === chosenItem)?.nodes ?? [], nodes, absent)}`}</p>
    <svg ref=${svg} class=${view.level} tabindex="0" role="application" onKeyDown=${keys} onClick=${background}
      aria-label="Graph of the dataflow. Arrow keys select a node, Enter opens it, C collapses what is around it, plus and minus zoom, 0 shows all.">
      <defs>
        ${["flow", "drop", "idle", "chosen"].map((name) => html`<marker key=${name} id="arrow-${name}" class="arrow ${name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse"><path d="M0 1 7 4 0 7z" /></marker>`)}
      </defs>
      <g ref=${scene}>
        ${Object.entries(layout.groups).filter(([, area]) => touches(drawn, area)).map(
          ([name, area]) => html`<${Group} key=${name} name=${name} area=${area} lost=${lost.has(name)} level=${view.level} toggle=${toggle} />`,
        )}
        ${arrows.map(({ bundle, from, to, sum }) => {
          const chosen = (selection?.kind === "bundle" && selection.id === bundle.id) || bundle.from === chosenItem || bundle.to === chosenItem;
          return html`<${Arrow} key=${bundle.id} bundle=${bundle} from=${from} to=${to} points=${layout.arrows[bundle.id]} level=${view.level}
            ...${arrowProps(sum, chosen)} select=${select} />`;
        })}
        ${view.level === "near" && arrows.map(({ bundle, from, to, sum }) => sum.known &&
          html`<${Label} key=${`label ${bundle.id}`} bundle=${bundle} from=${from} to=${to} points=${layout.arrows[bundle.id]} ...${labelProps(sum)} select=${select} />`)}
        ${model.items.map((item) => {
          const area = layout.boxes[item.id];
          if (area === undefined || !touches(drawn, area)) return null;
          const isNode = item.kind === "node";
          return html`<${Node} key=${item.id} item=${item} area=${area} level=${view.level} row=${isNode && view.level === "near" ? nodes[item.id] : undefined}
            status=${worst(item.nodes, nodes, absent)} failed=${isNode ? 0 : item.nodes.filter((id) => nodes[id]?.status === "Failed").length}
            dim=${found !== null && !found.has(item.id)} chosen=${item.id === chosenItem} select=${select} open=${open} />`;
        })}
      </g>
    </svg>
    <div class="zoom">
      <button type="button" onClick=${() => zoomMiddle(1.25)} aria-label="Zoom in">+</button>
      <button type="button" onClick=${() => zoomMiddle(0.8)} aria-label="Zoom out">−</button>
      <button type="button" onClick=${fit} aria-label="Show all" title="Show all">⤢</button>
    </div>
  </div>`;
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

