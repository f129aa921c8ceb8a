/** Live log lines: level, search, pause, jump to the errors. Draws only the lines that are visible. */

import { html } from "htm/preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { clock, counted } from "./format.js";
import { store } from "./store.js";

/** @typedef {import("./types.js").LogEntry} LogEntry */

const MAX_LINES = 20000;
const MAX_CHARACTERS = 32 * 1024 * 1024;
/** Characters that a line takes beside its texts. */
const LINE_CHARACTERS = 150;
const ROW = 19;
const RULER = "0".repeat(100);
const OVERSCAN = 20;
/** Lines that arrive in this time are drawn together. */
const FLUSH_MS = 100;
/** Without lines for this time, there are none. */
const QUIET_MS = 3000;
const LEVELS = ["stdout", "trace", "debug", "info", "warn", "error"];

/** Whether long lines are wrapped, by default on narrow screens; kept from one view to the next. */
let wrapped = matchMedia("(max-width: 860px)").matches;

/** @param {{uuid: string, node?: string}} props */
export function Logs({ uuid, node }) {
  const [wrap, setWrap] = useState(wrapped);
  const { lines, problem, reading } = useLines(uuid, node);
  const note = isAway(uuid, node) ? "connection lost; continues when it is back" : problem;
  const [level, setLevel] = useState("stdout");
  const [search, setSearch] = useState("");
  const [following, setFollowing] = useState(true);
  const [chosen, setChosen] = useState(/** @type {LogEntry | null} */ (null));
  // A pause keeps the lines, not the filter.
  const frozen = useRef(lines);
  if (following) frozen.current = lines;
  const kept = frozen.current;
  const entries = useMemo(() => filtered(kept, level, search), [kept, level, search]);
  const list = useRef(/** @type {{jump: (index: number) => void} | null} */ (null));

  const jump = (/** @type {number} */ direction) => {
    const at = chosen === null ? -1 : entries.indexOf(chosen);
    const start = at < 0 && direction < 0 ? entries.length : at;
    for (let index = start + direction; index >= 0 && index < entries.length; index += direction) {
      if (isError(entries[index])) {
        setFollowing(false);
        setChosen(entries[index]);
        list.current?.jump(index);
        return;
      }
    }
  };
  const choose = (/** @type {LogEntry | null} */ entry) => {
    if (entry !== null) setFollowing(false);
    setChosen(entry);
  };
  const toggleWrap = () => {
    wrapped = !wrap;
    setWrap(wrapped);
  };
  const errors = entries.reduce((count, entry) => count + Number(isError(entry)), 0);
  return html`<div class="logs">
    <div class="toolbar">
      <label><span class="hidden">Level</span>
        <select value=${level} onChange=${(/** @type {any} */ event) => setLevel(event.currentTarget.value)}>
          ${LEVELS.map((one) => html`<option key=${one} value=${one}>${one === "stdout" ? "all levels" : `${one} and above`}</option>`)}
        </select>
      </label>
      <input type="search" placeholder="Search" aria-label="Search in log lines" value=${search}
        onInput=${(/** @type {any} */ event) => setSearch(event.currentTarget.value)} />
      <button type="button" onClick=${() => setFollowing(!following)} aria-pressed=${!following}>${following ? "Pause" : "Follow"}</button>
      <button type="button" onClick=${toggleWrap} aria-pressed=${wrap} title="Show long lines in full">Wrap</button>
      <button type="button" onClick=${() => jump(-1)} disabled=${errors === 0} title="Go to the error before">↑ Error</button>
      <button type="button" onClick=${() => jump(1)} disabled=${errors === 0} title="Go to the next error">↓ Error</button>
      <span class="muted" role="status">${counted(entries.length, "line")}${errors > 0 ? html`, <b class="text-bad">${counted(errors, "error")}</b>` : ""}${!following ? `, ${lines.length - frozenCount(lines, kept)} new` : ""}</span>
      ${note && html`<span class="text-warn">${note}</span>`}
    </div>
    <${List} entries=${entries} wrap=${wrap} following=${following} pause=${() => setFollowing(false)} node=${node}
      chosen=${chosen} choose=${choose} handle=${list} reading=${lines.length === 0 && !note && reading} />
    ${chosen && html`<${Details} entry=${chosen} close=${() => setChosen(null)} />`}
  </div>`;
}

/** Whether lines of a machine may be missing until it is reached again. @param {string} uuid @param {string | undefined} node */
function isAway(uuid, node) {
  const { source, machines, dataflows, nodes } = store.state;
  const names = node === undefined ? (dataflows[uuid]?.machines ?? []) : [nodes[uuid]?.[node]?.machine ?? ""];
  return source.problem !== undefined || names.some((name) => machines[name]?.status === "lost");
}

/** @param {LogEntry[]} lines @param {LogEntry[]} shown */
function frozenCount(lines, shown) {
  const last = shown[shown.length - 1];
  return last === undefined ? 0 : lines.lastIndexOf(last) + 1;
}

/**
 * Return the lines of a stream that follows the logs; they are kept while the view is open.
 * @param {string} uuid
 * @param {string | undefined} node
 */
function useLines(uuid, node) {
  const [lines, setLines] = useState(/** @type {LogEntry[]} */ ([]));
  const [problem, setProblem] = useState("");
  const [reading, setReading] = useState(true);
  useEffect(() => {
    setReading(true);
    const quiet = setTimeout(() => setReading(false), QUIET_MS);
    /** @type {LogEntry[]} */
    let pending = [];
    let scheduled = 0;
    const flush = () => {
      scheduled = 0;
      const fresh = pending.slice(-MAX_LINES);
      pending = [];
      if (node === undefined) fresh.sort(byTime);
      setLines((known) => {
        const room = MAX_LINES - fresh.length;
        const all = [...(room > 0 ? known.slice(-room) : []), ...fresh];
        const last = known[known.length - 1];
        if (node === undefined && last !== undefined && byTime(last, fresh[0]) > 0) all.sort(byTime);
        return bounded(all);
      });
    };
    const stream = store.live.open(
      { open: "logs", dataflow: uuid, node: node ?? null },
      (frame) => {
        if (frame.lines) {
          for (const line of frame.lines) pending.push(line);
          if (scheduled === 0) scheduled = setTimeout(flush, FLUSH_MS);
        } else if (frame.ended) {
          setProblem(frame.problems.join("; "));
        }
      },
      () => {
        clearTimeout(scheduled);
        scheduled = 0;
        pending = [];
        setLines([]);
        setProblem("");
      },
    );
    return () => {
      clearTimeout(scheduled);
      clearTimeout(quiet);
      stream.close();
    };
  }, [uuid, node]);
  return { lines, problem, reading };
}

/** @param {LogEntry} a @param {LogEntry} b */
const byTime = (a, b) => (a.ts < b.ts ? -1 : a.ts > b.ts ? 1 : 0);

/** @type {WeakMap<LogEntry, number>} */
const sizesKnown = new WeakMap();

/** @param {LogEntry} entry */
function sizeOf(entry) {
  let size = sizesKnown.get(entry);
  if (size === undefined) {
    size = LINE_CHARACTERS + entry.msg.length + (entry.fields ? JSON.stringify(entry.fields).length : 0);
    sizesKnown.set(entry, size);
  }
  return size;
}

/** The last lines that fit into the memory of the page. @param {LogEntry[]} lines */
function bounded(lines) {
  let room = MAX_CHARACTERS;
  let first = lines.length;
  while (first > 0 && room >= 0) room -= sizeOf(lines[--first]);
  return room < 0 ? lines.slice(first + 1) : lines;
}

/** @type {WeakMap<LogEntry, boolean>} */
const errorsKnown = new WeakMap();

/** @param {LogEntry} entry */
function isError(entry) {
  let found = errorsKnown.get(entry);
  if (found === undefined) {
    found = entry.level === "error" || /\b(\w*(Error|Exception)|Traceback|panicked)\b(?!\()/.test(entry.msg);
    errorsKnown.set(entry, found);
  }
  return found;
}

/** @param {LogEntry[]} lines @param {string} level @param {string} search */
function filtered(lines, level, search) {
  const least = LEVELS.indexOf(level);
  const text = search.toLowerCase();
  if (least === 0 && text === "") return lines;
  return lines.filter(
    (entry) => LEVELS.indexOf(entry.level) >= least && (text === "" || entry.msg.toLowerCase().includes(text)),
  );
}

/**
 * The first row of each line, and the number of rows at the end; a wrapped line has several.
 * @param {LogEntry[]} entries
 * @param {number} columns characters in a row; 0: lines are not wrapped
 */
function rowsOf(entries, columns) {
  const tops = new Float64Array(entries.length + 1);
  entries.forEach(({ msg }, index) => {
    let rows = 1;
    if (columns > 0) rows = msg.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / columns)), 0);
    tops[index + 1] = tops[index] + rows;
  });
  return tops;
}

/** The line in a row. @param {Float64Array} tops @param {number} row */
function lineAt(tops, row) {
  let [low, high] = [0, tops.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (tops[middle] <= row) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** @param {{entries: LogEntry[], wrap: boolean, following: boolean, pause: () => void, node?: string, chosen: LogEntry | null, choose: (entry: LogEntry | null) => void, handle: {current: any}, reading: boolean}} props */
function List({ entries, wrap, following, pause, node, chosen, choose, handle, reading }) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const ruler = useRef(/** @type {HTMLSpanElement | null} */ (null));
  const [top, setTop] = useState(0);
  const [size, setSize] = useState({ height: 400, columns: 0 });
  const { height } = size;
  const tops = useMemo(() => rowsOf(entries, wrap ? size.columns : 0), [entries, wrap, size.columns]);
  handle.current = {
    jump: (/** @type {number} */ index) => {
      if (box.current !== null) box.current.scrollTop = Math.max(0, tops[index] * ROW - height / 2);
    },
  };
  const measure = () => {
    const [element, letters] = [box.current, ruler.current];
    if (element === null || letters === null) return;
    const width = element.querySelector(".line .msg")?.clientWidth ?? 0;
    const columns = Math.floor((width * RULER.length) / letters.offsetWidth);
    setSize((known) => (known.height === element.clientHeight && known.columns === columns ? known : { height: element.clientHeight, columns }));
  };
  useEffect(() => {
    const element = box.current;
    if (element === null) return undefined;
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useEffect(measure, [wrap, entries.length === 0]);
  useEffect(() => {
    if (following && box.current !== null) box.current.scrollTop = box.current.scrollHeight;
  }, [entries, following, height, tops]);
  const first = Math.max(0, lineAt(tops, Math.floor(top / ROW)) - OVERSCAN);
  const visible = entries.slice(first, first + Math.ceil(height / ROW) + 2 * OVERSCAN);
  const scrolled = (/** @type {any} */ event) => {
    const element = event.currentTarget;
    setTop(element.scrollTop);
    if (following && element.scrollTop + element.clientHeight < element.scrollHeight - 3 * ROW && element.scrollTop < top) pause();
  };
  const keys = (/** @type {KeyboardEvent} */ event) => {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (event.key === "Escape") choose(null);
    if (step === 0 || entries.length === 0) return;
    const at = chosen === null ? (step > 0 ? -1 : entries.length) : entries.indexOf(chosen);
    const index = Math.min(entries.length - 1, Math.max(0, at + step));
    choose(entries[index]);
    const element = box.current;
    if (element !== null) {
      element.scrollTop = Math.min(tops[index] * ROW, Math.max(element.scrollTop, tops[index + 1] * ROW - element.clientHeight));
    }
    event.preventDefault();
  };
  return html`<div class="lines ${wrap ? "wrap" : ""}" ref=${box} onScroll=${scrolled} onKeyDown=${keys} tabindex="0" role="log" aria-live="off" aria-label="Log lines">
    <span class="ruler" ref=${ruler} aria-hidden="true">${RULER}</span>
    <div style=${{ height: `${tops[entries.length] * ROW}px` }}>
      <div style=${{ transform: `translateY(${tops[first] * ROW}px)` }}>
        ${visible.map((entry, index) => html`<div key=${first + index} class="line ${entry.level} ${isError(entry) ? "error" : ""} ${entry === chosen ? "chosen" : ""}"
            onClick=${() => choose(entry)}>
          <${Time} ts=${entry.ts} /><span class="level">${entry.level === "stdout" ? entry.stream : entry.level}</span>
          ${node === undefined && html`<span class="node">${entry.node ?? "dora"}</span>`}<span class="msg">${entry.msg}</span>
        </div>`)}
      </div>
    </div>
    ${entries.length === 0 && html`<p class="muted pad">${reading ? "Reading the logs…" : "No log lines."}</p>`}
  </div>`;
}

/** Small screens hide the milliseconds. @param {{ts: string}} props */
function Time({ ts }) {
  const text = clock(ts);
  return html`<time>${text.slice(0, 8)}<span class="millis">${text.slice(8)}</span></time>`;
}

/** The whole line. @param {{entry: LogEntry, close: () => void}} props */
function Details({ entry, close }) {
  const facts = Object.entries({ target: entry.target, file: entry.file, line: entry.line, ...entry.fields });
  return html`<div class="details">
    <button type="button" class="icon" onClick=${close} aria-label="Close">✕</button>
    <p class="muted">${entry.ts} · ${entry.level} · ${entry.node ?? "dora"}</p>
    <pre>${entry.msg}</pre>
    <dl>${facts.filter(([, value]) => value !== undefined).map(([key, value]) => html`<dt key=${key}>${key}</dt><dd>${typeof value === "string" ? value : JSON.stringify(value)}</dd>`)}</dl>
  </div>`;
}
