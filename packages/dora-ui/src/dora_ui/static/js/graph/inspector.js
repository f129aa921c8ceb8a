/** Facts about what is selected in the graph. */

import { html } from "htm/preact";

import { Status } from "../components.js";
import { bytes, counted, micros, percent, rate } from "../format.js";
import { Plot } from "../plot.js";
import { link } from "../route.js";
import { store } from "../store.js";
import { now } from "../time.js";
import { modulesOf, timer } from "./model.js";

/** @typedef {import("../types.js").State} State */
/** @typedef {import("../types.js").Graph} Graph */
/** @typedef {import("../types.js").GraphNode} GraphNode */
/** @typedef {import("../types.js").NodeRow} NodeRow */
/** @typedef {import("../types.js").EdgeRow} EdgeRow */
/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Item} Item */
/** @typedef {import("./drawing.js").Selection} Selection */

/** For this time the restart of a node is named. */
const RECENT_SECONDS = 60;

/** @param {{state: State, uuid: string, graph: Graph, shown: Model, nodes: Record<string, NodeRow>, absent: string, edges: Record<string, EdgeRow>, selection: Selection, open: (item: Item) => void, select: (selection: Selection) => void, toggle: (key: string) => void}} props */
export function Inspector({ state, uuid, graph, shown, nodes, absent, edges, selection, open, select, toggle }) {
  const item = selection?.kind === "item" ? shown.items.find((one) => one.id === selection.id) : undefined;
  const bundle = selection?.kind === "bundle" ? shown.bundles.find((one) => one.id === selection.id) : undefined;
  const node = item?.kind === "node" ? graph.nodes.find((one) => one.id === item.id) : undefined;
  return html`<aside class="panel inspector" aria-label="Selection">
    ${node !== undefined && html`<${NodeFacts} uuid=${uuid} node=${node} row=${nodes[node.id]} edges=${edges} shown=${shown} toggle=${toggle} />`}
    ${item !== undefined && node === undefined && html`<${ItemFacts} state=${state} uuid=${uuid} item=${item} nodes=${nodes} absent=${absent} open=${open} shown=${shown} toggle=${toggle} />`}
    ${bundle !== undefined && html`<h2>${bundle.edges.length === 1 ? "Edge" : counted(bundle.edges.length, "edge")}</h2>
      ${bundle.edges.slice(0, 40).map((key) => html`<${EdgeFacts} key=${key} name=${key} edge=${edges[key]} />`)}`}
    ${item === undefined && bundle === undefined && html`<${Overview} shown=${shown} nodes=${nodes} ended=${absent === "Ended"} edges=${edges} select=${select} />`}
  </aside>`;
}

/** @param {{shown: Model, nodes: Record<string, NodeRow>, ended: boolean, edges: Record<string, EdgeRow>, select: (selection: Selection) => void}} props */
function Overview({ shown, nodes, ended, edges, select }) {
  const bad = Object.entries(nodes).filter(([, row]) => ["Failed", "Degraded", "Restarting", "Unknown"].includes(row.status));
  const restarted = Object.entries(nodes).filter(
    ([, row]) => row.status === "Running" && row.lastRestartAt !== undefined && now() - row.lastRestartAt < RECENT_SECONDS,
  );
  const dropping = Object.values(edges).filter((edge) => (edge.dropRate ?? 0) > 0);
  const show = (/** @type {string} */ id) => {
    const item = shown.items.find((one) => one.nodes.includes(id));
    if (item !== undefined) select({ kind: "item", id: item.id });
  };
  return html`<h2>Attention</h2>
    ${bad.length + restarted.length + dropping.length === 0 && html`<p class="muted">${ended ? "This dataflow has ended." : "No node has failed, and no messages are dropped."} Select a node or an edge for details.</p>`}
    <ul class="plain">
      ${bad.slice(0, 30).map(([id, row]) => html`<li key=${id}><${Status} status=${row.status} /> <button type="button" class="text" onClick=${() => show(id)}>${id}</button>
        ${row.error && html`<p class="muted clamp">${row.error}</p>`}</li>`)}
      ${restarted.slice(0, 30).map(([id, row]) => html`<li key=${`restart ${id}`}><b class="text-warn">restarted</b> <button type="button" class="text" onClick=${() => show(id)}>${id}</button>
        <p class="muted">${[row.lastRestart, counted(row.restarts, "restart")].filter(Boolean).join(", ")}</p></li>`)}
      ${dropping.slice(0, 30).map((edge) => html`<li key=${`${edge.source}>${edge.target}`}><b class="text-warn">drops ${rate(edge.dropRate)}</b> ${edge.source} → ${edge.target}</li>`)}
    </ul>`;
}

/** @param {{uuid: string, node: GraphNode, row: NodeRow | undefined, edges: Record<string, EdgeRow>, shown: Model, toggle: (key: string) => void}} props */
function NodeFacts({ uuid, node, row, edges, shown, toggle }) {
  const machine = row?.machine ?? node.machine ?? "";
  const outgoing = (/** @type {string} */ output) => Object.values(edges).filter((edge) => edge.source === `${node.id}/${output}`);
  return html`<h2>${node.id}</h2>
    <p class="row">${row && html`<${Status} status=${row.status} />`}
      <a class="button" href=${link("dataflow", uuid, "node", node.id)}>Open</a>
      <${Collapsing} name=${node.id} machine=${machine} shown=${shown} toggle=${toggle} /></p>
    ${row?.error && html`<p class="text-bad clamp">${row.error}</p>`}
    ${row?.blockedOn && html`<p class="text-warn">Waits for the full queue of ${row.blockedOn}.</p>`}
    ${node.description && html`<p class="muted">${node.description}</p>`}
    <dl>
      <dt>Machine</dt><dd>${machine}</dd>
      <dt>CPU</dt><dd>${percent(row?.cpu)}</dd>
      <dt>Memory</dt><dd>${bytes(row?.memory)}</dd>
      <dt>Restarts</dt><dd>${row?.restarts ?? "–"}</dd>
      <dt>Program</dt><dd><code>${node.path ?? node.kind}</code></dd>
    </dl>
    <h3>Inputs</h3>
    <ul class="ports">${node.inputs.map((input) => {
      const edge = edges[`${input.source}>${node.id}/${input.id}`];
      return html`<li key=${input.id}><b>${input.id}</b> <span class="muted">${input.source.startsWith("dora/timer/") ? `timer ${timer(input.source)}` : input.source}</span>
        ${edge && html`<span class="measured">${rate(edge.rate)} · ${micros(edge.p50Us)}${edge.dropRate ? html` · <b class="text-warn">−${rate(edge.dropRate)}</b>` : ""}</span>`}</li>`;
    })}${node.inputs.length === 0 && html`<li class="muted">none</li>`}</ul>
    <h3>Outputs</h3>
    <ul class="ports">${node.outputs.map((output) => {
      const first = outgoing(output.id)[0];
      return html`<li key=${output.id}><a href=${link("dataflow", uuid, "output", node.id, output.id)}>${output.id}</a>
        <span class="muted">${output.type ?? ""}</span>
        ${first && html`<span class="measured">${rate(first.rate)}${first.bytes === undefined ? "" : ` · ${bytes(first.bytes)}/s`}</span>`}</li>`;
    })}${node.outputs.length === 0 && html`<li class="muted">none</li>`}</ul>`;
}

/**
 * Collapses what is around a node or a module, the innermost first.
 * @param {{name: string, machine: string, shown: Model, toggle: (key: string) => void}} props
 */
function Collapsing({ name, machine, shown, toggle }) {
  const modules = modulesOf(name).filter((one) => shown.modules.has(one)).reverse();
  return html`${modules.map((one) => html`<button key=${one} type="button" onClick=${() => toggle(`module ${one}`)}>Collapse ${one}</button>`)}
    ${shown.grouped && html`<button type="button" onClick=${() => toggle(`machine ${machine}`)}>Collapse ${machine}</button>`}`;
}

/** @param {{state: State, uuid: string, item: Item, nodes: Record<string, NodeRow>, absent: string, open: (item: Item) => void, shown: Model, toggle: (key: string) => void}} props */
function ItemFacts({ state, uuid, item, nodes, absent, open, shown, toggle }) {
  const machine = item.kind === "machine" ? state.machines[item.label] : undefined;
  return html`<h2>${item.label}</h2>
    <p class="row">${machine && html`<${Status} status=${machine.status} />`} <button type="button" onClick=${() => open(item)}>Expand</button>
      ${item.kind === "module" && html`<${Collapsing} name=${item.label} machine=${item.machine} shown=${shown} toggle=${toggle} />`}</p>
    <p class="muted">${counted(item.nodes.length, "node")}${machine?.cpu === undefined ? "" : ` · ${percent(machine.cpu)} CPU`}</p>
    <ul class="plain">${item.nodes.slice(0, 100).map(
      (id) => html`<li key=${id}><${Status} status=${nodes[id]?.status ?? absent} /> <a href=${link("dataflow", uuid, "node", id)}>${id}</a></li>`,
    )}</ul>`;
}

/** @param {{name: string, edge: EdgeRow | undefined}} props */
export function EdgeFacts({ name, edge }) {
  const [source, target] = name.split(">");
  return html`<div class="edge-facts">
    <p><b>${source}</b> → <b>${target}</b></p>
    ${edge === undefined
      ? html`<p class="muted">No counters yet.</p>`
      : html`<dl>
          <dt>Messages</dt><dd>${rate(edge.rate)}</dd>
          <dt>Data</dt><dd>${edge.bytes === undefined ? "–" : `${bytes(edge.bytes)}/s`}</dd>
          ${edge.wire !== undefined && html`<dt title="Between the machines, compressed">Sent</dt><dd>${bytes(edge.wire)}/s${edge.ratio === undefined ? "" : `, ratio ${edge.ratio}`}</dd>`}
          <dt>Drops</dt><dd class=${edge.dropRate ? "text-warn" : ""}>${rate(edge.dropRate)}, ${edge.dropped} in all</dd>
          ${edge.unmatched && html`<dt>Unmatched</dt><dd>${edge.unmatched} in no sample</dd>`}
          <dt>Queued</dt><dd>${edge.queued}${edge.blocked ? " (full, the source waits)" : ""}</dd>
          <dt>Latency</dt><dd>${micros(edge.p50Us)} p50, ${micros(edge.p99Us)} p99</dd>
          <dt>Queue</dt><dd>${edge.policy.replace("_", " ")}</dd>
          ${edge.sourceMachine !== edge.targetMachine && html`<dt>Link</dt><dd>${edge.sourceMachine} → ${edge.targetMachine}</dd>`}
        </dl>
        <${EdgePast} name=${name} />`}
  </div>`;
}

/** Messages, drops and latency over the last minutes, since the page shows this dataflow. @param {{name: string}} props */
function EdgePast({ name }) {
  const series = store.edgeHistory.get(name);
  if (series === undefined || series.times.length < 2) return null;
  const [rates, drops, latencies] = series.values;
  const version = series.times[series.times.length - 1];
  return html`<div class="past">
    <h3>Messages and drops per second</h3>
    <${Plot} label="Messages and drops over time" data=${[series.times, rates, drops]} lines=${[{ label: "messages", format: rate }, { label: "drops", format: rate }]} version=${version} height=${96} zero />
    <h3>Latency p50</h3>
    <${Plot} label="Latency over time" data=${[series.times, latencies]} lines=${[{ label: "latency", format: micros }]} version=${version} height=${96} zero />
  </div>`;
}
