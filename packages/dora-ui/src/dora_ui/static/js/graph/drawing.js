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

/** Zoom at which the smallest text, of 12 units, has 11 pixels. */
const NEAR = 11 / 12;
/** Zoom of each variant: the overview is shown below that of all texts, and names in it are drawn larger from afar. */
const ZOOMS = { detail: { least: NEAR, most: 2.5 }, overview: { least: 0.45, most: 1.3 } };
/** Sizes of names in the overview, so that they have 11 pixels from afar. */
const SIZES = [12, 13.5, 15, 17, 19.5, 22, 24.5];
/** Of graphs with more items, only those near the visible part are drawn. */
const DRAW_ALL = 300;
const FITTED_ZOOM = 1.2;
const MARGIN = 10;
const FAILED = "Failed";

/** @typedef {{center: (id: string) => void, zoom: (factor: number) => void, fit: () => void}} Handle */
/** @typedef {{size: number, area: Area}} View `size`: of names in the overview */

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
 * The alternative that is largest in a box, or of which the largest part is readable.
 * @param {Layout[]} layouts
 * @param {{width: number, height: number}} box
 */
function largest(layouts, box) {
  return layouts.reduce((one, other) => ((readable(other, box) - readable(one, box) || fitting(other, box) - fitting(one, box)) > 1e-3 ? other : one));
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
 * @param {{layouts: Layouts, itemLook: (item: Item) => ItemLook, arrowLook: (bundle: Bundle) => ArrowLook, selection: Selection, select: (selection: Selection) => void, open: (item: Item) => void, toggle: (key: string) => void, lost: Set<string>, found: Set<string> | null, handle: {current: Handle | null}}} props
 */
export function Drawing({ layouts, itemLook, arrowLook, selection, select, open, toggle, lost, found, handle }) {
  const svg = useRef(/** @type {SVGSVGElement | null} */ (null));
  const scene = useRef(/** @type {SVGGElement | null} */ (null));
  /** `fitted`: it follows the size of the window, until the viewer moves the drawing. */
  const camera = useRef({ x: 0, y: 0, zoom: 1, fitted: true });
  const [chosenLayout, setLayout] = useState(layouts.detail[0]);
  const { model } = layouts;
  const known = [...layouts.detail, ...layouts.overview].includes(chosenLayout);
  const layout = known ? chosenLayout : layouts.detail[0];
  const latest = useRef(layout);
  latest.current = layout;
  const variant = layouts.overview.includes(layout) ? "overview" : "detail";
  const show = (/** @type {Layout} */ next) => {
    latest.current = next;
    setLayout(next);
  };
  const [view, setView] = useState(/** @type {View} */ ({ size: SIZES[0], area: NOWHERE }));
  const scheduled = useRef(0);
  const look = () => {
    scheduled.current = 0;
    const size = SIZES.find((one) => one * camera.current.zoom >= 11 - 1e-6) ?? SIZES[SIZES.length - 1];
    const area = visible();
    setView((known) => (known.size === size && contains(known.area, area) ? known : { size, area: enlarged(area) }));
  };
  const apply = () => {
    const { x, y, zoom } = camera.current;
    scene.current?.setAttribute("transform", `translate(${x} ${y}) scale(${zoom})`);
    if (scheduled.current === 0) scheduled.current = requestAnimationFrame(look);
  };
  useEffect(() => () => cancelAnimationFrame(scheduled.current), []);
  const center = (/** @type {string} */ id) => {
    const [area, box] = [latest.current.boxes[id], svg.current?.getBoundingClientRect()];
    if (area === undefined || box === undefined) return;
    const zoom = Math.max(camera.current.zoom, NEAR);
    camera.current = { zoom, x: box.width / 2 - (area.x + area.width / 2) * zoom, y: box.height / 2 - (area.y + area.height / 2) * zoom, fitted: false };
    apply();
  };
  /** Show all: with all texts if there is room, else as an overview, and if that is too large what has failed or its sources. */
  const fit = () => {
    const box = svg.current?.getBoundingClientRect();
    if (box === undefined || box.width === 0) return;
    const detailed = largest(layouts.detail, box);
    const next = fitting(detailed, box) >= NEAR ? detailed : largest(layouts.overview, box);
    show(next);
    const zoom = Math.max(next === detailed ? NEAR : ZOOMS.overview.least, fitting(next, box));
    const fed = new Set(model.bundles.filter((one) => !one.back).map((one) => one.to));
    const sources = failed.length > 0 ? failed : model.items.filter((one) => !fed.has(one.id)).map((one) => one.id);
    const areas = (sources.length > 0 ? sources : model.items.map((one) => one.id)).map((id) => next.boxes[id]);
    const first = areas.reduce((one, other) => (other.x + other.y < one.x + one.y ? other : one), areas[0] ?? NOWHERE);
    camera.current = {
      ...{ zoom, fitted: true },
      x: begin(box.width, next.width * zoom, (first.x + first.width / 2) * zoom),
      y: begin(box.height, next.height * zoom, (first.y + first.height / 2) * zoom),
    };
    apply();
  };
  const zoomAt = (/** @type {number} */ factor, /** @type {number} */ px, /** @type {number} */ py) => {
    const { x, y, zoom } = camera.current;
    const { least, most } = ZOOMS[variant];
    const wanted = zoom * factor;
    if (variant === "overview" ? wanted > most : wanted < least) return change(px, py);
    const next = Math.min(most, Math.max(least, wanted));
    camera.current = { zoom: next, x: px - ((px - x) / zoom) * next, y: py - ((py - y) / zoom) * next, fitted: false };
    apply();
  };
  /** Show the other variant; the item that is nearest to a point stays there. */
  const change = (/** @type {number} */ px, /** @type {number} */ py) => {
    const box = svg.current?.getBoundingClientRect();
    if (box === undefined) return;
    const { x, y, zoom } = camera.current;
    const next = largest(variant === "detail" ? layouts.overview : layouts.detail, box);
    const distance = (/** @type {string} */ id) => {
      const area = latest.current.boxes[id];
      return Math.hypot(x + (area.x + area.width / 2) * zoom - px, y + (area.y + area.height / 2) * zoom - py);
    };
    const ids = Object.keys(next.boxes);
    const kept = ids.reduce((one, other) => (distance(other) < distance(one) ? other : one), ids[0]);
    if (kept === undefined) return;
    const [before, after] = [latest.current.boxes[kept], next.boxes[kept]];
    camera.current = {
      ...{ zoom: NEAR, fitted: false },
      x: x + (before.x + before.width / 2) * zoom - (after.x + after.width / 2) * NEAR,
      y: y + (before.y + before.height / 2) * zoom - (after.y + after.height / 2) * NEAR,
    };
    show(next);
    apply();
  };
  const zoomMiddle = (/** @type {number} */ factor) => {
    const box = svg.current?.getBoundingClientRect();
    if (box !== undefined) zoomAt(factor, box.width / 2, box.height / 2);
  };
  handle.current = { center, zoom: zoomMiddle, fit };
  const pan = (/** @type {number} */ dx, /** @type {number} */ dy) => {
    camera.current.x += dx;
    camera.current.y += dy;
    camera.current.fitted = false;
    apply();
  };
  const looks = new Map(model.items.map((item) => [item.id, itemLook(item)]));
  const failed = model.items.filter((one) => looks.get(one.id)?.status === FAILED).map((one) => one.id);
  const seen = useRef(new Set(failed));
  useEffect(() => {
    const first = failed.find((id) => !seen.current.has(id));
    seen.current = new Set(failed);
    if (first !== undefined && !contains(visible(), latest.current.boxes[first])) center(first);
  }, [failed.join("\n")]);
  useEffect(fit, [layouts]);
  const refit = useRef(fit);
  refit.current = fit;
  useEffect(() => {
    const element = svg.current;
    if (element === null) return undefined;
    const observer = new ResizeObserver(() => camera.current.fitted && refit.current());
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
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
  const bounds = useMemo(() => new Map(Object.entries(layout.routes).map(([id, { points }]) => [id, around(points)])), [layout]);
  const background = (/** @type {MouseEvent} */ event) => {
    if (event.target === svg.current) select(null);
  };
  const chosenItem = selection?.kind === "item" ? selection.id : null;
  /** Of names in the overview; 0: all texts are shown. */
  const size = variant === "overview" ? view.size : 0;
  const drawn = model.items.length > DRAW_ALL ? view.area : EVERYWHERE;
  const arrows = model.bundles.flatMap((bundle) => {
    const route = layout.routes[bundle.id];
    return route === undefined || !touches(drawn, bounds.get(bundle.id) ?? NOWHERE) ? [] : [{ bundle, route, look: arrowLook(bundle) }];
  });
  return html`<div class="drawing">
    <p class="hidden" role="status">${chosenItem === null ? "" : `${chosenItem}: ${looks.get(chosenItem)?.status ?? ""}`}</p>
    <svg ref=${svg} class=${variant} data-direction=${layout.direction.toLowerCase()} tabindex="0" role="application" onKeyDown=${keys} onClick=${background}
      aria-label="Graph of the dataflow. Arrow keys select a node, Enter opens it, C collapses what is around it, plus and minus zoom, 0 shows all.">
      <defs>
        ${["flow", "drop", "idle", "chosen"].map((name) => html`<marker key=${name} id="arrow-${name}" class="arrow ${name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse" orient="auto-start-reverse"><path d="M0 1 7 4 0 7z" /></marker>`)}
      </defs>
      <g ref=${scene}>
        ${layout.groups.filter(({ area }) => touches(drawn, area)).map(
          (group) => html`<${Group} key=${group.id} group=${group} lost=${group.key === `machine ${group.machine}` && lost.has(group.machine)} size=${size} toggle=${toggle} />`,
        )}
        ${arrows.map(({ bundle, route, look }) => {
          const chosen = (selection?.kind === "bundle" && selection.id === bundle.id) || bundle.from === chosenItem || bundle.to === chosenItem;
          return html`<${Arrow} key=${bundle.id} bundle=${bundle} route=${route} chosen=${chosen} ...${look} select=${select} />`;
        })}
        ${variant === "detail" && arrows.map(({ bundle, route, look }) => look.lines !== "" && route.label !== undefined &&
          html`<${Label} key=${`label ${bundle.id}`} bundle=${bundle} area=${route.label} ...${look} select=${select} />`)}
        ${model.items.map((item) => {
          const area = layout.boxes[item.id];
          if (area === undefined || !touches(drawn, area)) return null;
          return html`<${Node} key=${item.id} item=${item} area=${area} size=${size} ...${looks.get(item.id)}
            dim=${found !== null && !found.has(item.id)} chosen=${item.id === chosenItem} select=${select} open=${open} />`;
        })}
      </g>
    </svg>
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

