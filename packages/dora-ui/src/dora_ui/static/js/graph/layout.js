/** Positions of nodes, groups, arrows and labels, by the layout engine ELK in a worker. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { modulesOf } from "./model.js";
import { arrangements } from "./packing.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Item} Item */
/** @typedef {import("./packing.js").Part} Part */

/**
 * @typedef {{x: number, y: number}} Point
 * @typedef {{x: number, y: number, width: number, height: number}} Area
 * @typedef {{id: string, key: string, title: string, machine: string, area: Area}} Group a machine, or a module on a machine; `key` as in `collapsed`
 * @typedef {{points: Point[], label: Area | undefined}} Route
 * @typedef {"RIGHT" | "DOWN"} Direction
 * @typedef {"detail" | "overview"} Variant with all texts, or as small as names allow
 * @typedef {{boxes: Record<string, Area>, groups: Group[], routes: Record<string, Route>, width: number, height: number, direction: Direction}} Layout
 * @typedef {{detail: Layout[], overview: Layout[], model: Model}} Layouts alternatives of each variant
 */

/** Up to this number of nodes, a graph is arranged in less space; above, in less time, and with more crossings. */
const COMPACT_TO = 60;
const QUICK_ABOVE = 200;
/** Height of titles; those of the overview are drawn larger from afar. */
const TITLE = { detail: 18, overview: 24 };
const OVERVIEW_HEIGHT = 22;

const OPTIONS = {
  "elk.algorithm": "layered",
  "elk.hierarchyHandling": "INCLUDE_CHILDREN",
  "elk.edgeRouting": "ORTHOGONAL",
  "elk.json.shapeCoords": "ROOT",
  "elk.json.edgeCoords": "ROOT",
};
const SPACING = {
  detail: {
    "elk.spacing.nodeNode": "18",
    "elk.spacing.edgeNode": "12",
    "elk.spacing.edgeEdge": "10",
    "elk.spacing.edgeLabel": "3",
    "elk.spacing.labelLabel": "4",
    "elk.spacing.portPort": "12",
    "elk.spacing.componentComponent": "32",
    "elk.layered.spacing.nodeNodeBetweenLayers": "18",
    "elk.layered.spacing.edgeNodeBetweenLayers": "9",
    "elk.layered.spacing.edgeEdgeBetweenLayers": "8",
  },
  overview: {
    "elk.spacing.nodeNode": "8",
    "elk.spacing.edgeNode": "6",
    "elk.spacing.edgeEdge": "5",
    "elk.spacing.portPort": "6",
    "elk.spacing.componentComponent": "12",
    "elk.layered.spacing.nodeNodeBetweenLayers": "12",
    "elk.layered.spacing.edgeNodeBetweenLayers": "6",
    "elk.layered.spacing.edgeEdgeBetweenLayers": "5",
  },
};
const PADDING = { detail: "[top=8,left=12,bottom=12,right=12]", overview: "[top=4,left=6,bottom=6,right=6]" };

const COMPACT = { "elk.layered.nodePlacement.strategy": "NETWORK_SIMPLEX" };
const QUICK = { "elk.layered.thoroughness": "1", "elk.layered.crossingMinimization.greedySwitch.type": "OFF" };

/** @typedef {{machine: string, items: Item[], graph: any}} Wanted a machine as ELK reads it */

/**
 * The graphs of all machines, or of everything if there is one machine.
 * @param {Model} model
 * @param {Direction} direction
 * @param {Variant} variant
 * @returns {Wanted[]}
 */
export function elkGraphs(model, direction, variant) {
  const machines = model.grouped ? model.machines : [""];
  return machines.map((machine) => {
    const items = model.grouped ? model.items.filter((one) => one.machine === machine) : model.items;
    return { machine, items, graph: elkGraph(model, items, direction, variant) };
  });
}

/**
 * A machine with its nodes and modules as nodes with children; arrows to and from other machines end at its edge.
 * @param {Model} model
 * @param {Item[]} items
 * @param {Direction} direction
 * @param {Variant} variant
 */
function elkGraph(model, items, direction, variant) {
  const ids = new Set(items.map((one) => one.id));
  // ELK cannot place in this way with ports at the sides of the direction.
  const isSimple = direction === "DOWN" || model.bundles.every((one) => ids.has(one.from) === ids.has(one.to));
  const quality = items.length > QUICK_ABOVE ? QUICK : items.length > COMPACT_TO || !isSimple ? {} : COMPACT;
  /** @type {any} */
  const root = { id: "root", children: [], edges: [], layoutOptions: { ...OPTIONS, ...SPACING[variant], ...quality, "elk.direction": direction } };
  /** The machine: a frame without text or padding around everything if it is not drawn. @type {any} */
  const frame = { id: "frame", children: [], ports: [], layoutOptions: { "elk.portConstraints": "FIXED_SIDE", "elk.padding": "[top=0,left=0,bottom=0,right=0]" } };
  root.children.push(frame);
  const [first] = items;
  if (model.grouped && first.kind !== "machine" && first.machine !== "") titled(frame, first.machine, variant);
  for (const { id, from, to, label, back } of model.bundles) {
    const labels = variant === "detail" ? [{ text: id, ...label }] : [];
    if (ids.has(from) && ids.has(to)) root.edges.push({ id: `edge ${id}`, sources: [back ? to : from], targets: [back ? from : to], labels });
    else if (ids.has(from)) root.edges.push({ id: `leaving ${id}`, sources: [from], targets: [port(frame, `leave ${id}`, "SOUTH")] });
    else if (ids.has(to)) root.edges.push({ id: `entering ${id}`, sources: [port(frame, `enter ${id}`, "NORTH")], targets: [to] });
  }
  /** @type {Map<string, any>} */
  const groups = new Map();
  for (const item of items) {
    let parent = frame;
    for (const group of groupsOf(model, item)) {
      const id = `group ${group.machine} ${group.key}`;
      if (!groups.has(id)) {
        groups.set(id, titled({ id, ...group, children: [] }, group.title, variant));
        parent.children.push(groups.get(id));
      }
      parent = groups.get(id);
    }
    const size = variant === "detail" ? { width: item.width, height: item.height } : { width: item.short, height: OVERVIEW_HEIGHT };
    parent.children.push({ id: item.id, ...size });
  }
  return root;
}

/** @param {any} node @param {string} title @param {Variant} variant */
function titled(node, title, variant) {
  node.labels = [{ text: title, width: 8 * title.length + (variant === "detail" ? 24 : 8), height: TITLE[variant] }];
  node.layoutOptions = {
    ...node.layoutOptions,
    "elk.padding": PADDING[variant],
    "elk.nodeLabels.placement": "INSIDE V_TOP H_LEFT",
    "elk.nodeSize.constraints": "NODE_LABELS",
  };
  return node;
}

/** @param {any} frame @param {string} id @param {"NORTH" | "SOUTH"} side */
function port(frame, id, side) {
  frame.ports.push({ id, width: 0, height: 0, layoutOptions: { "elk.port.side": side } });
  return id;
}

/** Modules that are drawn around an item, the outermost first. @param {Model} model @param {Item} item */
function groupsOf(model, { kind, label, machine }) {
  const around = kind === "machine" ? [] : modulesOf(label).filter((one) => model.modules.has(one));
  return around.map((one, depth) => ({ key: `module ${one}`, title: depth === 0 ? one : one.slice(around[depth - 1].length + 1), machine }));
}

/**
 * @param {any} root as ELK returns it
 * @param {Model} model
 * @param {Wanted} wanted
 * @param {Direction} direction
 * @returns {Part}
 */
export function fromElk(root, model, { machine, items }, direction) {
  const [frame] = root.children;
  /** @type {Part} */
  const part = { boxes: {}, groups: [], routes: {}, leaving: {}, entering: {}, width: frame.width, height: frame.height, direction };
  const here = (/** @type {Point} */ one) => ({ x: one.x - frame.x, y: one.y - frame.y });
  const { width, height } = frame;
  if (model.grouped && items[0].kind !== "machine" && machine !== "") {
    part.groups.push({ id: `group ${machine}`, key: `machine ${machine}`, title: machine, machine, area: { x: 0, y: 0, width, height } });
  }
  const visit = (/** @type {any} */ node) => {
    for (const child of node.children ?? []) {
      const { id, key, title, width, height } = child;
      const area = { ...here(child), width, height };
      if (key === undefined) part.boxes[id] = area;
      else part.groups.push({ id, key, title, machine: child.machine, area });
      visit(child);
    }
  };
  visit(frame);
  const back = new Set(model.bundles.flatMap((one) => (one.back ? [one.id] : [])));
  for (const edge of root.edges) {
    const [section, label] = [edge.sections?.[0], edge.labels?.[0]];
    if (section === undefined) continue;
    const [kind, id] = [edge.id.slice(0, edge.id.indexOf(" ")), edge.id.slice(edge.id.indexOf(" ") + 1)];
    const points = [section.startPoint, ...(section.bendPoints ?? []), section.endPoint].map(here);
    if (kind === "leaving") part.leaving[id] = points;
    else if (kind === "entering") part.entering[id] = points;
    else part.routes[id] = { points: back.has(id) ? points.reverse() : points, label: label && { ...here(label), width: label.width, height: label.height } };
  }
  return part;
}

/** The script of the worker; in the page of `dora graph`, a URL that contains it, compressed since browsers limit URLs to 2 MB. */
async function workerUrl() {
  const url = import.meta.resolve("elkjs-worker");
  if (!url.startsWith("data:")) return url;
  const script = (await fetch(url)).body?.pipeThrough(new DecompressionStream("gzip"));
  return URL.createObjectURL(await new Response(script, { headers: { "Content-Type": "text/javascript" } }).blob());
}

/** The worker of ELK, which arranges one graph after the other. */
class Engine {
  constructor() {
    this.last = 0;
    /** @type {Map<number, {resolve: (root: any) => void, reject: (error: Error) => void}>} */
    this.waiting = new Map();
    this.ended = false;
    this.worker = this.#start();
  }

  async #start() {
    const worker = new Worker(await workerUrl());
    worker.onmessage = ({ data }) => {
      const found = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.error) found?.reject(new Error(data.error.message ?? String(data.error)));
      else found?.resolve(data.data);
    };
    worker.onerror = (event) => {
      for (const { reject } of this.waiting.values()) reject(new Error(event.message || "its script cannot be loaded"));
    };
    worker.postMessage({ id: 0, cmd: "register", algorithms: ["layered"] });
    if (this.ended) worker.terminate();
    return worker;
  }

  async end() {
    this.ended = true;
    (await this.worker).terminate();
  }

  /** @param {any} graph @returns {Promise<any>} the graph with positions */
  async layout(graph) {
    const worker = await this.worker;
    const id = (this.last += 1);
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      worker.postMessage({ id, cmd: "layout", graph, layoutOptions: {}, options: {} });
    });
  }
}

/** @type {{variant: Variant, direction: Direction}[]} */
const KINDS = [
  { variant: "detail", direction: "RIGHT" },
  { variant: "detail", direction: "DOWN" },
  { variant: "overview", direction: "RIGHT" },
  { variant: "overview", direction: "DOWN" },
];

/** @param {Engine} engine @param {Model} model @param {{direction: Direction, variant: Variant, graphs: Wanted[]}} wanted */
async function alternatives(engine, model, { direction, variant, graphs }) {
  const parts = await Promise.all(graphs.map(async (one) => fromElk(await engine.layout(one.graph), model, one, direction)));
  const machines = new Map(model.items.map((one) => [one.id, one.machine]));
  const between = model.bundles.filter((one) => model.grouped && machines.get(one.from) !== machines.get(one.to));
  return { variant, layouts: arrangements(parts, between, variant === "detail") };
}

/**
 * Lay out the model in all ways; returns the last layouts, with their model, until the next are ready.
 * @param {Model} model
 * @returns {{layouts: Layouts | null, problem: string}}
 */
export function useLayouts(model) {
  const [layouts, setLayouts] = useState(/** @type {Layouts | null} */ (null));
  const [problem, setProblem] = useState("");
  const engine = useRef(/** @type {Engine | null} */ (null));
  const wanted = useMemo(() => KINDS.map((kind) => ({ ...kind, graphs: elkGraphs(model, kind.direction, kind.variant) })), [model]);
  const shape = useMemo(() => JSON.stringify([wanted, model.bundles]), [wanted]);
  useEffect(() => () => void engine.current?.end(), []);
  useEffect(() => {
    let current = true;
    const started = (engine.current ??= new Engine());
    Promise.all(wanted.map((one) => alternatives(started, model, one))).then(
      (found) => {
        if (!current) return;
        const of = (/** @type {Variant} */ variant) => found.flatMap((one) => (one.variant === variant ? one.layouts : []));
        setLayouts({ detail: of("detail"), overview: of("overview"), model });
        setProblem("");
      },
      (error) => current && setProblem(`The graph cannot be arranged: ${error.message}`),
    );
    return () => {
      current = false;
    };
  }, [shape]);
  return { layouts, problem };
}
