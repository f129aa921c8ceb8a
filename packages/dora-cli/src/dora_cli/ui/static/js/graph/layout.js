/** Positions of nodes, groups, arrows and labels, by the layout engine ELK in a worker. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { modulesOf } from "./model.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Item} Item */

/**
 * @typedef {{x: number, y: number}} Point
 * @typedef {{x: number, y: number, width: number, height: number}} Area
 * @typedef {{id: string, key: string, title: string, machine: string, area: Area}} Group a machine, or a module on a machine; `key` as in `collapsed`
 * @typedef {{points: Point[], label: Area | undefined}} Route
 * @typedef {{boxes: Record<string, Area>, groups: Group[], routes: Record<string, Route>, width: number, height: number}} Layout
 * @typedef {{right: Layout, down: Layout, model: Model}} Layouts
 */

/** Up to this number of nodes, a graph is arranged in less space; above, in less time, and with more crossings. */
const COMPACT_TO = 60;
const QUICK_ABOVE = 200;
const TITLE = 18;

const OPTIONS = {
  "elk.algorithm": "layered",
  "elk.hierarchyHandling": "INCLUDE_CHILDREN",
  "elk.edgeRouting": "ORTHOGONAL",
  "elk.json.shapeCoords": "ROOT",
  "elk.json.edgeCoords": "ROOT",
  "elk.spacing.nodeNode": "24",
  "elk.spacing.edgeNode": "14",
  "elk.spacing.edgeEdge": "10",
  "elk.spacing.edgeLabel": "3",
  "elk.spacing.labelLabel": "4",
  "elk.spacing.componentComponent": "32",
  "elk.layered.spacing.nodeNodeBetweenLayers": "28",
  "elk.layered.spacing.edgeNodeBetweenLayers": "12",
  "elk.layered.spacing.edgeEdgeBetweenLayers": "10",
};

const COMPACT = { "elk.layered.nodePlacement.strategy": "NETWORK_SIMPLEX" };
const QUICK = { "elk.layered.thoroughness": "1", "elk.layered.crossingMinimization.greedySwitch.type": "OFF" };

/**
 * The graph as ELK reads it: machines and modules are nodes with children.
 * @param {Model} model
 * @param {"RIGHT" | "DOWN"} direction
 */
export function elkGraph(model, direction) {
  const size = model.items.length;
  /** @type {any} */
  const root = {
    id: "root",
    children: [],
    edges: model.bundles.map((one) => ({ id: `edge ${one.id}`, sources: [one.from], targets: [one.to], labels: [{ text: one.id, ...one.label }] })),
    layoutOptions: { ...OPTIONS, ...(size > QUICK_ABOVE ? QUICK : size > COMPACT_TO ? {} : COMPACT), "elk.direction": direction },
  };
  /** @type {Map<string, any>} */
  const groups = new Map();
  for (const item of model.items) {
    let parent = root;
    for (const group of groupsOf(model, item)) {
      const id = `group ${group.machine} ${group.key}`;
      if (!groups.has(id)) {
        groups.set(id, {
          ...{ id, ...group, children: [] },
          labels: [{ text: group.title, width: 8 * group.title.length + 24, height: TITLE }],
          layoutOptions: {
            "elk.padding": "[top=8,left=14,bottom=14,right=14]",
            "elk.nodeLabels.placement": "INSIDE V_TOP H_LEFT",
            "elk.nodeSize.constraints": "NODE_LABELS",
          },
        });
        parent.children.push(groups.get(id));
      }
      parent = groups.get(id);
    }
    parent.children.push({ id: item.id, width: item.width, height: item.height });
  }
  return root;
}

/** What is drawn around an item, the outermost first. @param {Model} model @param {Item} item */
function groupsOf(model, item) {
  const { machine } = item;
  const around = item.kind === "machine" ? [] : modulesOf(item.label).filter((one) => model.modules.has(one));
  return [
    ...(model.grouped && item.kind !== "machine" && machine !== "" ? [{ key: `machine ${machine}`, title: machine, machine }] : []),
    ...around.map((one, depth) => ({ key: `module ${one}`, title: depth === 0 ? one : one.slice(around[depth - 1].length + 1), machine })),
  ];
}

/**
 * @param {any} root as ELK returns it
 * @returns {Layout}
 */
export function fromElk(root) {
  /** @type {Layout} */
  const layout = { boxes: {}, groups: [], routes: {}, width: root.width, height: root.height };
  const visit = (/** @type {any} */ node) => {
    for (const child of node.children ?? []) {
      const { id, key, title, machine, x, y, width, height } = child;
      if (key === undefined) layout.boxes[id] = { x, y, width, height };
      else layout.groups.push({ id, key, title, machine, area: { x, y, width, height } });
      visit(child);
    }
  };
  visit(root);
  for (const edge of root.edges) {
    const [section, label] = [edge.sections?.[0], edge.labels[0]];
    if (section === undefined) continue;
    layout.routes[edge.id.slice("edge ".length)] = {
      points: [section.startPoint, ...(section.bendPoints ?? []), section.endPoint],
      label: label && { x: label.x, y: label.y, width: label.width, height: label.height },
    };
  }
  return layout;
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

  /** @param {Model} model @param {"RIGHT" | "DOWN"} direction @returns {Promise<Layout>} */
  async layout(model, direction) {
    const worker = await this.worker;
    const id = (this.last += 1);
    const root = await new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      worker.postMessage({ id, cmd: "layout", graph: elkGraph(model, direction), layoutOptions: {}, options: {} });
    });
    return fromElk(root);
  }
}

/**
 * Lay out the model in both directions; returns the last layouts, with their model, until the next are ready.
 * @param {Model} model
 * @returns {{layouts: Layouts | null, problem: string}}
 */
export function useLayouts(model) {
  const [layouts, setLayouts] = useState(/** @type {Layouts | null} */ (null));
  const [problem, setProblem] = useState("");
  const engine = useRef(/** @type {Engine | null} */ (null));
  const shape = useMemo(() => JSON.stringify([elkGraph(model, "RIGHT"), model.bundles.map((one) => one.edges)]), [model]);
  useEffect(() => () => void engine.current?.end(), []);
  useEffect(() => {
    let current = true;
    engine.current ??= new Engine();
    const both = /** @type {const} */ (["RIGHT", "DOWN"]).map((direction) => /** @type {Engine} */ (engine.current).layout(model, direction));
    Promise.all(both).then(
      ([right, down]) => current && (setLayouts({ right, down, model }), setProblem("")),
      (error) => current && setProblem(`The graph cannot be arranged: ${error.message}`),
    );
    return () => {
      current = false;
    };
  }, [shape]);
  return { layouts, problem };
}
