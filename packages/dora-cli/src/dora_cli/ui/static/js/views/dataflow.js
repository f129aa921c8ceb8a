/** One dataflow: graph, list of nodes, list of edges, logs. */

import { html } from "htm/preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { record, restartDataflow, startAgain, stopDataflow } from "../changes.js";
import { Empty, Search, Status, Table } from "../components.js";
import { ago, bytes, counted, micros, percent, rate, short } from "../format.js";
import { Drawing, useLayout } from "../graph/drawing.js";
import { collapsedAtFirst, model, modulesOf } from "../graph/model.js";
import { Inspector } from "../graph/inspector.js";
import { Logs } from "../logs.js";
import { read } from "../requests.js";
import { go, link } from "../route.js";
import { store } from "../store.js";
import { Why } from "./why.js";

/** @typedef {import("../types.js").State} State */
/** @typedef {import("../types.js").Graph} Graph */
/** @typedef {import("../types.js").NodeRow} NodeRow */
/** @typedef {import("../types.js").EdgeRow} EdgeRow */
/** @typedef {import("../graph/drawing.js").Selection} Selection */

const TABS = [
  ["graph", "Graph"],
  ["nodes", "Nodes"],
  ["edges", "Edges"],
  ["logs", "Logs"],
  ["why", "Why"],
];

/**
 * Load the graph of a dataflow; again when its nodes or edges change.
 * @param {State} state
 * @param {string} uuid
 */
export function useGraph(state, uuid) {
  const version = `${Object.keys(state.nodes[uuid] ?? {}).sort().join()}|${Object.keys(state.edges[uuid] ?? {}).length}|${state.source.problem === undefined}`;
  const [graph, setGraph] = useState(/** @type {Graph | null} */ (null));
  const [problem, setProblem] = useState("");
  useEffect(() => {
    // A dataflow that has ended keeps its graph.
    if (store.state.source.problem !== undefined || (graph !== null && store.state.nodes[uuid] === undefined)) return undefined;
    let current = true;
    read("dataflows", uuid, "graph").then(
      (found) => current && (setGraph(found), setProblem("")),
      (error) => current && setProblem(error.message),
    );
    return () => {
      current = false;
    };
  }, [uuid, version]);
  return { graph, problem };
}

/** @param {{state: State, uuid: string, tab: string}} props */
export function DataflowView({ state, uuid, tab }) {
  const dataflow = state.dataflows[uuid];
  const nodes = state.nodes[uuid] ?? {};
  const edges = state.edges[uuid] ?? {};
  const { graph, problem } = useGraph(state, uuid);
  if (dataflow === undefined && graph === null) {
    return html`<section class="view"><${Empty} title="This dataflow is not known">${problem || "It has ended, or another coordinator runs it."} <a href=${link()}>Fleet</a><//></section>`;
  }
  return html`<section class="view tall">
    <${Header} state=${state} uuid=${uuid} />
    ${dataflow === undefined && html`<p class="banner warn">This dataflow has ended.</p>`}
    <nav class="tabs" aria-label="Views of this dataflow">${TABS.map(
      ([key, title]) => html`<a key=${key} aria-current=${tab === key ? "page" : undefined} href=${link("dataflow", uuid, key)}>${title}</a>`,
    )}</nav>
    ${problem && graph === null && html`<p class="banner warn">${problem}</p>`}
    ${tab === "logs"
      ? html`<div class="panel fill"><${Logs} uuid=${uuid} /></div>`
      : tab === "why"
        ? html`<${Why} uuid=${uuid} version=${JSON.stringify(dataflow?.states)} />`
      : graph === null
        ? html`<p class="muted pad">Loading…</p>`
        : tab === "nodes"
          ? html`<div class="panel"><${Nodes} uuid=${uuid} graph=${graph} nodes=${nodes} /></div>`
          : tab === "edges"
            ? html`<div class="panel"><${Edges} edges=${edges} /></div>`
            : html`<${GraphTab} state=${state} uuid=${uuid} graph=${graph} nodes=${nodes} edges=${edges} />`}
  </section>`;
}

/** @param {{state: State, uuid: string}} props */
function Header({ state, uuid }) {
  const one = state.dataflows[uuid];
  if (one === undefined) return null;
  const name = one.name ?? uuid.slice(0, 8);
  const facts = [
    ...(one.name === undefined ? [] : [html`<code title=${uuid}>${uuid.slice(0, 8)}</code>`]),
    counted(one.nodes, "node"),
    counted(one.machines.length, "machine"),
    ...(one.endedAt === undefined ? [`messages ${rate(one.rate)}`, `CPU ${percent(one.cpu)}`, `memory ${bytes(one.memory)}`] : [`ended ${ago(one.endedAt)}`]),
  ];
  return html`<header class="head">
    <h1>${name} <${Status} status=${one.status} title=${uuid} /></h1>
    <p class="facts">${facts.map((fact) => html`<span>${fact}</span>`)}
      ${(one.dropRate ?? 0) > 0 && html`<span class="text-warn">drops ${rate(one.dropRate)}</span>`}
      ${one.restarts > 0 && html`<span title=${one.lastRestart ? `last: ${one.lastRestart.node}, ${one.lastRestart.cause}, ${ago(one.lastRestart.at)}` : ""}>${counted(one.restarts, "restart")}</span>`}
    </p>
    ${!state.source.readOnly && html`<div class="actions">
      ${one.endedAt === undefined
        ? html`${!state.source.local && html`<button type="button" onClick=${() => record(uuid, name)}>Record</button>
              <button type="button" onClick=${() => restartDataflow(uuid, name)}>Restart</button>`}
            <button type="button" class="danger" onClick=${() => stopDataflow(uuid, name)}>Stop</button>`
        : html`<button type="button" class="primary" onClick=${() => startAgain(uuid, name)}>Start again</button>`}
    </div>`}
    ${one.reason && html`<p class="reason">${one.reason}</p>`}
  </header>`;
}

/** @param {{state: State, uuid: string, graph: Graph, nodes: Record<string, NodeRow>, edges: Record<string, EdgeRow>}} props */
function GraphTab({ state, uuid, graph, nodes, edges }) {
  const [collapsed, setCollapsed] = useState(() => collapsedAtFirst(graph));
  const [selection, setSelection] = useState(/** @type {Selection} */ (null));
  const placement = Object.entries(nodes).map(([id, row]) => `${id} ${row.machine}`).join("\n");
  const shown = useMemo(() => model(graph, nodes, collapsed), [graph, placement, collapsed]);
  const layout = useLayout(shown);
  const [search, setSearch] = useState("");
  const found = useMemo(() => matches(shown, search), [shown, search]);
  const drawing = useRef(/** @type {{center: (id: string) => void} | null} */ (null));
  const drawn = useRef(/** @type {{model: import("../graph/model.js").Model, layout: import("../graph/layout.js").Layout} | null} */ (null));
  const lost = useMemo(
    () => new Set(Object.entries(state.machines).filter(([, one]) => one.status !== "connected").map(([name]) => name)),
    [state.machines],
  );
  const toggle = (/** @type {string} */ key) => {
    const next = new Set(collapsed);
    if (!next.delete(key)) next.add(key);
    // What was selected, or what it has become a part of.
    const first = shown.items.find((one) => selection?.kind === "item" && one.id === selection.id)?.nodes[0];
    const item = first === undefined ? undefined : model(graph, nodes, next).items.find((one) => one.nodes.includes(first));
    setSelection(item === undefined ? null : { kind: "item", id: item.id });
    setCollapsed(next);
  };
  const next = () => {
    const ids = [...(found ?? [])];
    const at = selection?.kind === "item" ? ids.indexOf(selection.id) : -1;
    if (ids.length === 0) return;
    const id = ids[(at + 1) % ids.length];
    setSelection({ kind: "item", id });
    drawing.current?.center(id);
  };
  const dataflow = state.dataflows[uuid];
  const absent = dataflow === undefined || dataflow.endedAt !== undefined ? "Ended" : "Starting";
  const open = (/** @type {import("../graph/model.js").Item} */ item) => {
    if (item.kind === "node") go("dataflow", uuid, "node", item.id);
    else toggle(item.kind === "machine" ? item.id : `module ${item.label}`);
  };
  // Until the next layout is ready, the last one is shown with its model.
  if (layout !== null && shown.items.every((item) => layout.boxes[item.id] !== undefined)) drawn.current = { model: shown, layout };
  if (drawn.current === null) return html`<p class="muted pad">Arranging ${counted(shown.items.length, "node")}…</p>`;
  return html`<div class="split">
    <div class="panel fill">
      <div class="toolbar">
        <${Search} label="Find a node" value=${search} change=${setSearch} enter=${next} />
        ${found !== null && html`<span class="muted" role="status">${found.size === 0 ? "none" : `${found.size} found`}</span>
          <button type="button" disabled=${found.size === 0} onClick=${next}>Next</button>`}
        <span class="space"></span>
        <${Folding} shown=${shown} collapsed=${collapsed} toggle=${toggle} set=${setCollapsed} />
      </div>
      <${Drawing} ...${drawn.current} nodes=${nodes} absent=${absent} edges=${edges} selection=${selection} select=${setSelection} open=${open} toggle=${toggle} lost=${lost} found=${found} handle=${drawing} />
    </div>
    <${Inspector} state=${state} uuid=${uuid} graph=${graph} shown=${shown} nodes=${nodes} absent=${absent} edges=${edges} selection=${selection} open=${open} select=${setSelection} toggle=${toggle} />
  </div>`;
}

/**
 * Items whose nodes contain the text in their name, or null without a text.
 * @param {import("../graph/model.js").Model} shown
 * @param {string} search
 */
function matches(shown, search) {
  const text = search.trim().toLowerCase();
  if (text === "") return null;
  const found = shown.items.filter((item) => item.label.toLowerCase().includes(text) || item.nodes.some((id) => id.toLowerCase().includes(text)));
  return new Set(found.map((item) => item.id));
}

/** @param {{shown: import("../graph/model.js").Model, collapsed: Set<string>, toggle: (key: string) => void, set: (keys: Set<string>) => void}} props */
function Folding({ shown, collapsed, toggle, set }) {
  /** @param {string[]} keys @param {string} what */
  const whole = (keys, what) => {
    const all = keys.every((key) => collapsed.has(key));
    const change = () => {
      const next = new Set(collapsed);
      for (const key of keys) if (all) next.delete(key); else next.add(key);
      set(next);
    };
    return html`<button type="button" onClick=${change}>${all ? "Expand" : "Collapse"} ${what}</button>`;
  };
  const modules = [...shown.modules.keys()].map((name) => `module ${name}`);
  return html`
    ${modules.length > 0 && html`<${Modules} shown=${shown} collapsed=${collapsed} toggle=${toggle} />`}
    ${modules.length > 1 && whole(modules, "modules")}
    ${shown.grouped && whole(shown.machines.map((name) => `machine ${name}`), "machines")}`;
}

/**
 * The modules of all levels, each of which collapses and expands; those in a collapsed one are not listed.
 * @param {{shown: import("../graph/model.js").Model, collapsed: Set<string>, toggle: (key: string) => void}} props
 */
function Modules({ shown, collapsed, toggle }) {
  const isOpen = (/** @type {string} */ name) => !collapsed.has(`module ${name}`);
  const listed = [...shown.modules].filter(([name]) => modulesOf(name).every(isOpen));
  const close = (/** @type {KeyboardEvent} */ event) => {
    const box = /** @type {HTMLDetailsElement} */ (event.currentTarget);
    if (event.key !== "Escape" || !box.open) return;
    box.open = false;
    box.querySelector("summary")?.focus();
  };
  return html`<details class="choices" onKeyDown=${close}><summary class="button">Modules</summary>
    <ul>${listed.map(([name, count]) => {
      const depth = modulesOf(name).length;
      return html`<li key=${name} style=${{ paddingLeft: `${14 * depth}px` }}>
        <button type="button" aria-expanded=${isOpen(name)} title="${isOpen(name) ? "Collapse" : "Expand"} ${name}" onClick=${() => toggle(`module ${name}`)}>
          <span aria-hidden="true">${isOpen(name) ? "▾" : "▸"}</span> ${depth > 0 ? name.slice(name.lastIndexOf(".") + 1) : name} <span class="muted">${counted(count, "node")}</span>
        </button></li>`;
    })}</ul></details>`;
}

/** @param {{uuid: string, graph: Graph, nodes: Record<string, NodeRow>}} props */
function Nodes({ uuid, graph, nodes }) {
  const [search, setSearch] = useState("");
  const rows = graph.nodes
    .filter((node) => node.id.toLowerCase().includes(search.toLowerCase()))
    .map((node) => ({ id: node.id, node, row: nodes[node.id] }));
  /** @type {import("../components.js").Column[]} */
  const columns = [
    { key: "id", title: "Node", value: (one) => one.id, cell: (one) => html`<a href=${link("dataflow", uuid, "node", one.id)}>${one.id}</a>` },
    { key: "status", title: "Status", value: (one) => one.row?.status, cell: (one) => one.row && html`<${Status} status=${one.row.status} title=${one.row.error} />` },
    { key: "machine", title: "Machine", value: (one) => one.row?.machine ?? one.node.machine },
    { key: "module", title: "Module", value: (one) => modulesOf(one.id).at(-1) },
    { key: "cpu", title: "CPU", numeric: true, value: (one) => one.row?.cpu, cell: (one) => percent(one.row?.cpu) },
    { key: "memory", title: "Memory", numeric: true, value: (one) => one.row?.memory, cell: (one) => bytes(one.row?.memory) },
    { key: "queued", title: "Queued", numeric: true, value: (one) => one.row?.queued },
    { key: "restarts", title: "Restarts", numeric: true, value: (one) => one.row?.restarts },
    { key: "error", title: "Note", value: (one) => one.row?.error ?? (one.row?.blockedOn && `waits for the full queue of ${one.row.blockedOn}`), cell: (one) => html`<span class="cut">${one.row?.error ?? (one.row?.blockedOn ? `waits for the full queue of ${one.row.blockedOn}` : "")}</span>` },
  ];
  const known = columns.filter((one) => one.key !== "module" || rows.some((row) => modulesOf(row.id).length > 0));
  return html`<div class="toolbar"><${Search} label="Search nodes" value=${search} change=${setSearch} /><span class="muted">${rows.length} of ${graph.nodes.length}</span></div>
    <${Table} caption="Nodes" columns=${known} rows=${rows} rowKey=${(/** @type {any} */ one) => one.id}
      open=${(/** @type {any} */ one) => go("dataflow", uuid, "node", one.id)}
      rowClass=${(/** @type {any} */ one) => (one.row?.status === "Failed" ? "row-bad" : "")} />`;
}

/** @param {{edges: Record<string, EdgeRow>}} props */
function Edges({ edges }) {
  const rows = Object.entries(edges);
  if (rows.length === 0) return html`<${Empty} title="No edges">The dataflow has no edges, or its machines do not answer.<//>`;
  /** @type {import("../components.js").Column[]} */
  const columns = [
    { key: "source", title: "Output", value: ([, one]) => one.source },
    { key: "target", title: "Input", value: ([, one]) => one.target },
    { key: "rate", title: "Messages", numeric: true, value: ([, one]) => one.rate, cell: ([, one]) => rate(one.rate) },
    { key: "bytes", title: "Data", numeric: true, value: ([, one]) => one.bytes, cell: ([, one]) => (one.bytes === undefined ? "–" : `${bytes(one.bytes)}/s`) },
    { key: "drops", title: "Drops", numeric: true, value: ([, one]) => one.dropRate ?? 0, cell: ([, one]) => (one.dropRate ? html`<b class="text-warn">${rate(one.dropRate)}</b>` : one.dropped ? html`<span class="muted">${short(one.dropped)} total</span>` : "–") },
    { key: "queued", title: "Queued", numeric: true, value: ([, one]) => one.queued, cell: ([, one]) => (one.blocked ? html`<b class="text-warn">${one.queued} full</b>` : one.queued) },
    { key: "p50", title: "Latency p50", numeric: true, value: ([, one]) => one.p50Us, cell: ([, one]) => micros(one.p50Us) },
    { key: "p99", title: "p99", numeric: true, value: ([, one]) => one.p99Us, cell: ([, one]) => micros(one.p99Us) },
    { key: "policy", title: "Queue", value: ([, one]) => one.policy.replace("_", " ") },
    { key: "machines", title: "Between", value: ([, one]) => (one.sourceMachine === one.targetMachine ? one.sourceMachine : `${one.sourceMachine} → ${one.targetMachine}`) },
  ];
  return html`<${Table} caption="Edges" columns=${columns} rows=${rows} rowKey=${(/** @type {any} */ row) => row[0]} />`;
}
