/** Recordings of all machines: start, list, stop, download. */

import { html } from "htm/preact";
import { Empty, report } from "../components.js";
import { ago, bytes, short } from "../format.js";
import { usePolled } from "../polling.js";
import { change, read } from "../requests.js";

/**
 * @typedef {{id: string, name: string, startedAt: Record<string, number>, phase: string, bytes: number,
 *   messages: number, lost: number, problems: string[],
 *   machines: Record<string, {name: string, bytes: number}[]>, missing: string[]}} Recording
 */

/** @returns {Promise<{recordings: Recording[], problems: string[]}>} */
const readRecordings = () => read("recordings");

/** @param {{state: import("../types.js").State}} props */
export function RecordingsView({ state }) {
  const [found, problem, reload] = usePolled(readRecordings, state.source.problem !== undefined);
  const stop = async (/** @type {Recording} */ one) => {
    await report(change(["recordings", one.id, "stop"]), `the recording of ${one.name} was stopped`);
    reload();
  };
  return html`<section class="view">
    <h1>Recordings</h1>
    ${problem && html`<p class="banner warn">${problem}</p>`}
    ${found?.problems.map((text) => html`<p key=${text} class="note">${text}</p>`)}
    <div class="panel">
      ${!state.source.readOnly && html`<${Start} state=${state} started=${reload} />`}
      ${found !== null && found.recordings.length === 0 && html`<${Empty} title="No recordings">${state.source.readOnly ? "Start one" : "Start one here, in the view of a dataflow, or"} with <code>dora record --attach</code>.<//>`}
      ${found !== null && found.recordings.length > 0 && html`<div class="scroll"><table>
        <caption class="hidden">Recordings</caption>
        <thead><tr><th>Dataflow</th><th>State</th><th>Started</th><th class="number">Messages</th><th class="number">Not recorded</th><th>Files</th><th></th></tr></thead>
        <tbody>${found.recordings.map((one) => html`<${Row} key=${one.id} one=${one} state=${state} stop=${stop} />`)}</tbody>
      </table></div>`}
    </div>
    <p class="muted">Each machine records its own outputs to its own disk. <code>dora record fetch</code> merges them into one file.</p>
  </section>`;
}

/** A form that starts a recording. @param {{state: import("../types.js").State, started: () => void}} props */
function Start({ state, started }) {
  const running = Object.entries(state.dataflows).filter(([, one]) => one.endedAt === undefined);
  if (running.length === 0) return null;
  const start = async (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const form = /** @type {HTMLFormElement} */ (event.currentTarget);
    const data = new FormData(form);
    const uuid = String(data.get("dataflow"));
    const patterns = String(data.get("patterns")).split(/[\s,]+/).filter(Boolean);
    const seconds = String(data.get("seconds"));
    const wanted = { patterns, max_seconds: seconds === "" ? null : Number(seconds) };
    const name = state.dataflows[uuid]?.name ?? uuid.slice(0, 8);
    const answer = await report(change(["dataflows", uuid, "record"], wanted), `${name} is being recorded`);
    if (answer !== undefined) form.reset();
    started();
  };
  return html`<form class="toolbar" onSubmit=${start}>
    <label>Record <select name="dataflow">${running.map(([uuid, one]) => html`<option key=${uuid} value=${uuid}>${one.name ?? ""} ${uuid.slice(0, 8)}</option>`)}</select></label>
    <label>Outputs <input name="patterns" placeholder="all, or camera/* arm/pose" /></label>
    <label>Seconds <input name="seconds" type="number" min="1" placeholder="until stopped" /></label>
    <button type="submit">Start recording</button>
  </form>`;
}

/** When the last machine has started, corrected by the offset of its clock. @param {Recording} one @param {import("../types.js").State} state */
function startOf(one, state) {
  const times = Object.entries(one.startedAt).map(([name, at]) => at - (state.machines[name]?.offsetMs ?? 0) / 1000);
  return Math.max(...times);
}

/** @param {{one: Recording, state: import("../types.js").State, stop: (one: Recording) => void}} props */
function Row({ one, state, stop }) {
  const ended = one.phase === "ended";
  return html`<tr>
    <td><b>${one.name}</b> <code class="muted">${one.id.slice(0, 8)}</code></td>
    <td><span class="status ${ended ? "done" : "busy"}"><i></i>${one.phase}</span></td>
    <td>${ago(startOf(one, state))}</td>
    <td class="number">${short(one.messages)}</td>
    <td class="number">${one.lost > 0 ? html`<b class="text-warn">${short(one.lost)}</b>` : "0"}</td>
    <td>${Object.entries(one.machines).map(
      ([machine, files]) => html`<div key=${machine}>${files.map((file) => html`<a key=${file.name} href=${`api/recordings/${[one.id, machine, file.name].map(encodeURIComponent).join("/")}`} download>${machine}</a> <span class="muted">${bytes(file.bytes)}</span> `)}${files.length === 0 && html`<span class="muted">${machine}: no file</span>`}</div>`,
    )}${one.missing.map((machine) => html`<div key=${machine} class="text-warn">${machine} does not answer</div>`)}
    ${one.problems.map((text) => html`<div key=${text} class="text-warn cut">${text}</div>`)}</td>
    <td class="number">${!ended && !state.source.readOnly && html`<button type="button" onClick=${() => stop(one)}>Stop recording</button>`}</td>
  </tr>`;
}
