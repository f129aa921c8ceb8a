/** Messages of one output: picture, plot, table or text, at the rate that the viewer chooses. */

import { html } from "htm/preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { Empty } from "../components.js";
import { bytes, clock, micros, rate, short } from "../format.js";
import { Plot } from "../plot.js";
import { link } from "../route.js";
import { store } from "../store.js";

/** @typedef {import("../types.js").State} State */
/** @typedef {import("../types.js").Sample} Sample */

const RATES = [1, 2, 5, 10, 30];
const MOST_SAMPLES = 600;
const MOST_LINES = 8;
const LONG_ARRAY = 16;
const TABLE_ROWS = 50;

/** @param {{state: State, uuid: string, node: string, output: string}} props */
export function OutputView({ state, uuid, node, output }) {
  const [wanted, setWanted] = useState(5);
  const [paused, setPaused] = useState(false);
  const [kind, setKind] = useState("auto");
  const topic = `${node}/${output}`;
  const stream = useSamples(uuid, topic, wanted, paused);
  const edge = Object.values(state.edges[uuid] ?? {}).find((one) => one.source === topic);
  const name = state.dataflows[uuid]?.name ?? uuid.slice(0, 8);
  const last = stream.samples[stream.samples.length - 1];
  const shown = kind === "auto" ? natural(last) : kind;
  return html`<section class="view tall">
    <header class="head">
      <p class="path"><a href=${link("dataflow", uuid)}>${name}</a> / <a href=${link("dataflow", uuid, "node", node)}>${node}</a> /</p>
      <h1>${output}</h1>
      <p class="facts">${edge?.rate !== undefined && html`<span>${rate(edge.rate)} sent</span><span>${bytes(edge.bytes)}/s</span><span title="Latency to ${edge.target}">${micros(edge.p50Us)}</span>`}
        <span data-shown=${stream.count}>${short(stream.count)} shown</span>
        <span data-dropped=${stream.dropped} class=${stream.dropped > 0 ? "text-warn" : ""} title="Messages between those that are shown">${short(stream.dropped)} not shown</span></p>
      <div class="actions">
        <label>Show <select value=${shown} onChange=${(/** @type {any} */ event) => setKind(event.currentTarget.value)}>
          ${["picture", "plot", "table", "text"].map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
        </select></label>
        <label>at most <select value=${String(wanted)} onChange=${(/** @type {any} */ event) => setWanted(Number(event.currentTarget.value))}>
          ${RATES.map((one) => html`<option key=${one} value=${one}>${one}/s</option>`)}
        </select></label>
        <button type="button" aria-pressed=${paused} onClick=${() => setPaused(!paused)}>${paused ? "Continue" : "Pause"}</button>
      </div>
    </header>
    ${stream.problem && html`<p class="banner warn">${stream.problem}</p>`}
    ${stream.notes.map((note) => html`<p key=${note} class="note">${note}</p>`)}
    <div class="panel fill output">
      ${last === undefined
        ? html`<${Empty} title=${stream.problem ? "No messages" : "Waiting for a message…"}><//>`
        : html`<${Content} kind=${shown} samples=${stream.samples} last=${last} count=${stream.count} />`}
    </div>
    ${last !== undefined && html`<${Metadata} sample=${last} />`}
  </section>`;
}

/** @param {string} uuid @param {string} topic @param {number} rate @param {boolean} paused */
function useSamples(uuid, topic, rate, paused) {
  const empty = { samples: /** @type {Sample[]} */ ([]), count: 0, dropped: 0, notes: /** @type {string[]} */ ([]), problem: "" };
  const [stream, setStream] = useState(empty);
  useEffect(() => {
    if (paused) return undefined;
    const open = store.live.open({ open: "output", dataflow: uuid, topic, rate }, (frame) => {
      if (frame.samples) {
        setStream((known) => ({
          samples: [...known.samples, ...frame.samples].slice(-MOST_SAMPLES),
          count: known.count + frame.samples.length,
          dropped: known.dropped + frame.dropped,
          notes: [...new Set([...known.notes, ...frame.notes])].slice(-3),
          problem: "",
        }));
        requestAnimationFrame(() => open.acknowledge());
      } else if (frame.lost) {
        setStream((known) => ({ ...known, problem: "connection lost; continues when it is back" }));
      } else if (frame.ended) {
        setStream((known) => ({ ...known, problem: frame.problems.join("; ") || "the dataflow has ended" }));
      }
    });
    return () => open.close();
  }, [uuid, topic, rate, paused]);
  return stream;
}

/** How a message is shown best. @param {Sample | undefined} sample */
function natural(sample) {
  if (sample === undefined) return "text";
  if (sample.picture !== undefined) return "picture";
  const values = Array.isArray(sample.data) ? sample.data : [sample.data];
  if (values.length > 0 && values.every((one) => typeof one === "number" || typeof one === "boolean")) return "plot";
  if (values.length > 0 && values.every((one) => one !== null && typeof one === "object" && !Array.isArray(one))) return "table";
  return "text";
}

/** @param {{kind: string, samples: Sample[], last: Sample, count: number}} props */
function Content({ kind, samples, last, count }) {
  if (kind === "picture") return html`<${PictureOf} sample=${last} />`;
  if (kind === "plot") return html`<${PlotOf} samples=${samples} last=${last} count=${count} />`;
  if (kind === "table") return html`<${TableOf} sample=${last} />`;
  return html`<pre class="values">${samples.slice(-200).map((one) => `${clock(new Date(one.timestamp).toISOString())}  ${JSON.stringify(one.data)}`).join("\n")}</pre>`;
}

const MEDIA = ["image/png", "image/jpeg", "image/webp", "image/avif"];

/** @param {{sample: Sample}} props */
function PictureOf({ sample }) {
  const image = useRef(/** @type {HTMLImageElement | null} */ (null));
  const picture = sample.picture;
  useEffect(() => {
    if (picture === undefined || !MEDIA.includes(picture.media)) return undefined;
    const content = Uint8Array.from(atob(picture.data), (character) => character.charCodeAt(0));
    const url = URL.createObjectURL(new Blob([content], { type: picture.media }));
    if (image.current !== null) image.current.src = url;
    return () => URL.revokeObjectURL(url);
  }, [picture]);
  if (picture === undefined) return html`<${Empty} title="Not a picture">A picture has the metadata <code>width</code>, <code>height</code> and <code>encoding</code>.<//>`;
  return html`<figure><img ref=${image} alt="Last picture" width=${picture.width} height=${picture.height} data-timestamp=${sample.timestamp} />
    <figcaption class="muted">${picture.width} × ${picture.height} ${picture.encoding}${picture.shownWidth !== picture.width ? `, shown at ${picture.shownWidth} × ${picture.shownHeight}` : ""}</figcaption></figure>`;
}

/** @param {{samples: Sample[], last: Sample, count: number}} props */
function PlotOf({ samples, last, count }) {
  const values = numbers(last);
  if (values.length > LONG_ARRAY) {
    return html`<${Plot} label="Values by index" time=${false} version=${count} lines=${[{ label: "value" }]}
      data=${[values.map((_, index) => index), values]} />`;
  }
  const width = Math.min(MOST_LINES, values.length);
  if (width === 0) return html`<${Empty} title="No numbers in this message" />`;
  const times = samples.map((one) => one.timestamp / 1000);
  const columns = Array.from({ length: width }, (_, index) => samples.map((one) => numbers(one)[index] ?? null));
  const lines = columns.map((_, index) => ({ label: width === 1 ? "value" : `[${index}]` }));
  return html`<${Plot} label="Values over time" version=${count} lines=${lines} data=${[times, ...columns]} />`;
}

/** Numbers of a message: an array, or the fields of a struct. @param {Sample} sample @returns {number[]} */
function numbers(sample) {
  /** @type {number[]} */
  const found = [];
  const visit = (/** @type {unknown} */ value) => {
    if (typeof value === "number") found.push(value);
    else if (typeof value === "boolean") found.push(Number(value));
    else if (Array.isArray(value)) value.forEach(visit);
    else if (value !== null && typeof value === "object") Object.values(value).forEach(visit);
  };
  visit(sample.data);
  return found;
}

/** @param {{sample: Sample}} props */
function TableOf({ sample }) {
  const rows = (Array.isArray(sample.data) ? sample.data : [sample.data]).slice(0, TABLE_ROWS);
  const keys = [...new Set(rows.flatMap((row) => (row !== null && typeof row === "object" && !Array.isArray(row) ? Object.keys(row) : ["value"])))];
  const text = (/** @type {any} */ row, /** @type {string} */ key) => {
    const value = row !== null && typeof row === "object" && !Array.isArray(row) ? row[key] : row;
    return typeof value === "number" ? String(Number(value.toPrecision(7))) : typeof value === "string" ? value : JSON.stringify(value);
  };
  return html`<div class="scroll"><table><thead><tr><th class="number">#</th>${keys.map((key) => html`<th key=${key}>${key}</th>`)}</tr></thead>
    <tbody>${rows.map((row, index) => html`<tr key=${index}><td class="number muted">${index}</td>${keys.map((key) => html`<td key=${key}><span class="cut">${text(row, key)}</span></td>`)}</tr>`)}</tbody></table></div>`;
}

/** @param {{sample: Sample}} props */
function Metadata({ sample }) {
  const facts = Object.entries({ ...sample.metadata, ...sample.shortened });
  return html`<div class="panel"><h2>Last message <span class="muted">${clock(new Date(sample.timestamp).toISOString())}</span></h2>
    <dl class="wide">${facts.map(([key, value]) => html`<dt key=${key}>${key}</dt><dd>${typeof value === "string" ? value : JSON.stringify(value)}</dd>`)}</dl>
    ${facts.length === 0 && html`<p class="muted">No metadata.</p>`}</div>`;
}
