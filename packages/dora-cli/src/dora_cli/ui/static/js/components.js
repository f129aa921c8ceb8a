/** Small parts that several views use. */

import { html } from "htm/preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { tone } from "./format.js";

/** @param {{status: string, title?: string}} props */
export function Status({ status, title }) {
  return html`<span class="status ${tone(status)}" title=${title}><i></i>${status}</span>`;
}

/** @param {{value: number | undefined, total: number | undefined, text: string}} props */
export function Meter({ value, total, text }) {
  if (value === undefined || !total) return html`<span class="muted">–</span>`;
  const share = Math.min(100, (value / total) * 100);
  const level = share > 92 ? "bad" : share > 80 ? "warn" : "ok";
  return html`<span class="meter ${level}">
    <span class="bar"><span style=${{ width: `${share}%` }}></span></span>${text}
  </span>`;
}

/** @param {{title: string, children?: any}} props */
export function Empty({ title, children }) {
  return html`<div class="empty"><strong>${title}</strong><p>${children}</p></div>`;
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

/** The dialog of `confirm`. */
export function Confirmation() {
  /** @type {[Question | null, (question: Question | null) => void]} */
  const [question, setQuestion] = useState(/** @type {Question | null} */ (null));
  const [busy, setBusy] = useState(false);
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
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
    close();
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
 * A table that can be sorted by its columns.
 * @typedef {{key: string, title: string, numeric?: boolean, value: (row: any) => any, cell?: (row: any) => any}} Column
 * @param {{columns: Column[], rows: any[], sort?: string, rowKey: (row: any) => string, open?: (row: any) => void, caption: string, rowClass?: (row: any) => string}} props
 */
export function Table({ columns, rows, sort, rowKey, open, caption, rowClass }) {
  const [order, setOrder] = useState({ key: sort ?? columns[0].key, down: false });
  const column = columns.find((one) => one.key === order.key) ?? columns[0];
  const sorted = [...rows].sort((a, b) => compare(column.value(a), column.value(b)) * (order.down ? -1 : 1));
  const head = columns.map((one) => {
    const active = one.key === column.key;
    const direction = active ? (order.down ? "descending" : "ascending") : "none";
    return html`<th key=${one.key} class=${one.numeric ? "number" : ""} aria-sort=${direction} scope="col">
      <button type="button" onClick=${() => setOrder({ key: one.key, down: active ? !order.down : !!one.numeric })}>
        ${one.title}<span aria-hidden="true">${active ? (order.down ? "↓" : "↑") : ""}</span>
      </button>
    </th>`;
  });
  return html`<div class="scroll"><table>
    <caption class="hidden">${caption}</caption>
    <thead><tr>${head}</tr></thead>
    <tbody>
      ${sorted.map((row) => html`<tr key=${rowKey(row)} class="${open ? "link" : ""} ${rowClass?.(row) ?? ""}"
          onClick=${open && (() => open(row))}>
        ${columns.map((one) => html`<td key=${one.key} class=${one.numeric ? "number" : ""}>
          ${(one.cell ?? one.value)(row) ?? "–"}
        </td>`)}
      </tr>`)}
    </tbody>
  </table></div>`;
}

/** @param {any} a @param {any} b */
function compare(a, b) {
  if (a === b) return 0;
  if (a === undefined || a === null) return -1;
  if (b === undefined || b === null) return 1;
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}
