/** One dataflow: graph, list of nodes, list of edges, logs. */

import { html } from "htm/preact";
import { useEffect, useMemo, useState } from "preact/hooks";

import { record, restartDataflow, startAgain, stopDataflow } from "../changes.js";
import { Empty, Search, Status, Table } from "../components.js";
import { ago, bytes, counted, micros, percent, rate, short, tone } from "../format.js";
import { EdgeFacts, Inspector } from "../graph/inspector.js";
import { cut, modulesOf, outputOf, textWidth, total, worst } from "../graph/model.js";
import { GraphPanel } from "../graph/panel.js";
import { Logs } from "../logs.js";
import { read } from "../requests.js";
import { go, link } from "../route.js";
import { store } from "../store.js";
import { Why } from "./why.js";

/** @typedef {import("../types.js").State} State */
/** @typedef {import("../types.js").Graph} Graph */
/** @typedef {import("../types.js").NodeRow} NodeRow */
/** @typedef {import("../types.js").EdgeRow} EdgeRow */

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
        : !state.source.local && html`<button type="button" class="primary" onClick=${() => startAgain(uuid, name)}>Start again</button>`}
    </div>`}
    ${one.reason && html`<p class="reason">${one.reason}</p>`}
  </header>`;
}

/** Space for the figures beside an arrow, below the name of its output. */
const FIGURES = { width: 96, height: 30 };
const MAX_LETTERS = 22;

/** The output of an arrow, and how many more it stands for. @param {string[]} edges @param {Map<string, unknown>} known */
function outputName(edges, known) {
  const names = [...new Set(edges.map((edge) => outputOf(edge.slice(0, edge.indexOf(">")), known)))];
  return cut(names[0], MAX_LETTERS) + (names.length > 1 ? ` +${names.length - 1}` : "");
}

/** @param {{state: State, uuid: string, graph: Graph, nodes: Record<string, NodeRow>, edges: Record<string, EdgeRow>}} props */
function GraphTab({ state, uuid, graph, nodes, edges }) {
  const lost = useMemo(
    () => new Set(Object.entries(state.machines).filter(([, one]) => one.status !== "connected").map(([name]) => name)),
    [state.machines],
  );
  const dataflow = state.dataflows[uuid];
  const absent = dataflow === undefined || dataflow.endedAt !== undefined ? "Ended" : "Starting";
  const planned = useMemo(() => new Map(graph.nodes.map((node) => [node.id, node.machine])), [graph]);
  const labelSize = (/** @type {string[]} */ edges) => ({ ...FIGURES, width: Math.max(FIGURES.width, Math.ceil(textWidth(outputName(edges, planned))) + 6) });
  return html`<${GraphPanel} graph=${graph} lost=${lost} space=${{ labelSize, nodeWidth: 140, timerWidth: 84 }}
    machineOf=${(/** @type {string} */ id) => nodes[id]?.machine ?? planned.get(id)}
    openNode=${(/** @type {string} */ id) => go("dataflow", uuid, "node", id)}
    itemLook=${(/** @type {import("../graph/model.js").Item} */ item) => itemLook(item, nodes, absent)}
    arrowLook=${(/** @type {import("../graph/model.js").Bundle} */ bundle) => arrowLook(total(bundle.edges, edges), outputName(bundle.edges, planned))}
    aside=${(/** @type {import("../graph/panel.js").Selecting} */ selecting) => html`<${Inspector} ...${selecting} state=${state} uuid=${uuid} graph=${graph} nodes=${nodes} absent=${absent} edges=${edges} />`} />`;
}

/** @param {import("../graph/model.js").Item} item @param {Record<string, NodeRow>} nodes @param {string} absent status of nodes without a row */
function itemLook(item, nodes, absent) {
  const status = worst(item.nodes, nodes, absent);
  const row = item.kind === "node" ? nodes[item.id] : undefined;
  const failed = item.nodes.filter((id) => nodes[id]?.status === "Failed").length;
  const facts =
    item.kind === "node"
      ? [row?.cpu === undefined ? status : percent(row.cpu), row?.memory === undefined ? "" : bytes(row.memory), item.timers.length ? `every ${item.timers[0]}` : ""]
      : [counted(item.nodes.length, "node"), failed > 0 ? `${failed} failed` : status];
  return {
    ...{ status, tone: tone(status), facts: facts.filter(Boolean).join("  ·  "), restarts: row?.restarts ?? 0 },
    title: `${item.label}: ${status}${row?.error ? `\n${row.error}` : ""}`,
  };
}

/** @param {import("../graph/model.js").Sum} sum @param {string} name @returns {import("../graph/shapes.js").ArrowLook} */
function arrowLook(sum, name) {
  return {
    kind: sum.dropRate > 0 || sum.blocked ? "drop" : sum.rate > 0 ? "flow" : "idle",
    width: sum.rate > 0 ? Math.round(10 * Math.min(4, 1.2 + Math.log10(1 + sum.rate) * 0.7)) / 10 : 1.2,
    lines: [name, sum.known ? figures(sum) : ""].filter(Boolean).join("\n"),
    dropped: sum.dropRate > 0 ? `−${rate(sum.dropRate)}` : "",
  };
}

/** Rate, and drops or latency. @param {import("../graph/model.js").Sum} sum */
function figures(sum) {
  const latency = sum.dropRate === 0 && sum.p50Us > 0 ? micros(sum.p50Us) : "";
  return [rate(sum.rate), latency].filter(Boolean).join(" · ");
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
  const [chosen, setChosen] = useState("");
  const rows = Object.entries(edges);
  if (rows.length === 0) return html`<${Empty} title="No edges">The dataflow has no edges, or its machines do not answer.<//>`;
  /** @type {import("../components.js").Column[]} */
  const columns = [
    { key: "source", title: "Output", value: ([, one]) => one.source },
    { key: "target", title: "Input", value: ([, one]) => one.target },
    { key: "rate", title: "Messages", numeric: true, value: ([, one]) => one.rate, cell: ([, one]) => rate(one.rate) },
    { key: "bytes", title: "Data", numeric: true, value: ([, one]) => one.bytes, cell: ([, one]) => (one.bytes === undefined ? "–" : `${bytes(one.bytes)}/s${one.wire === undefined ? "" : ` (sent ${bytes(one.wire)}/s, ratio ${one.ratio})`}`) },
    { key: "drops", title: "Drops", numeric: true, value: ([, one]) => one.dropRate ?? 0, cell: ([, one]) => (one.dropRate ? html`<b class="text-warn">${rate(one.dropRate)}</b>` : one.dropped ? html`<span class="muted">${short(one.dropped)} total</span>` : "–") },
    { key: "queued", title: "Queued", numeric: true, value: ([, one]) => one.queued, cell: ([, one]) => (one.blocked ? html`<b class="text-warn">${one.queued} full</b>` : one.queued) },
    { key: "p50", title: "Latency p50", numeric: true, value: ([, one]) => one.p50Us, cell: ([, one]) => micros(one.p50Us) },
    { key: "p99", title: "p99", numeric: true, value: ([, one]) => one.p99Us, cell: ([, one]) => micros(one.p99Us) },
    { key: "policy", title: "Queue", value: ([, one]) => one.policy.replace("_", " ") },
    { key: "machines", title: "Between", value: ([, one]) => (one.sourceMachine === one.targetMachine ? one.sourceMachine : `${one.sourceMachine} → ${one.targetMachine}`) },
  ];
  return html`${edges[chosen] && html`<div class="inspector"><button type="button" class="icon" onClick=${() => setChosen("")} aria-label="Close">✕</button>
      <${EdgeFacts} name=${chosen} edge=${edges[chosen]} /></div>`}
    <${Table} caption="Edges" columns=${columns} rows=${rows} rowKey=${(/** @type {any} */ row) => row[0]} open=${(/** @type {any} */ row) => setChosen(row[0])} />`;
}
