/** The state of the cluster on this page, its changes, and the recent past of nodes and machines. */

import { useEffect, useState } from "preact/hooks";

import { Live } from "./live.js";
import { now, setClock } from "./time.js";

/** @typedef {import("./types.js").State} State */

const HISTORY_SECONDS = 300;
export const LOAD_SECONDS = 60;

/** @type {State} */
const EMPTY = {
  source: { address: "", readOnly: true },
  machines: {},
  links: {},
  dataflows: {},
  nodes: {},
  edges: {},
  problems: [],
};

/**
 * Apply a JSON Merge Patch (RFC 7396); unchanged parts stay the same objects.
 * @param {any} target
 * @param {any} patch
 * @returns {any}
 */
export function merge(target, patch) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  const known = target !== null && typeof target === "object" && !Array.isArray(target);
  const result = known ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (key === "__proto__") continue;
    if (value === null) delete result[key];
    else result[key] = merge(result[key], value);
  }
  return result;
}

/** Values of one series over the last minutes; times in seconds. */
export class Series {
  /** @param {number} columns */
  constructor(columns) {
    /** @type {number[]} */
    this.times = [];
    /** @type {(number | null)[][]} */
    this.values = Array.from({ length: columns }, () => []);
  }

  /**
   * @param {number} time
   * @param {(number | undefined)[]} values
   */
  push(time, values) {
    if (time < this.times[this.times.length - 1]) {
      // The clock was set back.
      this.times = [];
      this.values = this.values.map(() => []);
    }
    this.times.push(time);
    values.forEach((value, index) => this.values[index].push(value ?? null));
    while (this.times.length > 2 * HISTORY_SECONDS || this.times[0] < time - HISTORY_SECONDS) {
      this.times.shift();
      for (const column of this.values) column.shift();
    }
  }
}

/**
 * Add the present values of rows to their series; those of other rows are removed.
 * @template Row
 * @param {Map<string, Series>} history
 * @param {Record<string, Row>} rows
 * @param {(row: Row) => (number | undefined)[]} values
 */
function append(history, rows, values) {
  for (const key of history.keys()) if (rows[key] === undefined) history.delete(key);
  for (const [key, row] of Object.entries(rows)) {
    const present = values(row);
    let series = history.get(key);
    if (series === undefined) history.set(key, (series = new Series(present.length)));
    series.push(now(), present);
  }
}

export class Store {
  /** @param {Live} live */
  constructor(live) {
    this.live = live;
    this.state = EMPTY;
    this.loaded = false;
    /** Whether the state is the present one: false from a new connection until its first state. */
    this.current = false;
    /** @type {Set<() => void>} */
    this.listeners = new Set();
    /** @type {Map<string, Series>} CPU and memory by node, of the dataflow that is shown. */
    this.history = new Map();
    /** @type {Map<string, Series>} Messages, drops and latency p50 by edge, of the dataflow that is shown. */
    this.edgeHistory = new Map();
    /** @type {Map<string, (number | null)[]>} CPU of each machine, once a second. */
    this.load = new Map();
    /** When the last values were added, in seconds since the page was opened. */
    this.remembered = 0;
    /** @type {string | null} */
    this.dataflow = null;
    /** @type {import("./live.js").Stream | null} */
    this.stream = null;
    live.onstatus = () => this.#notify();
  }

  /** Whether the state contains a dataflow; that of a local run is removed when it ends. @param {string} uuid */
  knows(uuid) {
    return this.state.dataflows[uuid] !== undefined;
  }

  /**
   * Show the details of one dataflow, or of none.
   * @param {string | null} dataflow
   */
  show(dataflow) {
    if (this.stream !== null && dataflow === this.dataflow) return;
    this.stream?.close();
    if (dataflow !== this.dataflow) for (const past of [this.history, this.edgeHistory]) past.clear();
    this.dataflow = dataflow;
    this.stream = this.live.open({ open: "state", dataflow }, (frame) => {
      setClock(frame.time);
      this.state = "state" in frame ? { ...EMPTY, ...frame.state } : merge(this.state, frame.patch);
      this.loaded = true;
      this.current = true;
      this.#remember();
      this.#notify();
    }, () => {
      this.current = false;
      this.#notify();
    });
  }

  #remember() {
    const elapsed = performance.now() / 1000;
    const nodes = this.dataflow === null ? {} : (this.state.nodes[this.dataflow] ?? {});
    // A new dataflow sends the same state of machines again.
    const second = elapsed - this.remembered >= 0.5;
    for (const [name, machine] of Object.entries(this.state.machines)) {
      const values = this.load.get(name) ?? [];
      if (!second && values.length > 0) continue;
      // A second without a state, of a hidden page or a slow coordinator, is a gap.
      const gap = Math.min(LOAD_SECONDS, Math.max(0, Math.round(elapsed - this.remembered) - 1));
      const past = values.length > 0 ? [...values, ...Array(gap).fill(null)] : [];
      this.load.set(name, [...past.slice(1 - LOAD_SECONDS), machine.status === "connected" ? (machine.cpu ?? null) : null]);
    }
    for (const name of this.load.keys()) if (this.state.machines[name] === undefined) this.load.delete(name);
    if (second) this.remembered = elapsed;
    const edges = this.dataflow === null ? {} : (this.state.edges[this.dataflow] ?? {});
    append(this.history, nodes, (node) => [node.cpu, node.memory]);
    append(this.edgeHistory, edges, (edge) => [edge.rate, edge.dropRate, edge.p50Us]);
  }

  #notify() {
    for (const listener of this.listeners) listener();
  }
}

const address = new URL("live", location.href);
address.protocol = "ws:";
address.hash = "";
export const store = new Store(new Live(address.href));

/**
 * Return the state, and render again whenever it changes.
 * @returns {State}
 */
export function useCluster() {
  const [, render] = useState(0);
  useEffect(() => {
    const listener = () => render((count) => count + 1);
    store.listeners.add(listener);
    return () => {
      store.listeners.delete(listener);
    };
  }, []);
  return store.state;
}
