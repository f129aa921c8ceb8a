/** What the graph shows: nodes, or collapsed modules and machines, and the arrows between them. */

/** @typedef {import("../types.js").Graph} Graph */
/** @typedef {import("../types.js").NodeRow} NodeRow */
/** @typedef {import("../types.js").EdgeRow} EdgeRow */

/**
 * A node, or all nodes of a collapsed machine or module; `name` is its label without the modules that are drawn around it,
 * `short` the width of the name alone.
 * @typedef {{id: string, label: string, name: string, kind: "node" | "module" | "machine", machine: string, nodes: string[], timers: string[], width: number, height: number, short: number}} Item
 * @typedef {{id: string, from: string, to: string, edges: string[], label: Size, back: boolean}} Bundle `label`: space for its text; `back`: it closes a cycle
 * @typedef {{width: number, height: number}} Size
 * @typedef {{labelSize: (edges: string[]) => Size, nodeWidth: number, timerWidth: number}} Space for the text beside an arrow, for the facts below a name, and for a timer beside them
 * @typedef {{items: Item[], bundles: Bundle[], grouped: boolean, machines: string[], modules: Map<string, number>}} Model `modules`: number of nodes in each, of all levels
 */

const HEIGHT = 46;
const MAX_NAME = 34;
/** Beside the name: the mark of the state, the number of restarts, and margins. */
const SIDES = 46;
/** In the overview. */
const SHORT_FONT = "600 12px system-ui, sans-serif";
const SHORT_SIDES = 20;
const MIN_SHORT = 104;
/** Names are drawn larger from afar. */
const SHORT_ROOM = 1.2;
const COLLAPSE_ABOVE = 150;
const NAME_FONT = "600 13px system-ui, sans-serif";
const pen = document.createElement("canvas").getContext("2d");

/** @param {string} text @param {string} [font] */
export function textWidth(text, font = "12px system-ui, sans-serif") {
  if (pen === null) return 8 * text.length;
  pen.font = font;
  return pen.measureText(text).width;
}

/**
 * The modules around a node or a module, the outermost first: `arm` and `arm.left` of `arm.left.driver`.
 * @param {string} name
 */
export function modulesOf(name) {
  const found = [];
  for (let end = name.indexOf("."); end > 0; end = name.indexOf(".", end + 1)) found.push(name.slice(0, end));
  return found;
}

/** Modules before those in them. @param {string[]} a @param {string[]} b @returns {number} */
function byPath(a, b) {
  const at = a.findIndex((part, index) => part !== b[index]);
  if (at < 0) return a.length - b.length;
  return at >= b.length ? 1 : a[at].localeCompare(b[at], undefined, { numeric: true });
}

/**
 * What is collapsed at first: all machines of a large dataflow, or the modules of all levels if it has one machine.
 * @param {Graph} graph
 * @returns {Set<string>}
 */
export function collapsedAtFirst(graph) {
  if (graph.nodes.length <= COLLAPSE_ABOVE) return new Set();
  const machines = new Set(graph.nodes.map((node) => node.machine ?? ""));
  if (machines.size > 1) return new Set([...machines].map((name) => `machine ${name}`));
  return new Set(graph.nodes.flatMap((node) => modulesOf(node.id)).map((name) => `module ${name}`));
}

/**
 * @param {Graph} graph
 * @param {(node: string) => string | undefined} machineOf
 * @param {Set<string>} collapsed keys such as `machine robot-1` and `module arm.left`
 * @param {Space} space
 * @returns {Model}
 */
export function model(graph, machineOf, collapsed, { labelSize, nodeWidth, timerWidth }) {
  /** @type {Map<string, Item>} */
  const items = new Map();
  /** @type {Map<string, string>} */
  const itemOf = new Map();
  const machines = new Set();
  /** @type {Map<string, number>} */
  const modules = new Map();
  for (const node of graph.nodes) {
    const machine = machineOf(node.id) ?? "";
    machines.add(machine);
    const around = modulesOf(node.id);
    for (const module of around) modules.set(module, (modules.get(module) ?? 0) + 1);
    const module = around.find((name) => collapsed.has(`module ${name}`));
    /** @type {[string, string, Item["kind"]]} */
    let [id, label, kind] = [node.id, node.id, "node"];
    if (collapsed.has(`machine ${machine}`)) [id, label, kind] = [`machine ${machine}`, machine, "machine"];
    else if (module !== undefined) [id, label, kind] = [`module ${module} ${machine}`, module, "module"];
    const timers = node.inputs.filter((one) => one.source.startsWith("dora/timer/")).map((one) => timer(one.source));
    const item = items.get(id);
    itemOf.set(node.id, id);
    if (item === undefined) {
      items.set(id, { id, label, name: label, kind, machine, nodes: [node.id], timers, width: 0, height: HEIGHT, short: 0 });
    } else {
      item.nodes.push(node.id);
    }
  }
  /** @type {Map<string, Bundle>} */
  const bundles = new Map();
  for (const node of graph.nodes) {
    for (const input of node.inputs) {
      const from = itemOf.get(producer(input.source, itemOf));
      const to = itemOf.get(node.id);
      if (from === undefined || to === undefined || (from === to && items.get(to)?.kind !== "node")) continue;
      const id = `${from}>${to}`;
      const edge = `${input.source}>${node.id}/${input.id}`;
      const bundle = bundles.get(id);
      if (bundle === undefined) bundles.set(id, { id, from, to, edges: [edge], label: { width: 0, height: 0 }, back: false });
      else bundle.edges.push(edge);
    }
  }
  const order = flowOrder([...items.values()], [...bundles.values()]);
  for (const bundle of bundles.values()) {
    bundle.label = labelSize(bundle.edges);
    bundle.back = (order.get(bundle.from) ?? 0) > (order.get(bundle.to) ?? 0);
  }
  for (const item of items.values()) {
    const around = item.kind === "machine" ? undefined : modulesOf(item.label).findLast((name) => (modules.get(name) ?? 0) > 1);
    const name = around === undefined ? item.label : item.label.slice(around.length + 1);
    item.name = name.length > MAX_NAME ? `…${name.slice(1 - MAX_NAME)}` : name;
    item.width = Math.ceil(Math.max(nodeWidth + (item.timers.length > 0 ? timerWidth : 0), textWidth(item.name, NAME_FONT) + SIDES));
    item.short = Math.ceil(Math.max(MIN_SHORT, SHORT_ROOM * textWidth(item.name, SHORT_FONT) + SHORT_SIDES));
  }
  return {
    items: [...items.values()],
    bundles: [...bundles.values()],
    grouped: machines.size > 1,
    machines: inFlow([...machines].sort(), [...items.values()], [...bundles.values()]),
    modules: new Map([...modules].filter(([, count]) => count > 1).sort(([a], [b]) => byPath(a.split("."), b.split(".")))),
  };
}

/**
 * The place of each item in the flow: sources first; cycles begin at items with timers, and then at those that are fed.
 * @param {Item[]} items
 * @param {Bundle[]} bundles
 * @returns {Map<string, number>}
 */
function flowOrder(items, bundles) {
  const order = new Map();
  const inputs = new Map(items.map((one) => [one.id, 0]));
  /** @type {Map<string, string[]>} */
  const readers = new Map(items.map((one) => [one.id, []]));
  for (const { from, to } of bundles) {
    if (from === to) continue;
    inputs.set(to, (inputs.get(to) ?? 0) + 1);
    readers.get(from)?.push(to);
  }
  const fed = new Set();
  const left = new Map(items.map((one) => [one.id, one]));
  const ready = items.filter((one) => inputs.get(one.id) === 0);
  const cost = (/** @type {Item} */ one) => (one.timers.length > 0 ? 0 : fed.has(one.id) ? 1e3 : 1e6) + (inputs.get(one.id) ?? 0);
  while (left.size > 0) {
    const next = ready.pop() ?? [...left.values()].reduce((best, one) => (cost(one) < cost(best) ? one : best));
    if (!left.delete(next.id)) continue;
    order.set(next.id, order.size);
    for (const id of readers.get(next.id) ?? []) {
      fed.add(id);
      const count = (inputs.get(id) ?? 0) - 1;
      inputs.set(id, count);
      const item = left.get(id);
      if (count === 0 && item !== undefined) ready.push(item);
    }
  }
  return order;
}

/**
 * Machines in the direction of the flow if it has one, else as given.
 * @param {string[]} machines
 * @param {Item[]} items
 * @param {Bundle[]} bundles
 */
function inFlow(machines, items, bundles) {
  const machineOf = new Map(items.map((one) => [one.id, one.machine]));
  /** @type {Map<string, Set<string>>} */
  const senders = new Map(machines.map((one) => [one, new Set()]));
  for (const { from, to } of bundles) senders.get(machineOf.get(to) ?? "")?.add(machineOf.get(from) ?? "");
  /** @type {string[]} */
  const ordered = [];
  while (ordered.length < machines.length) {
    const ready = (/** @type {string} */ one) => [...(senders.get(one) ?? [])].every((other) => other === one || ordered.includes(other));
    const next = machines.find((one) => !ordered.includes(one) && ready(one));
    if (next === undefined) return machines;
    ordered.push(next);
  }
  return ordered;
}

/**
 * Node of a source `node/output`; both may contain slashes.
 * @param {string} source
 * @param {Map<string, unknown>} known nodes by id
 */
export function producer(source, known) {
  for (let end = source.indexOf("/"); end > 0; end = source.indexOf("/", end + 1)) {
    if (known.has(source.slice(0, end))) return source.slice(0, end);
  }
  return "";
}

/**
 * Output of a source `node/output`.
 * @param {string} source
 * @param {Map<string, unknown>} known nodes by id
 */
export function outputOf(source, known) {
  return source.slice(producer(source, known).length + 1);
}

/** A text of at most `most` letters. @param {string} text @param {number} most */
export function cut(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** @param {string} source */
export function timer(source) {
  const [, , unit, count] = source.split("/");
  const units = /** @type {Record<string, string>} */ ({ secs: "s", millis: "ms", micros: "µs", nanos: "ns" });
  return `${count}\u202f${units[unit] ?? unit}`;
}

/** @type {string[]} Worst first. */
const ORDER = ["Failed", "Unknown", "Degraded", "Restarting", "Stopping", "Starting", "Running", "Stopped", "Finished"];

/** `absent`: status of nodes without a row. @param {string[]} nodes @param {Record<string, NodeRow>} rows @param {string} absent */
export function worst(nodes, rows, absent) {
  const found = new Set(nodes.map((id) => rows[id]?.status ?? absent));
  return ORDER.find((status) => found.has(status)) ?? absent;
}

/** @typedef {ReturnType<typeof total>} Sum */

/**
 * Sum of several edges; latencies are those of the slowest.
 * @param {string[]} keys
 * @param {Record<string, EdgeRow>} rows
 */
export function total(keys, rows) {
  const sum = { rate: 0, dropRate: 0, bytes: 0, queued: 0, p50Us: 0, blocked: false, known: false };
  for (const key of keys) {
    const edge = rows[key];
    if (edge === undefined) continue;
    sum.known ||= edge.rate !== undefined;
    sum.rate += edge.rate ?? 0;
    sum.dropRate += edge.dropRate ?? 0;
    sum.bytes += edge.bytes ?? 0;
    sum.queued += edge.queued;
    sum.p50Us = Math.max(sum.p50Us, edge.p50Us ?? 0);
    sum.blocked ||= edge.blocked ?? false;
  }
  return sum;
}
