/** Data links between machines: a matrix of round trips, or for many machines a list. */

import { html } from "htm/preact";
import { useState } from "preact/hooks";

import { Search, Table } from "../components.js";
import { counted, micros } from "../format.js";

/** @typedef {import("../types.js").State} State */
/** @typedef {import("../types.js").Link} Link */

const MAX_MATRIX = 24;
const FIRST_ROWS = 20;
const alphabet = new Intl.Collator(undefined, { numeric: true });

/** @param {{state: State}} props */
export function Links({ state }) {
  const links = Object.values(state.links);
  if (links.length === 0) return null;
  const names = [...new Set(links.flatMap((one) => [one.machine, one.peer]))].sort(alphabet.compare);
  return names.length > MAX_MATRIX ? html`<${LinkList} links=${links} names=${names} />` : html`<${Matrix} state=${state} names=${names} />`;
}

/** @param {{state: State, names: string[]}} props */
function Matrix({ state, names }) {
  return html`<div class="panel"><h2>Data links <span class="muted">round trip, measured by the machine of the row</span></h2>
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

/** Links that are not connected first. @param {Link} a @param {Link} b */
const byState = (a, b) => Number(a.state === "connected") - Number(b.state === "connected");

/** The slowest first. @param {Link} a @param {Link} b */
const byRoundTrip = (a, b) => (b.rttUs ?? -1) - (a.rttUs ?? -1);

/** @param {Link} a @param {Link} b */
const byName = (a, b) => alphabet.compare(a.machine, b.machine) || alphabet.compare(a.peer, b.peer);

/**
 * The machines that a text chooses: the one with this name, else those whose names contain it.
 * @param {string[]} names @param {string} search
 */
function chosen(names, search) {
  const text = search.trim().toLowerCase();
  const exact = names.filter((name) => name.toLowerCase() === text);
  return new Set(exact.length > 0 ? exact : names.filter((name) => name.toLowerCase().includes(text)));
}

/** @param {{links: Link[], names: string[]}} props */
function LinkList({ links, names }) {
  const [search, setSearch] = useState("");
  const [broken, setBroken] = useState(false);
  const machines = chosen(names, search);
  const found = search.trim() === "" ? links : links.filter((one) => machines.has(one.machine) || machines.has(one.peer));
  const lost = found.filter((one) => one.state !== "connected");
  // The links of some machines keep their places while round trips change.
  const order = found === links ? byRoundTrip : byName;
  const rows = [...(broken ? lost : found)].sort((a, b) => byState(a, b) || order(a, b));
  const machine = (/** @type {string} */ name) => html`<button type="button" class="text" title="Links of ${name}" onClick=${() => setSearch(name)}>${name}</button>`;
  /** @type {import("../components.js").Column[]} */
  const columns = [
    { key: "machine", title: "Machine", value: (one) => one.machine, cell: (one) => machine(one.machine) },
    { key: "peer", title: "Peer", value: (one) => one.peer, cell: (one) => machine(one.peer) },
    { key: "state", title: "State", value: (one) => one.state, cell: (one) => html`<span class="status ${one.state === "connected" ? "ok" : "bad"}"><i></i>${one.state}</span>` },
    { key: "rtt", title: "Round trip", numeric: true, value: (one) => one.rttUs, cell: (one) => micros(one.rttUs) },
    { key: "endpoint", title: "Address of the peer", value: (one) => one.endpoint, cell: (one) => one.endpoint && html`<code>${one.endpoint}</code>` },
    { key: "reason", title: "Reason", value: (one) => one.reason, cell: (one) => html`<span class="cut" title=${one.reason}>${one.reason ?? ""}</span>` },
  ];
  const known = columns.filter(({ key }) => key !== "reason" || found.some((one) => one.reason !== undefined));
  return html`<div class="panel links"><h2>Data links <span class="muted">round trip, measured by the machine</span></h2>
    <div class="toolbar">
      <${Search} label="Links of a machine" value=${search} change=${setSearch} names=${names} />
      <button type="button" aria-pressed=${broken} onClick=${() => setBroken(!broken)}>Only not connected</button>
      <span class="muted" role="status">${counted(found.length, "link")}, ${lost.length > 0 ? html`<b class="text-bad">${lost.length} not connected</b>` : "all connected"}</span>
    </div>
    ${rows.length === 0
      ? html`<p class="muted">${found.length === 0 ? "No machine with links has this name." : "All of these links are connected."}</p>`
      : html`<${Table} caption="Data links" columns=${known} rows=${rows} sort=${null} most=${FIRST_ROWS}
          rowKey=${(/** @type {Link} */ one) => `${one.machine}>${one.peer}`} rowClass=${(/** @type {Link} */ one) => (one.state === "connected" ? "" : "row-bad")} />`}
  </div>`;
}
