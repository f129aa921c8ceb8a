/** Small parts that several views use. */

import { Component, html } from "htm/preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { tone } from "./format.js";

/** @param {{status: string, title?: string}} props */
export function Status({ status, title }) {
  return html`<span class="status ${tone(status)}" title=${title}><i></i>${status}</span>`;
}

/** @param {{value: number | undefined, total: number | undefined, text: string}} props */
export function Meter({ value, total, text }) {
  if (value === undefined || !total) return html`<span class="muted">–</span>`;
  const share = Math.max(0, Math.min(100, (value / total) * 100));
  const level = share > 92 ? "bad" : share > 80 ? "warn" : "ok";
  return html`<span class="meter ${level}">
    <span class="bar"><span style=${{ width: `${share}%` }}></span></span>${text}
  </span>`;
}

/**
 * A small curve of per cents, the newest at the right.
 * @param {{values: (number | null)[], length: number, text: string}} props
 */
export function Spark({ values, length, text }) {
  const last = values[values.length - 1];
  if (last === undefined || last === null) return html`<span class="muted">–</span>`;
  const [width, height] = [72, 20];
  const step = width / (length - 1);
  const first = width - (values.length - 1) * step;
  const points = values.flatMap((value, index) => (value === null ? [] : [[first + index * step, height - 1 - (Math.min(100, value) / 100) * (height - 2)]]));
  if (points.length < 2) return html`<span class="meter">${text}</span>`;
  const line = points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
  const level = last > 92 ? "bad" : last > 80 ? "warn" : "ok";
  return html`<span class="meter ${level}"><svg class="spark" width=${width} height=${height} aria-hidden="true">
    <path class="under" d=${`M${line}L${width} ${height}L${points[0][0].toFixed(1)} ${height}Z`} /><path d=${`M${line}`} /></svg>${text}</span>`;
}

/** Shows an error of a view in its place until the address `at` changes, so that the rest of the page works. */
export class Boundary extends Component {
  /** @param {any} before */
  componentDidUpdate(before) {
    const { at } = /** @type {any} */ (this.props);
    const { problem } = /** @type {{problem?: string}} */ (this.state);
    if (before.at !== at && problem !== undefined) this.setState({ problem: undefined });
  }

  /** @param {any} problem */
  componentDidCatch(problem) {
    console.error(problem);
    this.setState({ problem: String(problem) });
  }

  render() {
    const { problem } = /** @type {{problem?: string}} */ (this.state);
    const { children } = /** @type {any} */ (this.props);
    return problem === undefined ? children : html`<div class="view"><${Empty} title="This view has failed">${problem}<//></div>`;
  }
}

/** @param {{title: string, children?: any}} props */
export function Empty({ title, children }) {
  return html`<div class="empty"><strong>${title}</strong><p>${children}</p></div>`;
}

const MAX_ROWS = 300;

/**
 * A field that filters what is below it; `names` are suggested.
 * @param {{label: string, value: string, change: (text: string) => void, names?: string[], enter?: () => void}} props
 */
export function Search({ label, value, change, names, enter }) {
  const list = names && `names-${label.replaceAll(" ", "-")}`;
  return html`<input type="search" placeholder=${label} aria-label=${label} value=${value} list=${list} autocomplete="off"
      onInput=${(/** @type {any} */ event) => change(event.currentTarget.value)}
      onKeyDown=${(/** @type {KeyboardEvent} */ event) => event.key === "Enter" && enter?.()} />
    ${names && html`<datalist id=${list}>${names.map((name) => html`<option key=${name} value=${name} />`)}</datalist>`}`;
}

/** @typedef {{title: string, text: any, action: string, danger?: boolean, run: () => Promise<any>}} Question */

/** @type {(question: Question) => void} */
let ask = () => {};
/** @type {(text: string, bad?: boolean) => void} */
let say = () => {};

/** Ask before something ends. @param {Question} question */
export const confirm = (question) => ask(question);

/** Show a message for a few seconds. @param {string} text @param {boolean} [bad] */
export const notify = (text, bad) => say(text, bad);

/**
 * Run a change and show its error.
 * @param {Promise<any>} change
 * @param {string} done
 */
export async function report(change, done) {
  try {
    const answer = await change;
    notify(done);
    for (const warning of answer?.warnings ?? []) notify(warning, true);
    return answer;
  } catch (error) {
    notify(/** @type {Error} */ (error).message, true);
    return undefined;
  }
}

/**
 * A figure with its name, and a remark below.
 * @param {{name: string, value: any, note?: any, tone?: string}} props
 */
export function Figure({ name, value, note, tone: colour = "" }) {
  return html`<div class="figure ${colour}"><dt>${name}</dt><dd>${value}</dd><p>${note}</p></div>`;
}

/** The dialog of `confirm`. */
export function Confirmation() {
  /** @type {[Question | null, (question: Question | null) => void]} */
  const [question, setQuestion] = useState(/** @type {Question | null} */ (null));
  const [busy, setBusy] = useState(false);
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const shown = useRef(question);
  shown.current = question;
  ask = setQuestion;
  useEffect(() => {
    if (question !== null) dialog.current?.showModal();
  }, [question]);
  if (question === null) return null;
  const close = () => {
    setBusy(false);
    setQuestion(null);
  };
  const run = async () => {
    setBusy(true);
    await question.run();
    setBusy(false);
    // Escape may have closed the dialog, and another question may be open. `close` gives the focus back
    // to the button that has opened the dialog.
    if (shown.current === question) dialog.current?.close();
  };
  return html`<dialog ref=${dialog} onClose=${close} aria-labelledby="question">
    <h2 id="question">${question.title}</h2>
    <p>${question.text}</p>
    <footer>
      <button type="button" onClick=${() => dialog.current?.close()} disabled=${busy} autofocus>Cancel</button>
      <button type="button" class=${question.danger ? "danger" : "primary"} onClick=${run} disabled=${busy}>
        ${busy ? "Working…" : question.action}
      </button>
    </footer>
  </dialog>`;
}

/** The messages of `notify`. */
export function Messages() {
  const [messages, setMessages] = useState(/** @type {{id: number, text: string, bad: boolean}[]} */ ([]));
  const last = useRef(0);
  say = (text, bad = false) => {
    const id = ++last.current;
    setMessages((known) => [...known.slice(-3), { id, text, bad }]);
    setTimeout(() => setMessages((known) => known.filter((one) => one.id !== id)), bad ? 12000 : 4000);
  };
  return html`<div class="messages" role="status" aria-live="polite">
    ${messages.map((one) => html`<div key=${one.id} class=${one.bad ? "bad" : ""}>${one.text}</div>`)}
  </div>`;
}

/**
 * A table that can be sorted by its columns; with `sort` null, the rows have their given order at first. The first
 * `most` rows are shown until the viewer wants all.
 * @typedef {{key: string, title: string, numeric?: boolean, value: (row: any) => any, cell?: (row: any) => any}} Column
 * @param {{columns: Column[], rows: any[], sort?: string | null, most?: number, rowKey: (row: any) => string, open?: (row: any) => void, caption: string, rowClass?: (row: any) => string}} props
 */
export function Table({ columns, rows, sort, most = MAX_ROWS, rowKey, open, caption, rowClass }) {
  const [order, setOrder] = useState({ key: sort === null ? "" : (sort ?? columns[0].key), down: false });
  const column = columns.find((one) => one.key === order.key);
  const sorted = column === undefined ? rows : [...rows].sort((a, b) => compare(column.value(a), column.value(b)) * (order.down ? -1 : 1));
  const [limit, setLimit] = useState(most);
  const head = columns.map((one) => {
    const active = one.key === column?.key;
    const direction = active ? (order.down ? "descending" : "ascending") : "none";
    const arrow = html`<span aria-hidden="true">${active ? (order.down ? "↓" : "↑") : ""}</span>`;
    return html`<th key=${one.key} class=${one.numeric ? "number" : ""} aria-sort=${direction} scope="col">
      <button type="button" onClick=${() => setOrder({ key: one.key, down: active ? !order.down : !!one.numeric })}>
        ${one.numeric && arrow}${one.title}${!one.numeric && arrow}
      </button>
    </th>`;
  });
  return html`<div class="scroll"><table class="data">
    <caption class="hidden">${caption}</caption>
    <thead><tr>${head}</tr></thead>
    <tbody>
      ${sorted.slice(0, limit).map((row) => html`<tr key=${rowKey(row)} class="${open ? "link" : ""} ${rowClass?.(row) ?? ""}"
          onClick=${open && ((/** @type {any} */ event) => !event.target.closest("a, button") && open(row))}>
        ${columns.map((one) => html`<td key=${one.key} class=${one.numeric ? "number" : ""}>
          ${(one.cell ?? one.value)(row) ?? "–"}
        </td>`)}
      </tr>`)}
    </tbody>
  </table>
  ${sorted.length > limit && html`<p class="muted pad">The first ${limit} of ${sorted.length} rows. <button type="button" class="text" onClick=${() => setLimit(limit + MAX_ROWS)}>Show more</button></p>`}
  </div>`;
}

/** @param {any} a @param {any} b */
function compare(a, b) {
  if (a === b) return 0;
  if (a === undefined || a === null) return -1;
  if (b === undefined || b === null) return 1;
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}
