/** What the fleet should run and what it runs, with the roll-out in progress and the history. */

import { html } from "htm/preact";

import { Empty, Status, Table, confirm, report } from "../components.js";
import { ago, counted } from "../format.js";
import { usePolled } from "../polling.js";
import { change, read } from "../requests.js";
import { link } from "../route.js";

/** @typedef {import("../types.js").FleetReport} FleetReport */
/** @typedef {import("../types.js").FleetEntry} FleetEntry */
/** @typedef {import("../types.js").State} State */

const BY = "dora ui";

/** @returns {Promise<{fleet: FleetReport, history: FleetEntry[]}>} */
async function readAll() {
  const [fleet, history] = await Promise.all([read("fleet"), read("fleet", "history")]);
  return { fleet, history: [...history.generations].reverse() };
}

/** @param {{state: State}} props */
export function RolloutView({ state }) {
  const [found, problem, reload] = usePolled(readAll, state.source.problem !== undefined);
  if (found === null) return html`<section class="view"><h1>Desired state</h1>${problem && html`<p class="text-bad" role="alert">${problem}</p>`}</section>`;
  const { fleet, history } = found;
  const act = async (/** @type {string} */ verb, /** @type {object} */ body, /** @type {string} */ done) => {
    await report(change(["fleet", verb], { by: BY, ...body }), done);
    reload();
  };
  return html`<section class="view">
    <h1>Desired state</h1>
    ${problem && html`<p class="text-bad" role="alert">${problem}</p>`}
    ${fleet.generation === 0
      ? html`<${Empty} title="Nothing was applied">Describe the fleet in a file and run <code>dora cluster apply FILE</code>.<//>`
      : html`<${Present} fleet=${fleet} readOnly=${state.source.readOnly} act=${act} />
          <div class="panel"><h2>Machines</h2><${Copies} fleet=${fleet} state=${state} /></div>
          <div class="panel"><h2>History <span class="muted">${history.length}</span></h2>
            <${History} history=${history} fleet=${fleet} readOnly=${state.source.readOnly} act=${act} /></div>`}
  </section>`;
}

/** @param {FleetReport} fleet */
function progress(fleet) {
  if (fleet.paused !== null) return ["paused", `paused: ${fleet.paused}`];
  if (fleet.settled) return [fleet.outcome.includes("failed") ? "failed" : "current", fleet.outcome];
  const batch = fleet.batches > 0 ? `batch ${fleet.batch} of ${fleet.batches}` : "in progress";
  return ["changing", fleet.waits_for === "" ? batch : `${batch}, waits for ${fleet.waits_for}`];
}

/** The generation and its roll-out. @param {{fleet: FleetReport, readOnly: boolean, act: (verb: string, body: object, done: string) => Promise<void>}} props */
function Present({ fleet, readOnly, act }) {
  const [status, text] = progress(fleet);
  const held = fleet.copies.flatMap((one) => one.held.map((hold) => `${one.name}: ${hold}`));
  return html`<div class="panel"><h2>Generation ${fleet.generation}</h2>
    <p><${Status} status=${status} /> <span class="rollout">${text}</span> <span class="muted">by ${fleet.by || "unknown"}, ${ago(fleet.at)}</span></p>
    ${held.length > 0 && html`<p>Nodes that hold updates:</p><ul class="notes">${held.map((one) => html`<li key=${one}>${one}</li>`)}</ul>`}
    ${!readOnly && html`<div class="toolbar">
      ${fleet.paused === null
        ? html`<button type="button" onClick=${() => act("pause", {}, "the fleet is paused")}>Pause</button>`
        : html`<button type="button" onClick=${() => act("resume", {}, "the fleet is resumed")}>Resume</button>`}
    </div>`}
  </div>`;
}

/** Desired and observed, per machine. @param {{fleet: FleetReport, state: State}} props */
function Copies({ fleet, state }) {
  const uuids = new Map(Object.entries(state.dataflows).map(([uuid, one]) => [one.name, uuid]));
  /** @type {import("../components.js").Column[]} */
  const columns = [
    {
      key: "name",
      title: "Dataflow",
      value: (one) => one.name,
      cell: (one) => (uuids.has(one.name) ? html`<a href=${link("dataflow", uuids.get(one.name) ?? "")}>${one.name}</a>` : one.name),
    },
    { key: "machine", title: "Machine", value: (one) => one.machine ?? "" },
    { key: "desired", title: "Desired", numeric: true, value: (one) => one.desired ?? 0, cell: (one) => one.desired ?? "stopped" },
    { key: "observed", title: "Observed", numeric: true, value: (one) => one.observed ?? 0, cell: (one) => one.observed ?? "–" },
    {
      key: "state",
      title: "State",
      value: (one) => one.state,
      cell: (one) => html`<${Status} status=${one.state} /> <span class="muted">${one.detail}</span>`,
    },
  ];
  return html`<${Table} caption="Desired and observed" columns=${columns} rows=${fleet.copies} rowKey=${(/** @type {any} */ one) => one.name}
    rowClass=${(/** @type {any} */ one) => (one.state === "failed" ? "row-bad" : "")} />`;
}

/** @param {{history: FleetEntry[], fleet: FleetReport, readOnly: boolean, act: (verb: string, body: object, done: string) => Promise<void>}} props */
function History({ history, fleet, readOnly, act }) {
  const rollBack = (/** @type {number} */ number) =>
    confirm({
      title: `Return to generation ${number}?`,
      text: "It is applied again as a new generation, in the waves of its roll-out. Nodes that do not differ keep running.",
      action: "Roll back",
      danger: true,
      run: () => act("rollback", { to: number }, `generation ${number} is applied again`),
    });
  return html`<div class="scroll"><table>
    <caption class="hidden">History of the fleet</caption>
    <thead><tr><th class="number">Generation</th><th>When</th><th>Who</th><th>Changes</th><th>Outcome</th><th></th></tr></thead>
    <tbody>${history.map((one) => html`<tr key=${one.generation}>
      <td class="number">${one.generation}</td>
      <td>${ago(one.at)}</td>
      <td>${one.action} by ${one.by || "unknown"}</td>
      <td>${one.changes.length > 4
        ? html`<details><summary>${counted(one.changes.length, "line")}</summary>${one.changes.map((line) => html`<div>${line}</div>`)}</details>`
        : one.changes.map((line) => html`<div>${line}</div>`)}</td>
      <td>${one.outcome}</td>
      <td class="number">${!readOnly && one.generation !== fleet.generation && html`<button type="button" onClick=${() => rollBack(one.generation)}>Roll back</button>`}</td>
    </tr>`)}</tbody>
  </table></div>`;
}
