/** Why a dataflow is in its state: first cause, timeline, what it waits for. */

import { html } from "htm/preact";
import { useEffect, useState } from "preact/hooks";

import { Empty } from "../components.js";
import { ago, clockAt } from "../format.js";
import { read } from "../requests.js";
import { link } from "../route.js";
import { store } from "../store.js";

/**
 * @typedef {{at: number, machine?: string, node?: string, text: string, problem: boolean, role: string}} Occurrence
 * @typedef {{at: number, machine?: string, node?: string, text: string, stderr: string[], resolved_at?: number}} Cause
 * @typedef {{kind: string, node?: string, machine?: string, text: string, inputs: string[]}} Finding
 * @typedef {{status: string, summary: string, now: number, cause?: Cause, timeline: Occurrence[], findings: Finding[], waits_for: string[], notes: string[]}} Explanation
 */

const MAX_EVENTS = 200;

/** `version` changes when it should be read again. @param {{uuid: string, version: string}} props */
export function Why({ uuid, version }) {
  const [found, setFound] = useState(/** @type {Explanation | null} */ (null));
  const [problem, setProblem] = useState("");
  const [wanted, setWanted] = useState(0);
  useEffect(() => {
    if (found !== null && !store.knows(uuid)) return undefined;
    let current = true;
    read("dataflows", uuid, "explanation").then(
      (answer) => current && (setFound(answer), setProblem("")),
      (error) => current && setProblem(error.message),
    );
    return () => {
      current = false;
    };
  }, [uuid, version, wanted]);
  if (found === null) {
    return problem ? html`<${Empty} title="No explanation">${problem}<//>` : html`<p class="muted pad">Reading the events of all machines…</p>`;
  }
  const left = found.timeline.length - MAX_EVENTS;
  return html`<div class="why">
    <div class="panel summary">
      ${found.summary !== found.cause?.text && html`<p><strong>${found.summary}</strong></p>`}
      ${found.waits_for.map((text) => html`<p key=${text} class="muted">${text}</p>`)}
      ${found.notes.map((text) => html`<p key=${text} class="muted">${text}</p>`)}
      <button type="button" onClick=${() => setWanted(wanted + 1)}>Read again</button>
      ${problem && html` <span class="text-warn">${problem}</span>`}
    </div>
    ${found.cause && html`<${FirstCause} cause=${found.cause} uuid=${uuid} />`}
    ${found.findings.length > 0 && html`<div class="panel"><h2>Flow of messages</h2><ul class="notes">${found.findings.map(
      (one) => html`<li key=${one.text}><b class="text-warn">${one.kind}</b> ${one.text}
        ${one.inputs.length > 0 && html`<span class="muted">inputs without messages: ${one.inputs.join(", ")}</span>`}</li>`,
    )}</ul></div>`}
    <div class="panel"><h2>Timeline</h2>
      ${found.timeline.length === 0 && html`<p class="muted">No events.</p>`}
      ${left > 0 && html`<p class="muted">${left} earlier events are not shown.</p>`}
      <ol class="timeline">${found.timeline.slice(-MAX_EVENTS).map(
        (one, index) => html`<li key=${index} class="${one.role} ${one.problem ? "problem" : ""}">
          <time title=${new Date(one.at * 1000).toLocaleString()}>${clockAt(one.at * 1000)}</time>
          <span class="where">${one.machine ?? ""}</span>
          <span>${one.node ? html`<a href=${link("dataflow", uuid, "node", one.node)}>${one.node}</a> ` : ""}${one.text}</span>
        </li>`,
      )}</ol>
    </div>
  </div>`;
}

/** @param {{cause: Cause, uuid: string}} props */
function FirstCause({ cause, uuid }) {
  return html`<div class="panel cause"><h2>First cause <span class="muted">${clockAt(cause.at * 1000)}, ${ago(cause.at)}${cause.resolved_at ? `, over ${ago(cause.resolved_at)}` : ""}</span></h2>
    <p>${cause.text} ${cause.node && html`<a href=${link("dataflow", uuid, "node", cause.node)}>Open ${cause.node}</a>`}</p>
    ${cause.stderr.length > 0 && html`<pre>${cause.stderr.join("\n")}</pre>`}
  </div>`;
}
