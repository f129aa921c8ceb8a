/** All machines, the links between them, and all dataflows. */

import { html } from "htm/preact";

import { Empty, Meter, Status, Table } from "../components.js";
import { ago, bytes, counted, micros, offset, percent, rate } from "../format.js";
import { go, link } from "../route.js";

/** @typedef {import("../types.js").State} State */
/** @typedef {import("../types.js").Machine} Machine */
/** @typedef {import("../types.js").Dataflow} Dataflow */
/** @typedef {import("../types.js").Link} Link */

const LARGEST_MATRIX = 24;
const CLOCK_WARNING_MS = 50;

/** @param {{state: State}} props */
export function FleetView({ state }) {
  const machines = Object.entries(state.machines);
  return html`<section class="view">
    <h1>Fleet</h1>
    <${Work} state=${state} />
    <div class="panel"><h2>Machines <span class="muted">${machines.length}</span></h2>
      ${machines.length === 0
        ? html`<${Empty} title="No machine is connected">Start a daemon with <code>dora daemon</code> or <code>dora up</code>.<//>`
        : html`<${Machines} machines=${machines} release=${state.source.release} />`}
    </div>
    <${Links} state=${state} />
    <div class="panel"><h2>Dataflows <span class="muted">${Object.keys(state.dataflows).length}</span></h2>
      <${Dataflows} state=${state} />
    </div>
  </section>`;
}

/** What is being recovered. @param {{state: State}} props */
function Work({ state }) {
  const busy = Object.entries(state.dataflows).filter(([, one]) =>
    ["Recovering", "Degraded", "Starting", "Stopping"].includes(one.status),
  );
  if (busy.length === 0) return null;
  return html`<ul class="notes">${busy.map(
    ([uuid, one]) => html`<li key=${uuid}><${Status} status=${one.status} />
      <a href=${link("dataflow", uuid)}>${one.name ?? uuid.slice(0, 8)}</a>
      ${one.reason && html`<span class="muted">${one.reason}</span>`}
      ${one.lastRecovery && html`<span class="muted">last recovery ${ago(one.lastRecovery.at)}</span>`}
    </li>`,
  )}</ul>`;
}

/** @param {{machines: [string, Machine][], release?: string}} props */
function Machines({ machines, release }) {
  /** @type {import("../components.js").Column[]} */
  const columns = [
    { key: "name", title: "Machine", value: ([name]) => name, cell: ([name]) => html`<b>${name}</b>` },
    {
      key: "status",
      title: "Health",
      value: ([, one]) => one.status,
      cell: ([, one]) => html`<${Status} status=${one.status} />${one.seenAt !== undefined &&
      html` <span class="muted">seen ${ago(one.seenAt)}</span>`}`,
    },
    { key: "nodes", title: "Nodes", numeric: true, value: ([, one]) => one.nodes },
    {
      key: "cpu",
      title: "CPU",
      value: ([, one]) => one.cpu,
      cell: ([, one]) => html`<${Meter} value=${one.cpu} total=${100} text=${percent(one.cpu)} />`,
    },
    {
      key: "memory",
      title: "Memory",
      value: ([, one]) => one.memory,
      cell: ([, one]) => html`<${Meter} value=${one.memory} total=${one.memoryTotal}
        text=${`${bytes(one.memory)} of ${bytes(one.memoryTotal)}`} />`,
    },
    {
      key: "disk",
      title: "Disk",
      value: ([, one]) => one.disk,
      cell: ([, one]) => html`<${Meter} value=${one.disk} total=${one.diskTotal}
        text=${`${bytes((one.diskTotal ?? 0) - (one.disk ?? 0))} free`} />`,
    },
    {
      key: "clock",
      title: "Clock",
      numeric: true,
      value: ([, one]) => one.offsetMs,
      cell: ([, one]) => html`<span class=${Math.abs(one.offsetMs ?? 0) > CLOCK_WARNING_MS ? "text-warn" : ""}>${offset(one.offsetMs)}</span>`,
    },
    { key: "restarts", title: "Restarts", numeric: true, value: ([, one]) => one.restarts },
    {
      key: "release",
      title: "Version",
      value: ([, one]) => one.release,
      cell: ([, one]) => {
        const older = (one.runners ?? []).filter((/** @type {string} */ version) => version !== one.release);
        return html`<span class=${release !== undefined && one.release !== release ? "text-warn" : ""}>${one.release}</span>
          ${older.length > 0 && html` <span class="muted" title="Runners keep the version they were started with">runs ${older.join(", ")}</span>`}`;
      },
    },
    { key: "address", title: "Address", value: ([, one]) => one.address, cell: ([, one]) => html`<code>${one.address}</code>` },
    {
      key: "labels",
      title: "Labels",
      value: ([, one]) => Object.entries(one.labels).join(),
      cell: ([, one]) => Object.entries(one.labels).map(([key, value]) => html`<span class="tag">${key}=${value}</span>`),
    },
  ];
  const known = columns.filter(
    ({ key }) =>
      (key !== "disk" || machines.some(([, one]) => one.disk !== undefined)) &&
      (key !== "labels" || machines.some(([, one]) => Object.keys(one.labels).length > 0)),
  );
  return html`<${Table} caption="Machines" columns=${known} rows=${machines} rowKey=${(/** @type {any} */ row) => row[0]}
    rowClass=${(/** @type {any} */ [, one]) => (one.status === "lost" ? "row-bad" : "")} />`;
}

/** Round trips between machines. @param {{state: State}} props */
function Links({ state }) {
  const links = Object.values(state.links);
  if (links.length === 0) return null;
  const names = [...new Set(links.flatMap((one) => [one.machine, one.peer]))].sort();
  if (names.length > LARGEST_MATRIX) return html`<${LinkList} links=${links} />`;
  return html`<div class="panel"><h2>Data links <span class="muted">round trip, seen from the row</span></h2>
    <div class="scroll"><table class="matrix">
      <caption class="hidden">Round trip times of data links</caption>
      <thead><tr><td></td>${names.map((name) => html`<th key=${name} scope="col">${name}</th>`)}</tr></thead>
      <tbody>${names.map(
        (row) => html`<tr key=${row}><th scope="row">${row}</th>
          ${names.map((column) => html`<${LinkCell} key=${column} link=${state.links[`${row}>${column}`]} same=${row === column} />`)}
        </tr>`,
      )}</tbody>
    </table></div>
  </div>`;
}

/** @param {{link: Link | undefined, same: boolean}} props */
function LinkCell({ link, same }) {
  if (same) return html`<td class="same"></td>`;
  if (link === undefined) return html`<td class="muted">·</td>`;
  const ok = link.state === "connected";
  const text = ok ? micros(link.rttUs) : link.state;
  return html`<td class=${ok ? "ok" : "bad"} title=${[link.endpoint, link.reason].filter(Boolean).join("\n")}>${text}</td>`;
}

/** @param {{links: Link[]}} props */
function LinkList({ links }) {
  const broken = links.filter((one) => one.state !== "connected");
  return html`<div class="panel"><h2>Data links <span class="muted">${counted(links.length, "link")}, ${broken.length} not connected</span></h2>
    <ul class="notes">${broken.slice(0, 100).map(
      (one) => html`<li key=${`${one.machine}>${one.peer}`}><span class="status bad"><i></i>${one.state}</span> ${one.machine} → ${one.peer}
        <span class="muted">${one.reason}</span></li>`,
    )}</ul>
  </div>`;
}

/** @param {{state: State}} props */
function Dataflows({ state }) {
  const rows = Object.entries(state.dataflows);
  if (rows.length === 0) {
    return html`<${Empty} title="No dataflow was started">Start one with <code>dora start dataflow.yml</code>.<//>`;
  }
  /** @type {import("../components.js").Column[]} */
  const columns = [
    {
      key: "name",
      title: "Dataflow",
      value: ([uuid, one]) => one.name ?? uuid,
      cell: ([uuid, one]) => html`<a href=${link("dataflow", uuid)}>${one.name ?? uuid.slice(0, 8)}</a>`,
    },
    {
      key: "status",
      title: "Status",
      value: ([, one]) => one.status,
      cell: ([, one]) => html`<${Status} status=${one.status} title=${one.reason} />${one.endedAt !== undefined &&
      html` <span class="muted">${ago(one.endedAt)}</span>`}`,
    },
    { key: "nodes", title: "Nodes", numeric: true, value: ([, one]) => one.nodes },
    { key: "failed", title: "Failed", numeric: true, value: ([, one]) => one.states.Failed, cell: ([, one]) => one.states.Failed ? html`<b class="text-bad">${one.states.Failed}</b>` : "–" },
    { key: "rate", title: "Messages", numeric: true, value: ([, one]) => one.rate, cell: ([, one]) => (one.rate ? rate(one.rate) : "–") },
    { key: "drops", title: "Drops", numeric: true, value: ([, one]) => one.dropRate, cell: ([, one]) => (one.dropRate ? html`<b class="text-warn">${rate(one.dropRate)}</b>` : "–") },
    { key: "cpu", title: "CPU", numeric: true, value: ([, one]) => one.cpu, cell: ([, one]) => percent(one.cpu) },
    { key: "memory", title: "Memory", numeric: true, value: ([, one]) => one.memory, cell: ([, one]) => bytes(one.memory) },
    { key: "restarts", title: "Restarts", numeric: true, value: ([, one]) => one.restarts },
    { key: "machines", title: "Machines", value: ([, one]) => one.machines.join(" "), cell: ([, one]) => one.machines.length > 4 ? counted(one.machines.length, "machine") : one.machines.join(", ") },
  ];
  return html`<${Table} caption="Dataflows" columns=${columns} rows=${rows} rowKey=${(/** @type {any} */ row) => row[0]}
    open=${(/** @type {any} */ row) => go("dataflow", row[0])} />`;
}
