/** The frame of the page: navigation, banner, and the view of the address. */

import { html, render } from "htm/preact";
import { useEffect, useState } from "preact/hooks";

import { Boundary, Confirmation, Empty, Messages } from "./components.js";
import { counted, tone } from "./format.js";
import { link, useRoute } from "./route.js";
import { store, useCluster } from "./store.js";
import { DataflowView } from "./views/dataflow.js";
import { FleetView } from "./views/fleet.js";
import { NodeView } from "./views/node.js";
import { OutputView } from "./views/output.js";
import { RecordingsView } from "./views/recordings.js";
import { RolloutView } from "./views/rollout.js";

/** @typedef {import("./types.js").State} State */
/** @typedef {import("./types.js").Dataflow} Dataflow */

/** What the server accepts; an address can be edited or cut off. @param {string | undefined} text */
const isUuid = (text) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text ?? "");

const ENDED_SHOWN = 8;
const LONG_WAIT_MS = 3000;

function App() {
  const state = useCluster();
  const route = useRoute();
  const [menu, setMenu] = useState(false);
  const dataflow = route[0] === "dataflow" && isUuid(route[1]) ? route[1] : null;
  useEffect(() => store.show(dataflow), [dataflow]);
  useEffect(() => setMenu(false), [route.join("/")]);
  const title = titleOf(state, route);
  useEffect(() => {
    document.title = title;
  }, [title]);
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to content</a>
    <header class="top">
      <button type="button" class="menu" aria-expanded=${menu} aria-controls="navigation" onClick=${() => setMenu(!menu)}>
        <span class="hidden">Menu</span>☰
      </button>
      <a class="brand" href=${link()}><img src="static/icon.svg" alt="" width="20" height="20" />dora</a>
      <${Connection} state=${state} />
      <span class="space"></span>
      ${state.source.readOnly && store.loaded && html`<span class="tag">read-only</span>`}
      <${Theme} />
    </header>
    <div class="body">
      <${Navigation} state=${state} route=${route} open=${menu} close=${() => setMenu(false)} />
      <main id="main" tabindex="-1">
        <${Banner} state=${state} />
        ${!store.loaded
          ? store.live.status !== "lost" && html`<${Waiting} />`
          : isUnknown(state)
            ? html`<${Empty} title="No connection yet">The state appears here once the page is connected.<//>`
            : html`<${Boundary} key=${route[2] === "node" ? route.join("/") : route.slice(0, route[2] === "output" ? 3 : 2).join("/")} at=${route.join("/")}>${view(state, route)}<//>`}
      </main>
    </div>
    <${Confirmation} />
    <${Messages} />
  `;
}

/** Move the focus; the address names the view. @param {MouseEvent} event */
function skip(event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

/** @param {State} state @param {string[]} route */
function titleOf(state, route) {
  const [kind, uuid, part, first, second] = route;
  if (kind === "recordings") return "Recordings · dora";
  if (kind === "rollout") return "Desired state · dora";
  if (kind !== "dataflow" || uuid === undefined) return "dora";
  const name = state.dataflows[uuid]?.name ?? uuid.slice(0, 8);
  const words = part === "node" ? [first, name] : part === "output" ? [`${first}/${second}`, name] : [name];
  return [...words, "dora"].join(" · ");
}

/** The source of the page, and whether it is connected. @param {{state: State}} props */
function Connection({ state }) {
  const lost = store.live.status === "lost" || state.source.problem !== undefined;
  const text = lost ? "not connected" : store.current ? "live" : "connecting";
  return html`<span class="source" title=${text}><i class="dot ${lost ? "bad" : store.current ? "ok" : "busy"}"></i>
    <span class="hidden">${text}</span><span class="name">${state.source.address}</span></span>`;
}

/** Whether nothing was read from the source since it was opened. @param {State} state */
function isUnknown(state) {
  return state.source.problem !== undefined && Object.keys(state.machines).length + Object.keys(state.dataflows).length === 0;
}

/** Before the first state. */
function Waiting() {
  const [long, setLong] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLong(true), LONG_WAIT_MS);
    return () => clearTimeout(timer);
  }, []);
  return html`<div role="status"><${Empty} title="Reading the state…">${long && "Still waiting for an answer. After 15 seconds the page shows the reason."}<//></div>`;
}

/** @param {State} state @param {string[]} route */
function view(state, route) {
  const [kind, uuid, part, first, second, ...more] = route;
  if (kind === "recordings") return html`<${RecordingsView} state=${state} />`;
  if (kind === "rollout") return html`<${RolloutView} state=${state} />`;
  if (kind !== "dataflow" || uuid === undefined) return html`<${FleetView} state=${state} />`;
  if (!isUuid(uuid)) return html`<${Empty} title="This dataflow is not known">Its id is not valid. <a href=${link()}>Fleet</a><//>`;
  if (part === "node" && first) return html`<${NodeView} key=${first} state=${state} uuid=${uuid} node=${first} />`;
  if (part === "output" && first && second) {
    const words = [first, second, ...more];
    const topics = words.flatMap((word, index) => (index % 2 === 1 ? [[words[index - 1], word]] : []));
    return html`<${OutputView} key=${uuid} state=${state} uuid=${uuid} topics=${topics} />`;
  }
  return html`<${DataflowView} key=${uuid} state=${state} uuid=${uuid} tab=${part ?? "graph"} />`;
}

/** @param {{state: State}} props */
function Banner({ state }) {
  if (store.live.status === "lost") {
    return html`<div class="banner bad" role="alert">
      <strong>The local server does not answer.</strong> ${state.source.local ? "The run has ended, or the command that serves this page." : "The command that serves this page has ended."} Start it again and open its new link.
    </div>`;
  }
  if (state.source.problem === undefined) return null;
  return html`<div class="banner warn" role="alert">
    <strong>${state.source.local ? "The runs on this computer cannot be read" : "No connection to the coordinator"}${Object.keys(state.machines).length > 0 ? "; the page shows the last state" : ""}.</strong> ${state.source.problem}
  </div>`;
}

/** @param {{state: State, route: string[], open: boolean, close: () => void}} props */
function Navigation({ state, route, open, close }) {
  const known = store.loaded && !isUnknown(state);
  const all = Object.entries(state.dataflows);
  const running = all.filter(([, one]) => one.endedAt === undefined);
  const ended = all
    .filter(([, one]) => one.endedAt !== undefined)
    .sort(([, a], [, b]) => (b.endedAt ?? 0) - (a.endedAt ?? 0))
    .slice(0, ENDED_SHOWN);
  const machines = Object.values(state.machines);
  const lost = machines.filter((one) => one.status === "lost").length;
  const names = [...running, ...ended].map(([, one]) => one.name);
  const isAmbiguous = (/** @type {Dataflow} */ one) => names.indexOf(one.name) !== names.lastIndexOf(one.name);
  const item = (/** @type {[string, Dataflow]} */ [uuid, one]) => html`<li key=${uuid}>
    <a href=${link("dataflow", uuid)} aria-current=${route[1] === uuid ? "page" : undefined}>
      <i class="dot ${tone(one.status)}"></i><span class="name" title=${uuid}>${one.name ?? uuid.slice(0, 8)}${one.name !== undefined && isAmbiguous(one) ? html` <span class="muted">${uuid.slice(0, 8)}</span>` : ""}</span>
      <span class="count" title=${one.status}>${(one.states.Failed ?? 0) > 0 ? html`<b class="bad">${one.states.Failed}</b>` : ""}${one.nodes}</span>
    </a>
  </li>`;
  return html`<nav id="navigation" class="side ${open ? "open" : ""}" aria-label="Main"
      onClick=${(/** @type {any} */ event) => event.target.closest("a") && close()}>
    <ul>
      <li><a href=${link()} aria-current=${route.length === 0 ? "page" : undefined}>
        <span class="name">${state.source.local ? "This computer" : "Fleet"}</span>
        <span class="count">${lost > 0 ? html`<b class="bad">${lost} lost</b>` : ""}${known ? machines.length : ""}</span>
      </a></li>
      ${!state.source.local && html`<li><a href=${link("rollout")} aria-current=${route[0] === "rollout" ? "page" : undefined}>
        <span class="name">Desired state</span>
      </a></li>`}
      ${!state.source.local && html`<li><a href=${link("recordings")} aria-current=${route[0] === "recordings" ? "page" : undefined}>
        <span class="name">Recordings</span>
      </a></li>`}
    </ul>
    <h2>Dataflows</h2>
    <ul>${running.map(item)}</ul>
    ${running.length === 0 && known && html`<p class="muted pad">No dataflow is running.</p>`}
    ${ended.length > 0 && html`<h2>Ended</h2><ul>${ended.map(item)}</ul>`}
    <p class="muted pad foot">${state.source.release ? `dora ${state.source.release}` : ""}<br />${known && counted(all.length, "dataflow")}</p>
  </nav>`;
}

const YEAR = 365 * 86400;

/** Changes the colours; `theme.js` sets them at first. */
function Theme() {
  const change = () => {
    const root = document.documentElement;
    const chosen = root.dataset.theme === "dark" ? "light" : "dark";
    root.dataset.theme = chosen;
    document.cookie = `dora_theme=${chosen}; Max-Age=${YEAR}; Path=/; SameSite=Strict`;
  };
  return html`<button type="button" class="icon" onClick=${change} aria-label="Change colours" title="Light or dark colours">◐</button>`;
}

const root = document.getElementById("app");
if (root !== null) {
  root.textContent = "";
  render(html`<${App} />`, root);
}
