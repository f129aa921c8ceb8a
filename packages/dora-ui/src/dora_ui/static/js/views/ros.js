/** The ROS graph that a `ros2` node sees. */

import { html } from "htm/preact";
import { useEffect, useState } from "preact/hooks";

import { Search, Table } from "../components.js";
import { counted } from "../format.js";
import { read } from "../requests.js";

/**
 * As `Graph.summary` of dora-ros2 returns it. `offers`: publishers or servers; `uses`: subscriptions or clients;
 * `counts`: of both; `own`: which of them the node has.
 * @typedef {{kind: "topic"|"service"|"action", name: string, types: string[], offers: string[], uses: string[],
 *   counts: [number, number], qos: string[], own: "offers"|"uses"|null, problem: string|null}} RosRow
 * @typedef {{node: string, transport: string, nodes: string[], rows: RosRow[], hidden: number}} RosGraph
 */

const PERIOD_MS = 1000;
const ROLES = {
  topic: { offers: "publishes", uses: "subscribes" },
  service: { offers: "serves", uses: "calls" },
  action: { offers: "serves", uses: "calls" },
};

/** @type {import("../components.js").Column[]} */
const COLUMNS = [
  { key: "name", title: "Name", value: (one) => one.name, cell: (one) => html`<b>${one.name}</b>${one.problem && html`<br /><span class="text-bad">${one.problem}</span>`}` },
  { key: "own", title: "This node", value: (/** @type {RosRow} */ one) => one.own && ROLES[one.kind][one.own], cell: (/** @type {RosRow} */ one) => (one.own ? ROLES[one.kind][one.own] : "") },
  { key: "kind", title: "Kind", value: (one) => one.kind },
  { key: "type", title: "Type", value: (one) => one.types.join(", "), cell: (one) => html`<code>${one.types.join(", ")}</code>` },
  { key: "offers", title: "Publishers, servers", value: (one) => one.counts[0], cell: (one) => names(one.offers, one.counts[0]) },
  { key: "uses", title: "Subscriptions, clients", value: (one) => one.counts[1], cell: (one) => names(one.uses, one.counts[1]) },
  { key: "qos", title: "QoS", value: (one) => one.qos.join("; ") },
];

/** @param {string[]} shown @param {number} count */
function names(shown, count) {
  const more = count - shown.length;
  return html`<span class=${count ? "" : "muted"}>${shown.join(", ") || "none"}${more > 0 && shown.length ? ` (${count} in all)` : ""}</span>`;
}

/** @param {{uuid: string, node: string, running: boolean}} props */
export function RosGraphView({ uuid, node, running }) {
  const [graph, setGraph] = useState(/** @type {RosGraph | null} */ (null));
  const [problem, setProblem] = useState("");
  const [search, setSearch] = useState("");
  useEffect(() => {
    if (!running) return undefined;
    let timer = 0;
    let current = true;
    const load = async () => {
      if (!document.hidden) {
        try {
          const found = await read("dataflows", uuid, "nodes", node, "ros");
          if (current) (setGraph(found.graph), setProblem(""));
        } catch (error) {
          if (current) setProblem(/** @type {Error} */ (error).message);
        }
      }
      if (current) timer = setTimeout(load, PERIOD_MS);
    };
    load();
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [uuid, node, running]);
  const wanted = search.trim().toLowerCase();
  const rows = (graph?.rows ?? []).filter((one) => [one.name, ...one.types, ...one.offers, ...one.uses].some((text) => text.toLowerCase().includes(wanted)));
  return html`<div class="panel ros">
    <h2>ROS graph ${graph && html`<span class="muted">${counted(graph.nodes.length, "node")} over ${graph.transport === "dds" ? "DDS" : "Zenoh"}; this one is ${graph.node}</span>`}
      ${graph && html`<${Search} label="Search the ROS graph" value=${search} change=${setSearch} />`}</h2>
    ${problem && html`<p class="text-warn">${problem}</p>`}
    ${graph === null && !problem && html`<p class="muted">${running ? "Waiting for the graph…" : "The node does not run."}</p>`}
    ${graph && html`<p class="muted nodes" title=${graph.nodes.join("\n")}>${graph.nodes.slice(0, 12).join(" ")}${graph.nodes.length > 12 ? " …" : ""}</p>
    <${Table} columns=${COLUMNS} rows=${rows} sort=${null} rowKey=${(/** @type {RosRow} */ one) => `${one.kind} ${one.name}`} caption="Topics, services and actions of ROS" />`}
    ${graph && graph.hidden > 0 && html`<p class="muted">${graph.hidden} more are not shown; use <code>dora ros2 topics</code>.</p>`}
  </div>`;
}
