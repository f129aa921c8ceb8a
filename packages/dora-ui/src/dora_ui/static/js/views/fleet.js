/** All machines, the links between them, and all dataflows. */

import { html } from "htm/preact";
import { useState } from "preact/hooks";

import { Empty, Figure, Meter, Search, Spark, Status, Table } from "../components.js";
import { ago, bytes, counted, micros, offset, percent, rate, short, since } from "../format.js";
import { go, link } from "../route.js";
import { LOAD_SECONDS, store } from "../store.js";
import { Links } from "./links.js";

/** @typedef {import("../types.js").State} State */
/** @typedef {import("../types.js").Machine} Machine */
/** @typedef {import("../types.js").Dataflow} Dataflow */

const MANY = 24;
const CLOCK_WARNING_MS = 50;

/** @param {{state: State}} props */
export function FleetView({ state }) {
  const machines = Object.entries(state.machines);
  return html`<section class="view">
    <h1>${state.source.local ? "This computer" : "Fleet"}</h1>
    <${Summary} state=${state} />
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

/** The whole fleet in a few figures. @param {{state: State}} props */
function Summary({ state }) {
  const machines = Object.values(state.machines);
  const connected = machines.filter((one) => one.status === "connected").length;
  const lost = machines.filter((one) => one.status === "lost").length;
  const live = Object.values(state.dataflows).filter((one) => one.endedAt === undefined);
  const troubled = live.filter((one) => one.status !== "Running").length;
  const nodes = live.reduce((sum, one) => sum + one.nodes, 0);
  const failed = live.reduce((sum, one) => sum + (one.states.Failed ?? 0), 0);
  const restarts = live.reduce((sum, one) => sum + one.restarts, 0);
  const messages = live.reduce((sum, one) => sum + (one.rate ?? 0), 0);
  const drops = live.reduce((sum, one) => sum + (one.dropRate ?? 0), 0);
  const measured = live.length === 0 || live.some((one) => one.rate !== undefined);
  const links = Object.values(state.links);
  const broken = links.filter((one) => one.state !== "connected").length;
  const slowest = Math.max(...links.map((one) => one.rttUs ?? 0));
  return html`<dl class="figures">
    <${Figure} name="Machines" value=${connected} tone=${lost > 0 ? "bad" : ""} note=${lost > 0 ? `${lost} not reachable` : "connected"} />
    <${Figure} name="Dataflows" value=${live.length} tone=${troubled > 0 ? "warn" : ""} note=${troubled > 0 ? `${troubled} not running` : "running"} />
    <${Figure} name="Nodes" value=${short(nodes)} tone=${failed > 0 ? "bad" : ""} note=${failed > 0 ? `${failed} failed` : counted(restarts, "restart")} />
    <${Figure} name="Messages" value=${measured ? rate(messages) : "–"} tone=${drops > 0 ? "warn" : ""} note=${drops > 0 ? `${rate(drops)} dropped` : measured ? "none dropped" : "measuring…"} />
    ${links.length > 0 && html`<${Figure} name="Data links" value=${links.length} tone=${broken > 0 ? "bad" : ""} note=${broken > 0 ? `${broken} not connected` : `slowest ${micros(slowest)}`} />`}
  </dl>`;
}

/** @type {Record<string, string>} What a command of `dora cluster` does. */
const DOING = {
  up: "Starting",
  install: "Installing",
  upgrade: "Upgrading",
  rollback: "Rolling back",
  restart: "Restarting",
  down: "Clearing",
  uninstall: "Uninstalling",
};

/** @param {string} command such as `dora cluster upgrade fleet.yml` */
function doing(command) {
  const [program, group, verb] = command.split(" ");
  return (program === "dora" && group === "cluster" && DOING[verb]) || command;
}

/** What is being upgraded, recovered or not reachable, and since when. @param {{state: State}} props */
function Work({ state }) {
  const machines = Object.entries(state.machines);
  /** @type {Map<string, [string, Machine][]>} */
  const operations = new Map();
  for (const entry of machines) {
    const one = entry[1].operation;
    if (one === undefined) continue;
    const key = `${one.command}\n${one.operator}`;
    operations.set(key, [...(operations.get(key) ?? []), entry]);
  }
  const lost = machines.filter(([, one]) => one.status === "lost");
  const busy = Object.entries(state.dataflows).filter(([, one]) =>
    ["Recovering", "Degraded", "Starting", "Stopping"].includes(one.status),
  );
  if (operations.size + lost.length + busy.length === 0) return null;
  return html`<div class="panel"><h2>In progress</h2><ul class="notes">
    ${[...operations].map(([key, members]) => html`<${Operation} key=${key} members=${members} />`)}
    ${lost.map(([name, one]) => html`<li key=${name}><${Status} status="lost" /> <b>${name}</b>
      <span class="muted">not reachable${one.seenAt === undefined ? "" : ` for ${since(one.seenAt)}`}${one.nodes > 0 ? `; ${counted(one.nodes, "node")} there` : ""}</span></li>`)}
    ${busy.map(([uuid, one]) => html`<li key=${uuid}><${Status} status=${one.status} />
      <a href=${link("dataflow", uuid)}>${one.name ?? uuid.slice(0, 8)}</a>
      <span class="muted">${[one.reason, incompleteSince(one, state)].filter(Boolean).join(", ")}</span></li>`)}
  </ul></div>`;
}

/** Since when a dataflow is not complete. @param {Dataflow} one @param {State} state */
function incompleteSince(one, state) {
  const away = one.machines.map((name) => state.machines[name]).filter((machine) => machine?.status === "lost");
  const times = away.map((machine) => machine.seenAt).filter((at) => at !== undefined);
  if (times.length > 0) return `for ${since(Math.min(...times))}`;
  return one.lastRecovery === undefined ? "" : `last recovery ${ago(one.lastRecovery.at)}: ${one.lastRecovery.cause}`;
}

/** A command that works on machines. @param {{members: [string, Machine][]}} props */
function Operation({ members }) {
  const { command, operator } = /** @type {NonNullable<Machine["operation"]>} */ (members[0][1].operation);
  const times = members.map(([, one]) => one.operation?.since).filter((at) => at !== undefined);
  /** @type {Map<string, number>} */
  const versions = new Map();
  for (const [, one] of members) versions.set(one.release, (versions.get(one.release) ?? 0) + 1);
  const names = members.map(([name]) => name);
  return html`<li><span class="status busy"><i></i>${doing(command)}</span>
    <b>${names.length > 4 ? counted(names.length, "machine") : names.join(", ")}</b>
    <span class="muted">${[times.length === 0 ? "" : `for ${since(Math.min(...times))}`, operator && `by ${operator}`].filter(Boolean).join(", ")}${versions.size > 1
      ? `; now ${[...versions].map(([version, count]) => `${count} × ${version}`).join(", ")}`
      : ""}</span> <code class="muted" title=${command}>${command}</code></li>`;
}

/** Texts by which a machine is found. @param {string} name @param {Machine} one */
const wordsOf = (name, one) => [name, one.status, one.address, one.release, ...Object.entries(one.labels).map(([key, value]) => `${key}=${value}`)];

/** @param {{machines: [string, Machine][], release?: string}} props */
function Machines({ machines, release }) {
  const [search, setSearch] = useState("");
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
      cell: ([name, one]) => html`<${Spark} values=${store.load.get(name) ?? []} length=${LOAD_SECONDS} text=${percent(one.cpu)} />`,
    },
    {
      key: "memory",
      title: "Memory",
      value: ([, one]) => one.memory,
      cell: ([, one]) => html`<${Meter} value=${one.memory} total=${one.memoryTotal}
        text=${`${bytes(one.memory)} / ${bytes(one.memoryTotal)}`} />`,
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
      (key !== "address" || machines.some(([, one]) => one.address !== "")) &&
      (key !== "clock" || machines.some(([, one]) => one.offsetMs !== undefined)) &&
      (key !== "disk" || machines.some(([, one]) => one.disk !== undefined)) &&
      (key !== "labels" || machines.some(([, one]) => Object.keys(one.labels).length > 0)),
  );
  const text = search.trim().toLowerCase();
  const rows = text === "" ? machines : machines.filter(([name, one]) => wordsOf(name, one).some((word) => word.toLowerCase().includes(text)));
  return html`
    ${machines.length > MANY && html`<div class="toolbar"><${Search} label="Find a machine" value=${search} change=${setSearch} />
      <span class="muted" role="status">${text === "" ? counted(machines.length, "machine") : `${rows.length} of ${counted(machines.length, "machine")}`}</span></div>`}
    <${Table} caption="Machines" columns=${known} rows=${rows} rowKey=${(/** @type {any} */ row) => row[0]}
    rowClass=${(/** @type {any} */ [, one]) => (one.status === "lost" ? "row-bad" : "")} />`;
}

/** Live ones first, then those that ended last. @param {Dataflow} one */
const order = (one) => one.endedAt ?? Infinity;

/** @param {{state: State}} props */
function Dataflows({ state }) {
  const rows = Object.entries(state.dataflows).sort(([, a], [, b]) => (order(a) === order(b) ? 0 : order(b) - order(a)));
  if (rows.length === 0) {
    return html`<${Empty} title="No dataflow was started">Start one with <code>dora start dataflow.yml</code>.<//>`;
  }
  /** @type {import("../components.js").Column[]} */
  const columns = [
    {
      key: "name",
      title: "Dataflow",
      value: ([uuid, one]) => one.name ?? uuid,
      cell: ([uuid, one]) => html`<a href=${link("dataflow", uuid)}>${one.name ?? uuid.slice(0, 8)}</a>${one.name !== undefined && html` <code class="muted">${uuid.slice(0, 8)}</code>`}`,
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
  return html`<${Table} caption="Dataflows" sort=${null} columns=${columns} rows=${rows} rowKey=${(/** @type {any} */ row) => row[0]}
    open=${(/** @type {any} */ row) => go("dataflow", row[0])} />`;
}
