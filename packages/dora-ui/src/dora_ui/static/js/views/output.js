/** Messages of outputs, side by side: picture, plot, table or text, at the rate that the viewer chooses. */

import { html } from "htm/preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { Empty } from "../components.js";
import { bytes, clockAt, exact, micros, rate, short } from "../format.js";
import { Plot } from "../plot.js";
import { usePointer } from "../pointer.js";
import { go, link } from "../route.js";
import { store } from "../store.js";
import { useGraph } from "./dataflow.js";

/** @typedef {import("../types.js").State} State */
/** @typedef {import("../types.js").Sample} Sample */
/** @typedef {import("../types.js").Overlay} Overlay */
/** @typedef {{text: string, at: number}} Note */

const RATES = [1, 2, 5, 10, 30];
/** Of outputs that are drawn over a picture, so that one is near the picture in time. */
const LAYER_RATE = 30;
const MAX_SAMPLES = 600;
const LARGE = 1000;
const MAX_LARGE = 20;
const MAX_LINES = 8;
const LONG_ARRAY = 16;
const TABLE_ROWS = 50;
const MAX_TEXTS = 200;
const MAX_VALUES = 40;
/** Pixels of small images are shown as squares. */
const SMALL = 200;
const MAX_ZOOM = 40;
/** A note is shown for this time, and then until the next message. */
const NOTE_MS = 10000;

/**
 * Outputs side by side; `topics` are pairs of a node and an output.
 * @param {{state: State, uuid: string, topics: [string, string][]}} props
 */
export function OutputView({ state, uuid, topics }) {
  const [wanted, setWanted] = useState(5);
  const [paused, setPaused] = useState(false);
  const { graph } = useGraph(state, uuid);
  const name = state.dataflows[uuid]?.name ?? uuid.slice(0, 8);
  const show = (/** @type {[string, string][]} */ next) => go("dataflow", uuid, "output", ...next.flat());
  const others = (graph?.nodes ?? []).flatMap((one) => one.outputs.map((output) => /** @type {[string, string]} */ ([one.id, output.id])));
  const missing = others.filter(([node, output]) => !topics.some((one) => one[0] === node && one[1] === output));
  const [first] = topics;
  return html`<section class="view tall">
    <header class="head">
      <p class="path"><a href=${link("dataflow", uuid)}>${name}</a> /${topics.length === 1 && html` <a href=${link("dataflow", uuid, "node", first[0])}>${first[0]}</a> /`}</p>
      <h1>${topics.length === 1 ? first[1] : `${topics.length} outputs`}</h1>
      <div class="actions">
        ${missing.length > 0 && html`<label>Beside <select value="" onChange=${(/** @type {any} */ event) => show([...topics, missing[Number(event.currentTarget.value)]])}>
          <option value="">another output…</option>${missing.map((one, index) => html`<option key=${one.join("/")} value=${index}>${one.join("/")}</option>`)}
        </select></label>`}
        <label>at most <select value=${String(wanted)} onChange=${(/** @type {any} */ event) => setWanted(Number(event.currentTarget.value))}>
          ${RATES.map((one) => html`<option key=${one} value=${one}>${one}/s</option>`)}
        </select></label>
        <button type="button" aria-pressed=${paused} onClick=${() => setPaused(!paused)}>${paused ? "Continue" : "Pause"}</button>
      </div>
    </header>
    <div class="outputs ${topics.length > 1 ? "several" : ""}">${topics.map(([node, output]) => html`<${Output} key=${`${node}/${output}`} state=${state} uuid=${uuid} node=${node} output=${output}
      rate=${wanted} paused=${paused} others=${others} close=${topics.length > 1 ? () => show(topics.filter((one) => one[0] !== node || one[1] !== output)) : null} />`)}</div>
  </section>`;
}

/**
 * `close` is null for the only output of the view.
 * @param {{state: State, uuid: string, node: string, output: string, rate: number, paused: boolean, others: [string, string][], close: (() => void) | null}} props
 */
function Output({ state, uuid, node, output, rate: wanted, paused, others, close }) {
  const [kind, setKind] = useState("auto");
  const [over, setOver] = useState(/** @type {string[]} */ ([]));
  const [drawn, setDrawn] = useState(/** @type {Record<string, Sample[]>} */ ({}));
  const topic = `${node}/${output}`;
  const stream = useSamples(uuid, topic, wanted, paused);
  const edge = Object.values(state.edges[uuid] ?? {}).find((one) => one.source === topic);
  const last = stream.samples[stream.samples.length - 1];
  const shown = kind === "auto" ? natural(stream.samples) : kind;
  useEffect(() => {
    if (shown !== "picture" || !isDecodable(last)) stream.settled.current();
  }, [last, shown]);
  const toggle = (/** @type {string} */ one) => setOver(over.includes(one) ? over.filter((other) => other !== one) : [...over, one]);
  const draw = (/** @type {string} */ one, /** @type {Sample[]} */ samples) => setDrawn((known) => ({ ...known, [one]: samples }));
  // What was found in a picture is sent after it.
  const layers = over.flatMap((one) => ((drawn[one] ?? []).find((sample) => sample.timestamp >= last?.timestamp) ?? drawn[one]?.at(-1))?.overlay ?? []);
  return html`<div class="output-pane">
    <header class="head">
      ${close && html`<h2><a href=${link("dataflow", uuid, "output", node, output)}>${topic}</a></h2>`}
      <p class="facts">${edge?.rate !== undefined && html`<span>${rate(edge.rate)} sent</span>${edge.bytes !== undefined && html`<span>${bytes(edge.bytes)}/s</span>`}<span title="Time from sending to receipt by ${edge.target}, of half of the messages">latency ${micros(edge.p50Us)}</span>`}
        <span data-shown=${stream.count}>${short(stream.count)} shown</span>
        <span data-dropped=${stream.dropped} title="Messages between those that are shown; nodes receive all of them">${short(stream.dropped)} not shown</span></p>
      <div class="actions">
        ${shown === "picture" && others.length > 1 && html`<details class="choices"><summary class="button">Draw over it${over.length > 0 ? `: ${over.length}` : ""}</summary>
          <ul>${others.map((one) => one.join("/")).filter((one) => one !== topic).map((one) => html`<li key=${one}><label><input type="checkbox" checked=${over.includes(one)} onChange=${() => toggle(one)} /> ${one}</label></li>`)}</ul></details>`}
        <label>Show <select value=${shown} onChange=${(/** @type {any} */ event) => setKind(event.currentTarget.value)}>
          ${["picture", "plot", "table", "text"].map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
        </select></label>
        ${close && html`<button type="button" class="icon" onClick=${close} aria-label=${`Close ${topic}`}>✕</button>`}
      </div>
    </header>
    ${stream.problem && html`<p class="banner warn">${stream.problem}</p>`}
    ${stream.notes.map(({ text }) => html`<p key=${text} class="note">${text}</p>`)}
    ${last?.unshown && html`<p class="banner warn">No picture: ${last.unshown}.</p>`}
    ${shown === "picture" && over.map((one) => html`<${Layer} key=${one} uuid=${uuid} topic=${one} paused=${paused} draw=${draw} />`)}
    <div class="split ${last === undefined || close ? "single" : ""}">
      <div class="panel fill output">
        ${last === undefined
          ? html`<${Empty} title=${stream.problem ? "No messages" : paused ? "Paused" : "Waiting for a message…"}>${paused && !stream.problem && "No message has arrived before the pause."}<//>`
          : html`<${Content} kind=${shown} samples=${stream.samples} last=${last} count=${stream.count} settled=${stream.settled} layers=${layers} />`}
      </div>
      ${last !== undefined && !close && html`<${Metadata} sample=${last} />`}
    </div>
  </div>`;
}

/**
 * Reads an output that is drawn over another one; shows only why it cannot be drawn.
 * @param {{uuid: string, topic: string, paused: boolean, draw: (topic: string, samples: Sample[]) => void}} props
 */
function Layer({ uuid, topic, paused, draw }) {
  const { samples, problem, settled } = useSamples(uuid, topic, LAYER_RATE, paused);
  const last = samples[samples.length - 1];
  useEffect(() => {
    draw(topic, samples.slice(-LAYER_RATE));
    settled.current();
  }, [last]);
  if (problem) return html`<p class="banner warn">${topic}: ${problem}</p>`;
  return last === undefined || last.overlay ? null : html`<p class="note">${topic} has no boxes, points or masks.</p>`;
}

/** Number of messages that are kept: fewer large ones. @param {Sample[]} samples */
function kept(samples) {
  const last = samples[samples.length - 1];
  if (last?.picture !== undefined) return 1;
  return last !== undefined && (last.shortened !== undefined || numbers(last).length > LARGE) ? MAX_LARGE : MAX_SAMPLES;
}

/** @param {string} uuid @param {string} topic @param {number} rate @param {boolean} paused */
function useSamples(uuid, topic, rate, paused) {
  const empty = { samples: /** @type {Sample[]} */ ([]), count: 0, dropped: 0, notes: /** @type {Note[]} */ ([]), problem: "" };
  const [stream, setStream] = useState(empty);
  const settled = useRef(() => {});
  useEffect(() => {
    if (paused) return undefined;
    const open = store.live.open({ open: "output", dataflow: uuid, topic, rate }, (frame) => {
      if (frame.samples) {
        settled.current = () => {
          settled.current = () => {};
          requestAnimationFrame(() => open.acknowledge());
        };
        setStream((known) => ({
          samples: [...known.samples, ...frame.samples].slice(-kept(frame.samples)),
          count: known.count + frame.samples.length,
          dropped: known.dropped + frame.dropped,
          notes: frame.samples.length + frame.notes.length > 0 ? notesOf(known.notes, frame.notes) : known.notes,
          problem: "",
        }));
        // `PictureOf` decodes a picture first: a browser that is too slow for the rate receives fewer.
        if (frame.samples.every((/** @type {Sample} */ one) => one.picture === undefined)) settled.current();
      } else if (frame.lost) {
        setStream((known) => ({ ...known, problem: "connection lost; continues when it is back" }));
      } else if (frame.ended) {
        setStream((known) => ({ ...known, problem: frame.problems.join("; ") || "the dataflow has ended" }));
      }
    });
    return () => open.close();
  }, [uuid, topic, rate, paused]);
  return { ...stream, settled };
}

/**
 * Notes that are shown: the last ones, each for some seconds after it was sent.
 * @param {Note[]} known
 * @param {string[]} fresh
 */
function notesOf(known, fresh) {
  const now = Date.now();
  const left = known.filter((one) => one.at > now - NOTE_MS && !fresh.includes(one.text));
  return [...left, ...fresh.map((text) => ({ text, at: now }))].slice(-3);
}

/** @param {Sample} sample @returns {any[]} */
const valuesOf = (sample) => (Array.isArray(sample.data) ? sample.data : [sample.data]);

/** How messages are shown best: as the last one with values. NaN and infinity arrive as null. @param {Sample[]} samples */
function natural(samples) {
  const sample = samples.findLast((one) => one.picture !== undefined || valuesOf(one).some((value) => value !== null));
  if (sample === undefined) return "text";
  if (sample.picture !== undefined) return "picture";
  const values = valuesOf(sample);
  if (values.every((one) => one === null || typeof one === "number" || typeof one === "boolean")) return "plot";
  if (values.every((one) => one !== null && typeof one === "object" && !Array.isArray(one))) return "table";
  return "text";
}

/** @param {{kind: string, samples: Sample[], last: Sample, count: number, settled: {current: () => void}, layers: Overlay[]}} props */
function Content({ kind, samples, last, count, settled, layers }) {
  if (kind === "picture") return html`<${PictureOf} key=${String(last.picture !== undefined)} sample=${last} settled=${settled} layers=${layers} />`;
  if (kind === "plot") return html`<${PlotOf} samples=${samples} last=${last} count=${count} />`;
  if (kind === "table") return html`<${TableOf} sample=${last} />`;
  const newest = samples.slice(-MAX_TEXTS).reverse();
  return html`<div class="values">${newest.map((one) => html`<p key=${one.timestamp}><time>${clockAt(one.timestamp)}</time> ${text(one)}</p>`)}</div>`;
}

/** @param {Sample} sample */
function text(sample) {
  const values = valuesOf(sample);
  return values.length === 1 && typeof values[0] === "string" ? values[0] : JSON.stringify(sample.data);
}

const MEDIA = ["image/png", "image/jpeg", "image/webp", "image/avif"];

/** @param {Sample | undefined} sample */
const isDecodable = (sample) => sample?.picture !== undefined && MEDIA.includes(sample.picture.media);

/** @param {string} base64 */
function decoded(base64) {
  const characters = atob(base64);
  const content = new Uint8Array(characters.length);
  for (let index = 0; index < characters.length; index += 1) content[index] = characters.charCodeAt(index);
  return content;
}

/** The URL of a picture, until there is another. @param {import("../types.js").Picture | undefined} picture */
function usePicture(picture) {
  const [url, setUrl] = useState("");
  useEffect(() => {
    if (picture === undefined) return undefined;
    const made = URL.createObjectURL(new Blob([decoded(picture.data)], { type: picture.media }));
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [picture]);
  return url;
}

/**
 * Boxes, points and masks in the pixels of a picture.
 * @param {{layers: Overlay[], width: number, height: number}} props
 */
function Overlays({ layers, width, height }) {
  return html`<svg class="overlay" viewBox=${`0 0 ${width} ${height}`} aria-label="Drawn over the picture">
    ${layers.map((layer, index) => html`<g key=${index} style=${{ color: layer.color ?? `var(--series-${(index % 8) + 1})` }}
      transform=${layer.width && layer.height ? `scale(${width / layer.width} ${height / layer.height})` : undefined}>
      ${layer.mask && html`<${Mask} id=${`mask-${index}`} picture=${layer.mask} />`}
      ${layer.boxes?.map(([x, y, w, h, label], at) => html`<g key=${at} class="box-over"><rect x=${x} y=${y} width=${w} height=${h} />
        ${label && html`<text x=${x} y=${y} dy="-0.3em" font-size=${(layer.height ?? height) / 28}>${label}</text>`}</g>`)}
      ${layer.points?.map(([x, y], at) => html`<circle key=${at} cx=${x} cy=${y} r=${(layer.height ?? height) / 120} />`)}
    </g>`)}
  </svg>`;
}

/** A picture that is white inside, in the colour of its layer. @param {{id: string, picture: import("../types.js").Picture}} props */
function Mask({ id, picture }) {
  const url = usePicture(picture);
  const { width, height } = picture;
  return html`<mask id=${id}><image href=${url} width=${width} height=${height} preserveAspectRatio="none" /></mask>
    <rect class="mask-over" width=${width} height=${height} mask=${`url(#${id})`} />`;
}

/** @param {{sample: Sample, settled: {current: () => void}, layers: Overlay[]}} props */
function PictureOf({ sample, settled, layers }) {
  const image = useRef(/** @type {HTMLImageElement | null} */ (null));
  const picture = sample.picture;
  useEffect(() => {
    const element = image.current;
    if (picture === undefined || element === null || !isDecodable(sample)) return undefined;
    let current = true;
    const url = URL.createObjectURL(new Blob([decoded(picture.data)], { type: picture.media }));
    const done = () => current && settled.current();
    element.src = url;
    element.decode().then(done, done);
    return () => {
      current = false;
      URL.revokeObjectURL(url);
    };
  }, [picture]);
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const moved = useRef(/** @type {HTMLDivElement | null} */ (null));
  const camera = useRef({ x: 0, y: 0, zoom: 1 });
  const move = (/** @type {{x: number, y: number, zoom: number}} */ next) => {
    camera.current = next.zoom <= 1 ? { x: 0, y: 0, zoom: 1 } : next;
    const { x, y, zoom } = camera.current;
    if (moved.current !== null) moved.current.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
    image.current?.classList.toggle("pixels", zoom > 3);
  };
  const zoomAt = (/** @type {number} */ factor, /** @type {number} */ px, /** @type {number} */ py) => {
    const { x, y, zoom } = camera.current;
    const next = Math.min(MAX_ZOOM, zoom * factor);
    move({ zoom: next, x: px - ((px - x) / zoom) * next, y: py - ((py - y) / zoom) * next });
  };
  usePointer(box, (dx, dy) => move({ ...camera.current, x: camera.current.x + dx, y: camera.current.y + dy }), zoomAt);
  const keys = (/** @type {KeyboardEvent} */ event) => {
    const [width, height] = [box.current?.clientWidth ?? 0, box.current?.clientHeight ?? 0];
    if (event.key === "+" || event.key === "=") zoomAt(1.25, width / 2, height / 2);
    else if (event.key === "-") zoomAt(0.8, width / 2, height / 2);
    else if (event.key === "0") move({ x: 0, y: 0, zoom: 1 });
  };
  const [broken, setBroken] = useState(false);
  const [size, setSize] = useState({ width: 0, height: 0 });
  const loaded = (/** @type {any} */ event) => {
    setBroken(false);
    const { naturalWidth: width, naturalHeight: height } = event.currentTarget;
    setSize((known) => (known.width === width && known.height === height ? known : { width, height }));
  };
  if (picture === undefined) return html`<${Empty} title="Not a picture">A picture has the metadata <code>width</code>, <code>height</code> and <code>encoding</code>.<//>`;
  const real = picture.width > 0 ? picture : size;
  return html`<figure class=${broken ? "broken" : ""}>
    <div class="picture" ref=${box} tabindex="0" onKeyDown=${keys} onDblClick=${() => move({ x: 0, y: 0, zoom: 1 })}
      title="Wheel or + and − zoom, drag moves, 0 shows all">
      <div class="layers" ref=${moved}><img ref=${image} class=${size.width > 0 && size.width < SMALL ? "small" : ""} alt="Last picture" data-timestamp=${sample.timestamp}
        draggable=${false} onLoad=${loaded} onError=${() => setBroken(true)} />
        ${layers.length > 0 && html`<${Overlays} layers=${layers} width=${real.width || 1} height=${real.height || 1} />`}</div>
    </div>
    <figcaption class="muted">${broken
      ? `The browser cannot decode this ${picture.encoding} image.`
      : `${real.width} × ${real.height} ${picture.encoding}${size.width > 0 && size.width !== real.width ? `, shown at ${size.width} × ${size.height}` : ""}`}</figcaption></figure>`;
}

/** @param {{samples: Sample[], last: Sample, count: number}} props */
function PlotOf({ samples, last, count }) {
  const values = numbers(samples.findLast((one) => numbers(one).length > 0) ?? last);
  if (values.length > LONG_ARRAY && !values.some((one) => one.name.includes("."))) {
    return html`<${Plot} label="Values by index" time=${false} version=${count} lines=${[{ label: "value" }]}
      data=${[values.map((_, index) => index), values.map((one) => one.value)]} />`;
  }
  const names = values.slice(0, MAX_LINES).map((one) => one.name);
  if (names.length === 0) return html`<${Empty} title="No numbers in this message" />`;
  // Those since the clock of the sender was last set back.
  const back = samples.findLastIndex((one, at) => at > 0 && one.timestamp < samples[at - 1].timestamp);
  const ascending = samples.slice(Math.max(0, back));
  const times = ascending.map((one) => one.timestamp / 1000);
  const found = ascending.map((one) => new Map(numbers(one).map(({ name, value }) => [name, value])));
  const columns = names.map((name) => found.map((one) => one.get(name) ?? null));
  return html`<${Plot} label="Values over time" version=${count} lines=${names.map((label) => ({ label }))} data=${[times, ...columns]} />
    ${values.length > MAX_LINES && html`<p class="muted">The first ${MAX_LINES} of ${values.length} values.</p>`}`;
}

/** @type {WeakMap<Sample, {name: string, value: number | null}[]>} */
const numbersKnown = new WeakMap();

/**
 * Numbers of a message with their names: `[2]` in an array, `[0].pose.x` or `x` in structs.
 * @param {Sample} sample
 * @returns {{name: string, value: number | null}[]}
 */
function numbers(sample) {
  const known = numbersKnown.get(sample);
  if (known !== undefined) return known;
  /** @type {{name: string, value: number | null}[]} */
  const found = [];
  numbersKnown.set(sample, found);
  const visit = (/** @type {unknown} */ value, /** @type {string} */ name) => {
    if (typeof value === "number" || value === null) found.push({ name: name || "value", value });
    else if (typeof value === "boolean") found.push({ name: name || "value", value: Number(value) });
    else if (Array.isArray(value)) value.forEach((one, index) => visit(one, `${name}[${index}]`));
    else if (typeof value === "object") Object.entries(value).forEach(([key, one]) => visit(one, name ? `${name}.${key}` : key));
  };
  visit(Array.isArray(sample.data) && sample.data.length === 1 ? sample.data[0] : sample.data, "");
  return found;
}

/** @param {{sample: Sample}} props */
function TableOf({ sample }) {
  const rows = valuesOf(sample).slice(0, TABLE_ROWS);
  const keys = [...new Set(rows.flatMap((row) => (row !== null && typeof row === "object" && !Array.isArray(row) ? Object.keys(row) : ["value"])))];
  const text = (/** @type {any} */ row, /** @type {string} */ key) => {
    const value = row !== null && typeof row === "object" && !Array.isArray(row) ? row[key] : row;
    if (value === undefined) return "";
    return typeof value === "number" ? exact(value) : typeof value === "string" ? value : JSON.stringify(value);
  };
  return html`<div class="scroll"><table><thead><tr><th class="number">#</th>${keys.map((key) => html`<th key=${key} class=${typeof rows[0]?.[key] === "number" ? "number" : ""}>${key}</th>`)}</tr></thead>
    <tbody>${rows.map((row, index) => html`<tr key=${index}><td class="number muted">${index}</td>${keys.map((key) => html`<td key=${key} class=${typeof row?.[key] === "number" ? "number" : ""}><span class="cut">${text(row, key)}</span></td>`)}</tr>`)}</tbody></table></div>`;
}

/** @param {{sample: Sample}} props */
function Metadata({ sample }) {
  const facts = Object.entries({ ...sample.metadata, ...sample.shortened });
  const values = sample.picture === undefined ? numbers(sample) : [];
  return html`<div class="panel aside"><h2>Last message <span class="muted">${clockAt(sample.timestamp)}</span></h2>
    <dl class="wide">${facts.map(([key, value]) => html`<dt key=${key}>${key}</dt><dd>${typeof value === "string" ? value : JSON.stringify(value)}</dd>`)}</dl>
    ${facts.length === 0 && html`<p class="muted">No metadata.</p>`}
    ${values.length > 0 && html`<h2>Values <span class="muted">${values.length > MAX_VALUES ? `first ${MAX_VALUES} of ${values.length}` : ""}</span></h2>
      <dl class="wide">${values.slice(0, MAX_VALUES).map(({ name, value }) => html`<dt key=${name}>${name}</dt><dd class="number">${value === null ? "null" : exact(value)}</dd>`)}</dl>`}</div>`;
}
