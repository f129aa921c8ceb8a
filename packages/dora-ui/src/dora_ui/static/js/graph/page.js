/** The page of `dora graph`: a dataflow as it is written. */

import { html, render } from "htm/preact";

import { counted } from "../format.js";
import { cut, outputOf, producer, textWidth } from "./model.js";
import { GraphPanel } from "./panel.js";

/** @typedef {import("../types.js").Graph} Graph */
/** @typedef {import("../types.js").GraphNode & {details: Record<string, string>}} WrittenNode */
/** @typedef {import("./panel.js").Selecting} Selecting */

const MAX_LINES = 3;
const MAX_LETTERS = 28;

/** @type {{title: string, nodes: WrittenNode[]}} */
const { title, nodes } = JSON.parse(document.getElementById("dataflow")?.textContent ?? "");
const byId = new Map(nodes.map((node) => [node.id, node]));

/** The input of an edge `node/output>node/input`. @param {string} edge */
function inputOf(edge) {
  const [source, target] = edge.split(">");
  const [sender, node] = [byId.get(producer(source, byId)), byId.get(producer(target, byId))];
  const input = node?.inputs.find((one) => `${node.id}/${one.id}` === target);
  return { source, target, input, type: sender?.outputs.find((one) => `${sender.id}/${one.id}` === source)?.type ?? input?.type };
}

/** Names of outputs; with that of the input, if it is another. @param {string[]} edges */
function lines(edges) {
  const found = edges.map((edge) => {
    const { source, input } = inputOf(edge);
    const output = outputOf(source, byId);
    return cut(input === undefined || input.id === output ? output : `${output} as ${input.id}`, MAX_LETTERS);
  });
  return found.length > MAX_LINES ? [...found.slice(0, MAX_LINES - 1), `${found.length - MAX_LINES + 1} more`] : found;
}

/** @param {string[]} edges */
function labelSize(edges) {
  const texts = lines(edges);
  return { width: Math.ceil(Math.max(...texts.map((text) => textWidth(text)))) + 6, height: 14 * texts.length + 2 };
}

/** @param {import("./model.js").Item} item */
function itemLook(item) {
  const node = item.kind === "node" ? byId.get(item.id) : undefined;
  const facts = node === undefined ? [counted(item.nodes.length, "node")] : [item.timers.length > 0 ? `every ${item.timers[0]}` : "", node.path ?? node.kind];
  const room = Math.floor((item.width - 24) / 6.4);
  const text = facts.filter(Boolean).join("  ·  ");
  return { status: "", tone: "", title: node?.description ?? item.label, facts: text.length > room ? `${text.slice(0, room - 1)}…` : text, restarts: 0 };
}

/** @param {import("./model.js").Bundle} bundle @returns {import("./shapes.js").ArrowLook} */
function arrowLook({ edges }) {
  const waits = edges.some((edge) => inputOf(edge).input?.policy === "backpressure");
  return { kind: waits ? "drop" : "flow", width: 1.5, lines: lines(edges).join("\n"), dropped: "" };
}

/** @param {Selecting} props */
function Facts({ shown, selection, open }) {
  const item = selection?.kind === "item" ? shown.items.find((one) => one.id === selection.id) : undefined;
  const bundle = selection?.kind === "bundle" ? shown.bundles.find((one) => one.id === selection.id) : undefined;
  const node = item?.kind === "node" ? byId.get(item.id) : undefined;
  const edges = nodes.reduce((count, one) => count + one.inputs.filter((input) => producer(input.source, byId) !== "").length, 0);
  return html`<aside class="panel inspector" aria-label="Selection">
    ${item === undefined && bundle === undefined && html`<h2>${title}</h2>
      <p class="muted">${counted(nodes.length, "node")}, ${counted(edges, "connection")}. Select a node or an edge for details.</p>
      ${nodes.some((one) => one.inputs.some((input) => input.policy === "backpressure")) && html`<p class="muted"><b class="text-warn">Marked edges</b> have backpressure: the sender waits while the queue is full.</p>`}`}
    ${node !== undefined && html`<h2>${node.id}</h2>
      <dl class="written">${Object.entries(node.details).map(([label, value]) => html`<dt key=${label}>${label}</dt><dd>${value}</dd>`)}</dl>`}
    ${item !== undefined && node === undefined && html`<h2>${item.label}</h2><p><button type="button" onClick=${() => open(item)}>Expand</button></p>
      <ul class="plain">${item.nodes.map((id) => html`<li key=${id}>${id}</li>`)}</ul>`}
    ${bundle?.edges.map((edge) => {
      const { source, target, input, type } = inputOf(edge);
      return html`<div class="edge-facts" key=${edge}><p><b>${source}</b> → <b>${target}</b></p>
        <dl>${type && html`<dt>Type</dt><dd>${type}</dd>`}<dt>Queue</dt><dd>${input?.size}, ${input?.policy.replace("_", " ")}</dd>${input?.timeout !== undefined && html`<dt>Timeout</dt><dd>${input.timeout} s</dd>`}</dl></div>`;
    })}
  </aside>`;
}

const root = document.getElementById("app");
if (root !== null) {
  root.textContent = "";
  const graph = { uuid: "", inspectable: false, nodes };
  render(
    html`<section class="view tall alone"><${GraphPanel} graph=${graph} machineOf=${(/** @type {string} */ id) => byId.get(id)?.machine} openNode=${() => {}}
      space=${{ labelSize, nodeWidth: 114, timerWidth: 60 }} itemLook=${itemLook} arrowLook=${arrowLook} aside=${(/** @type {Selecting} */ selecting) => html`<${Facts} ...${selecting} />`} /></section>`,
    root,
  );
}
