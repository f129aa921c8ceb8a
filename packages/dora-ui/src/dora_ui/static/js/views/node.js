/** One node: logs, CPU and memory, restarts, parameters, ports. */

import { html } from "htm/preact";
import { useEffect, useState } from "preact/hooks";

import { restartNode, stopNode } from "../changes.js";
import { Empty, Status, confirm, report } from "../components.js";
import { ago, bytes, clockAt, counted, micros, percent, rate } from "../format.js";
import { timer } from "../graph/model.js";
import { Logs } from "../logs.js";
import { Plot } from "../plot.js";
import { change, read } from "../requests.js";
import { link } from "../route.js";
import { store } from "../store.js";
import { useGraph } from "./dataflow.js";
import { RosGraphView } from "./ros.js";

/** @typedef {import("../types.js").State} State */
/** @typedef {import("../types.js").GraphNode} GraphNode */
/** @typedef {import("../types.js").EdgeRow} EdgeRow */

const MAX_EVENTS = 50;

/** @param {{state: State, uuid: string, node: string}} props */
export function NodeView({ state, uuid, node }) {
  const row = state.nodes[uuid]?.[node];
  const { graph, problem } = useGraph(state, uuid);
  const found = graph?.nodes.find((one) => one.id === node);
  const name = state.dataflows[uuid]?.name ?? uuid.slice(0, 8);
  if (found === undefined) {
    return html`<section class="view">${graph === null && !problem
      ? html`<p class="muted pad">Loading…</p>`
      : html`<${Empty} title="This node does not exist">${problem || "It may have been removed."} <a href=${link("dataflow", uuid)}>Nodes of ${name}</a><//>`}</section>`;
  }
  const dataflow = state.dataflows[uuid];
  const status = row?.status ?? (dataflow?.endedAt === undefined ? undefined : dataflow.status);
  const running = row !== undefined && !["Finished", "Failed", "Stopped", "Unknown"].includes(row.status);
  return html`<section class="view tall">
    <header class="head">
      <p class="path"><a href=${link("dataflow", uuid)}>${name}</a> /</p>
      <h1>${node} ${status && html`<${Status} status=${status} />`}</h1>
      <p class="facts"><span>${row?.machine ?? found.machine}</span><span><code>${found.path ?? found.kind}</code></span>
        ${row?.pid !== undefined && html`<span>pid ${row.pid}</span>`}
        ${row !== undefined && row.restarts > 0 && html`<span class="text-warn">${counted(row.restarts, "restart")}${row.lastRestart === undefined ? "" : `, last: ${row.lastRestart}`}${row.lastRestartAt === undefined ? "" : `, ${ago(row.lastRestartAt)}`}</span>`}
        <span class="muted">restart: ${found.restart}</span></p>
      ${!state.source.readOnly && dataflow !== undefined && dataflow.endedAt === undefined && html`<div class="actions">
        <button type="button" onClick=${() => restartNode(uuid, node)}>Restart</button>
        ${running && html`<button type="button" class="danger" onClick=${() => stopNode(uuid, node)}>Stop</button>`}
      </div>`}
      ${row?.error && html`<p class="reason">${row.error}</p>`}
      ${row?.blockedOn && html`<p class="text-warn">Waits for the full queue of ${row.blockedOn}.</p>`}
      ${found.description && html`<p class="description">${found.description}</p>`}
    </header>
    <div class="columns">
      <${Load} node=${node} />
      <${Ports} uuid=${uuid} node=${found} edges=${state.edges[uuid] ?? {}} broken=${row?.brokenInputs ?? []} />
      <div class="stack">
        <${Parameters} uuid=${uuid} node=${node} running=${running} readOnly=${state.source.readOnly} />
        <${Events} uuid=${uuid} node=${node} version=${`${row?.restarts} ${status}`} />
      </div>
    </div>
    ${found.kind === "ros2" && html`<${RosGraphView} uuid=${uuid} node=${node} running=${running} />`}
    <div class="panel fill"><${Logs} uuid=${uuid} node=${node} /></div>
  </section>`;
}

/** @param {{node: string}} props */
function Load({ node }) {
  const series = store.history.get(node);
  if (series === undefined || series.times.length < 2) return html`<div class="panel load"><h2>CPU and memory</h2><p class="muted">Waiting for the first values…</p></div>`;
  const [cpu, memory] = series.values;
  const version = series.times[series.times.length - 1];
  return html`<div class="panel load">
    <h2>CPU <span class="muted">${percent(cpu[cpu.length - 1] ?? undefined)}</span></h2>
    <${Plot} label="CPU over time" data=${[series.times, cpu]} lines=${[{ label: "CPU", format: percent }]} version=${version} height=${96} zero />
    <h2>Memory <span class="muted">${bytes(memory[memory.length - 1] ?? undefined)}</span></h2>
    <${Plot} label="Memory over time" data=${[series.times, memory]} lines=${[{ label: "Memory", format: bytes }]} version=${version} height=${96} zero />
  </div>`;
}

/** @param {{uuid: string, node: GraphNode, edges: Record<string, EdgeRow>, broken: string[]}} props */
function Ports({ uuid, node, edges, broken }) {
  const rows = Object.values(edges);
  return html`<div class="panel">
    <h2>Inputs <span class="muted">${node.inputs.length || "none"}</span></h2>
    <ul class="ports">${node.inputs.map((input) => {
      const edge = edges[`${input.source}>${node.id}/${input.id}`];
      return html`<li key=${input.id}>
        <span><b>${input.id}</b> <span class="muted">${input.source.startsWith("dora/timer/") ? `timer ${timer(input.source)}` : `← ${input.source}`}</span>
          ${broken.includes(input.id) && html` <b class="text-bad">timed out</b>`}</span>
        <span class="measured">${edge && [rate(edge.rate), micros(edge.p50Us)].join(" · ")}${edge?.dropRate ? html` <b class="text-warn">−${rate(edge.dropRate)}</b>` : edge?.blocked ? html` <b class="text-warn">full</b>` : ""}</span>
      </li>`;
    })}</ul>
    <h2>Outputs <span class="muted">${node.outputs.length || "none"}</span></h2>
    <ul class="ports">${node.outputs.map((output) => {
      const readers = rows.filter((edge) => edge.source === `${node.id}/${output.id}`);
      return html`<li key=${output.id}>
        <span><a href=${link("dataflow", uuid, "output", node.id, output.id)}>${output.id}</a>
          <span class="muted">${[output.type, readers.length > 0 ? `→ ${readers.map((edge) => edge.target).join(", ")}` : rows.length > 0 ? "no readers" : ""].filter(Boolean).join(" ")}</span></span>
        <span class="measured">${readers[0] && [rate(readers[0].rate), readers[0].bytes === undefined ? "" : `${bytes(readers[0].bytes)}/s`].filter(Boolean).join(" · ")}</span>
      </li>`;
    })}</ul>
  </div>`;
}

/** @param {{uuid: string, node: string, running: boolean, readOnly: boolean}} props */
function Parameters({ uuid, node, running, readOnly }) {
  const [values, setValues] = useState(/** @type {Record<string, unknown> | null} */ (null));
  const [problem, setProblem] = useState("");
  const load = () =>
    read("dataflows", uuid, "nodes", node, "params").then(
      (found) => (setValues(found.values), setProblem("")),
      (error) => setProblem(error.message),
    );
  useEffect(() => {
    if (running) load();
  }, [uuid, node, running]);
  const set = async (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const form = /** @type {HTMLFormElement} */ (event.currentTarget);
    const data = new FormData(form);
    const key = String(data.get("key"));
    const text = String(data.get("value"));
    const answer = await report(change(["dataflows", uuid, "nodes", node, "params", key, "set"], { value: parsed(text) }), `${key} was set`);
    if (answer !== undefined) form.reset();
    load();
  };
  const remove = (/** @type {string} */ key) =>
    confirm({
      title: `Delete parameter ${key}?`,
      text: `The node ${node} receives the deletion at once.`,
      action: "Delete parameter",
      danger: true,
      run: async () => {
        await report(change(["dataflows", uuid, "nodes", node, "params", key, "delete"]), `${key} was deleted`);
        load();
      },
    });
  const entries = Object.entries(values ?? {});
  return html`<div class="panel">
    <h2>Parameters</h2>
    ${problem && html`<p class="text-warn">${problem}</p>`}
    <table><tbody>
      ${entries.map(([key, value]) => html`<tr key=${key}><td><b>${key}</b></td><td><code>${JSON.stringify(value)}</code></td>
        <td class="number">${!readOnly && html`<button type="button" class="icon" aria-label=${`Delete ${key}`} onClick=${() => remove(key)}>✕</button>`}</td></tr>`)}
      ${entries.length === 0 && html`<tr><td class="muted">none</td></tr>`}
    </tbody></table>
    ${!readOnly && running && html`<form class="inline" onSubmit=${set}>
      <input name="key" required placeholder="name" aria-label="Name of the parameter" />
      <input name="value" required placeholder="value (JSON or text)" aria-label="Value" />
      <button type="submit">Set</button>
    </form>`}
  </div>`;
}

/**
 * What happened to the node: starts, failures and restarts with their causes.
 * @param {{uuid: string, node: string, version: string}} props
 */
function Events({ uuid, node, version }) {
  const [events, setEvents] = useState(/** @type {import("./why.js").Occurrence[] | null} */ (null));
  const [problem, setProblem] = useState("");
  useEffect(() => {
    if (!store.knows(uuid)) return undefined;
    let current = true;
    read("dataflows", uuid, "explanation").then(
      (found) => current && setEvents(found.timeline.filter((/** @type {import("./why.js").Occurrence} */ one) => one.node === node).slice(-MAX_EVENTS)),
      (error) => current && setProblem(error.message),
    );
    return () => {
      current = false;
    };
  }, [uuid, node, version]);
  return html`<div class="panel">
    <h2>Restarts and failures</h2>
    ${events === null && html`<p class="muted">${problem || "Loading…"}</p>`}
    ${events?.length === 0 && html`<p class="muted">None.</p>`}
    <ol class="events">${[...(events ?? [])].reverse().map(
      (one, index) => html`<li key=${index} class=${one.problem ? "problem" : ""}><time title=${new Date(one.at * 1000).toLocaleString()}>${clockAt(one.at * 1000)}</time> ${one.text}</li>`,
    )}</ol>
  </div>`;
}

/** A value as JSON, or else the text. @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
