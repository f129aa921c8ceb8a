/** The drawing of the graph: pan, zoom, selection by pointer and keyboard. */

import { html } from "htm/preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { usePointer } from "../pointer.js";
import { modulesOf } from "./model.js";
import { Arrow, Group, Label, Node } from "./shapes.js";

/** @typedef {import("./model.js").Item} Item */
/** @typedef {import("./model.js").Bundle} Bundle */
/** @typedef {import("./layout.js").Layout} Layout */
/** @typedef {import("./layout.js").Layouts} Layouts */
/** @typedef {import("./layout.js").Area} Area */
/** @typedef {import("./shapes.js").ItemLook} ItemLook */
/** @typedef {import("./shapes.js").ArrowLook} ArrowLook */
/** @typedef {{kind: "item" | "bundle", id: string} | null} Selection */

/** Zoom at which the smallest text, of 12 units, has 11 pixels; below it only names are shown, of 22 units. */
const NEAR = 11 / 12;
const FAR = 11 / 22;
/** Of graphs with more items, only those near the visible part are drawn. */
const DRAW_ALL = 300;
const MIN_ZOOM = 0.02;
const FITTED_ZOOM = 1.2;
const MAX_ZOOM = 2.5;
const MARGIN = 16;

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

/** What surrounds the points of an arrow. @param {import("./layout.js").Point[]} points @returns {Area} */
function around(points) {
  const [xs, ys] = [points.map((one) => one.x), points.map((one) => one.y)];
  const [x, y] = [Math.min(...xs), Math.min(...ys)];
  return { x, y, width: Math.max(...xs) - x + 1, height: Math.max(...ys) - y + 1 };
}

/** Half a screen more on each side. @param {Area} area @returns {Area} */
function enlarged(area) {
  return { x: area.x - area.width / 2, y: area.y - area.height / 2, width: 2 * area.width, height: 2 * area.height };
}

/**
 * Zoom at which a layout fits into a box.
 * @param {Layout} layout
 * @param {{width: number, height: number}} box
 */
function fitting(layout, box) {
  return Math.min(FITTED_ZOOM, (box.width - 2 * MARGIN) / layout.width, (box.height - 2 * MARGIN) / layout.height);
}

/**
 * Share of a layout that is visible with readable text.
 * @param {Layout} layout
 * @param {{width: number, height: number}} box
 */
function readable(layout, box) {
  return Math.min(1, (box.width - 2 * MARGIN) / layout.width / NEAR) * Math.min(1, (box.height - 2 * MARGIN) / layout.height / NEAR);
}

/**
 * Where a layout begins in a direction: in the middle if it fits, else with `first` in the middle as far as no space
 * is left beside the layout.
 * @param {number} room
 * @param {number} size
 * @param {number} first
 */
function begin(room, size, first) {
  if (size <= room - 2 * MARGIN) return (room - size) / 2;
  return Math.min(MARGIN, Math.max(room - MARGIN - size, room / 2 - first));
}

/**
 * `itemLook` and `arrowLook` return how items and arrows look.
 * @param {{layouts: Layouts, itemLook: (item: Item) => ItemLook, arrowLook: (bundle: Bundle) => ArrowLook, selection: Selection, select: (selection: Selection) => void, open: (item: Item) => void, toggle: (key: string) => void, lost: Set<string>, found: Set<string> | null, handle: {current: {center: (id: string) => void} | null}}} props
 */
export function Drawing({ layouts, itemLook, arrowLook, selection, select, open, toggle, lost, found, handle }) {
  const svg = useRef(/** @type {SVGSVGElement | null} */ (null));
  const scene = useRef(/** @type {SVGGElement | null} */ (null));
  /** `fitted`: what follows the size of the window; null after the viewer has moved the drawing. */
  const camera = useRef({ x: 0, y: 0, zoom: 1, fitted: /** @type {"text" | "all" | null} */ ("text") });
  const [direction, setDirection] = useState(/** @type {"right" | "down"} */ ("right"));
  const [layout, model] = [layouts[direction], layouts.model];
  const [view, setView] = useState(/** @type {View} */ ({ level: "near", area: NOWHERE }));
  const scheduled = useRef(0);
  const look = () => {
    scheduled.current = 0;
    const { zoom } = camera.current;
    const level = zoom < FAR - 1e-6 ? "tiny" : zoom < NEAR - 1e-6 ? "far" : "near";
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
    const zoom = Math.max(camera.current.zoom, NEAR);
    camera.current = { zoom, x: box.width / 2 - (area.x + area.width / 2) * zoom, y: box.height / 2 - (area.y + area.height / 2) * zoom, fitted: null };
    apply();
  };
  handle.current = { center };
  /** Show the beginning with readable text in the direction that fits best, or all. */
  const fit = (/** @type {"text" | "all"} */ fitted) => {
    const box = svg.current?.getBoundingClientRect();
    if (box === undefined || box.width === 0) return;
    camera.current.fitted = fitted;
    const { right, down } = layouts;
    const best = (readable(down, box) - readable(right, box) || fitting(down, box) - fitting(right, box)) > 0 ? "down" : "right";
    if (best !== direction) {
      setDirection(best); // fits again
      return;
    }
    const zoom = Math.max(fitted === "text" ? NEAR : MIN_ZOOM, fitting(layout, box));
    const fed = new Set(model.bundles.map((one) => one.to));
    const sources = model.items.filter((one) => !fed.has(one.id));
    const areas = (sources.length > 0 ? sources : model.items).map((one) => layout.boxes[one.id]);
    const first = areas.reduce((one, other) => (other.x + other.y < one.x + one.y ? other : one), areas[0] ?? NOWHERE);
    camera.current = {
      ...{ zoom, fitted },
      x: begin(box.width, layout.width * zoom, (first.x + first.width / 2) * zoom),
      y: begin(box.height, layout.height * zoom, (first.y + first.height / 2) * zoom),
    };
    apply();
  };
  const zoomAt = (/** @type {number} */ factor, /** @type {number} */ px, /** @type {number} */ py) => {
    const { x, y, zoom } = camera.current;
    const next = Math.min(MAX_ZOOM, Math.max(MIN_ZOOM, zoom * factor));
    camera.current = { zoom: next, x: px - ((px - x) / zoom) * next, y: py - ((py - y) / zoom) * next, fitted: null };
    apply();
  };
  const zoomMiddle = (/** @type {number} */ factor) => {
    const box = svg.current?.getBoundingClientRect();
    if (box !== undefined) zoomAt(factor, box.width / 2, box.height / 2);
  };
  const pan = (/** @type {number} */ dx, /** @type {number} */ dy) => {
    camera.current.x += dx;
    camera.current.y += dy;
    camera.current.fitted = null;
    apply();
  };
  useEffect(() => fit("text"), [layouts]);
  useEffect(() => fit(camera.current.fitted ?? "text"), [direction]);
  useEffect(() => {
    const element = svg.current;
    if (element === null) return undefined;
    const observer = new ResizeObserver(() => camera.current.fitted !== null && fit(camera.current.fitted));
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
    else if (event.key === "0") fit("all");
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
  const bounds = useMemo(() => new Map(Object.entries(layout.routes).map(([id, { points }]) => [id, around(points)])), [layout]);
  const background = (/** @type {MouseEvent} */ event) => {
    if (event.target === svg.current) select(null);
  };
  const chosenItem = selection?.kind === "item" ? selection.id : null;
  const drawn = model.items.length > DRAW_ALL ? view.area : EVERYWHERE;
  const looks = new Map(model.items.map((item) => [item.id, itemLook(item)]));
  const arrows = model.bundles.flatMap((bundle) => {
    const route = layout.routes[bundle.id];
    return route === undefined || !touches(drawn, bounds.get(bundle.id) ?? NOWHERE) ? [] : [{ bundle, route, look: arrowLook(bundle) }];
  });
  return html`<div class="drawing">
    <p class="hidden" role="status">${chosenItem === null ? "" : `${chosenItem}: ${looks.get(chosenItem)?.status ?? ""}`}</p>
    <svg ref=${svg} class=${view.level} data-direction=${direction} tabindex="0" role="application" onKeyDown=${keys} onClick=${background}
      aria-label="Graph of the dataflow. Arrow keys select a node, Enter opens it, C collapses what is around it, plus and minus zoom, 0 shows all.">
      <defs>
        ${["flow", "drop", "idle", "chosen"].map((name) => html`<marker key=${name} id="arrow-${name}" class="arrow ${name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse" orient="auto-start-reverse"><path d="M0 1 7 4 0 7z" /></marker>`)}
      </defs>
      <g ref=${scene}>
        ${layout.groups.filter(({ area }) => touches(drawn, area)).map(
          (group) => html`<${Group} key=${group.id} group=${group} lost=${group.key === `machine ${group.machine}` && lost.has(group.machine)} level=${view.level} toggle=${toggle} />`,
        )}
        ${arrows.map(({ bundle, route, look }) => {
          const chosen = (selection?.kind === "bundle" && selection.id === bundle.id) || bundle.from === chosenItem || bundle.to === chosenItem;
          return html`<${Arrow} key=${bundle.id} bundle=${bundle} route=${route} level=${view.level} chosen=${chosen} ...${look} select=${select} />`;
        })}
        ${view.level === "near" && arrows.map(({ bundle, route, look }) => look.lines !== "" && route.label !== undefined &&
          html`<${Label} key=${`label ${bundle.id}`} bundle=${bundle} area=${route.label} ...${look} select=${select} />`)}
        ${model.items.map((item) => {
          const area = layout.boxes[item.id];
          if (area === undefined || !touches(drawn, area)) return null;
          return html`<${Node} key=${item.id} item=${item} area=${area} level=${view.level} ...${looks.get(item.id)}
            dim=${found !== null && !found.has(item.id)} chosen=${item.id === chosenItem} select=${select} open=${open} />`;
        })}
      </g>
    </svg>
    <div class="zoom">
      <button type="button" onClick=${() => zoomMiddle(1.25)} aria-label="Zoom in">+</button>
      <button type="button" onClick=${() => zoomMiddle(0.8)} aria-label="Zoom out">−</button>
      <button type="button" onClick=${() => fit("all")} aria-label="Show all" title="Show all">⤢</button>
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

