/** A plot of uPlot that follows its data, its size and the colours of the page. */

import { html } from "htm/preact";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

import { exact } from "./format.js";

/** @typedef {{label: string, format?: (value: number) => string}} Line */

const AXIS = 26;
const MIN_HEIGHT = 180;

const COLOURS = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6", "--series-7", "--series-8"];

/**
 * `data` is the list of x values and a list for each line; `version` changes with the data. Without
 * `height`, the plot fills its parent.
 * @param {{data: (number | null)[][], lines: Line[], version: number, time?: boolean, height?: number, zero?: boolean, label: string}} props
 */
export function Plot({ data, lines, version, time = true, height, zero = false, label }) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const plot = useRef(/** @type {uPlot | null} */ (null));
  const latest = useRef({ data, lines });
  latest.current = { data, lines };
  const shape = lines.map((line) => line.label).join("\n");
  useEffect(() => {
    const element = box.current;
    if (element === null) return undefined;
    const size = () => ({
      width: element.clientWidth,
      height: height ?? Math.max(MIN_HEIGHT, element.clientHeight - (element.querySelector(".u-legend")?.clientHeight ?? 0)),
    });
    const observer = new ResizeObserver(() => plot.current?.setSize(size()));
    observer.observe(element);
    const create = () => {
      plot.current?.destroy();
      plot.current = new uPlot({ ...size(), ...options(element, latest.current.lines, time, zero) }, /** @type {any} */ (latest.current.data), element);
      const legend = element.querySelector(".u-legend");
      if (legend !== null) observer.observe(legend);
    };
    create();
    const theme = new MutationObserver(create);
    theme.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    return () => {
      observer.disconnect();
      theme.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape, time, height, zero]);
  useEffect(() => {
    plot.current?.setData(/** @type {any} */ (data));
  }, [version]);
  return html`<div class="plot ${height === undefined ? "fills" : ""}" ref=${box} role="img" aria-label=${label} data-points=${data[0].length} data-version=${version}></div>`;
}

/** @param {HTMLElement} element @param {Line[]} lines @param {boolean} time @param {boolean} zero */
function options(element, lines, time, zero) {
  const style = getComputedStyle(element);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: colour("--muted"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1, size: 4 },
    font: "11px system-ui, sans-serif",
  };
  /** @type {Omit<uPlot.Options, "width" | "height">} */
  const found = {
    padding: [10, 28, 0, 0],
    scales: { x: { time }, y: { range: (_, low, high) => range(low, high, zero) } },
    legend: { show: lines.length > 1, live: true, markers: { width: 0, fill: (_, index) => colour(COLOURS[(index - 1) % COLOURS.length]) } },
    cursor: { points: { size: 5 }, drag: { x: false, y: false } },
    series: [
      {
        value: (/** @type {uPlot} */ plot, /** @type {number | null} */ value) => {
          const shown = value ?? plot.data[0][plot.data[0].length - 1];
          return shown === undefined ? "–" : time ? new Date(shown * 1000).toTimeString().slice(0, 8) : String(shown);
        },
        label: time ? "Time" : "Index",
      },
      ...lines.map((line, index) => ({
        label: line.label,
        stroke: colour(COLOURS[index % COLOURS.length]),
        width: 1.5,
        points: { show: false, size: 4, filter: (/** @type {uPlot} */ plot, /** @type {number} */ index) => alone(plot.data[index]) },
        // Without a pointer over the plot, the last value.
        value: (/** @type {uPlot} */ plot, /** @type {number | null} */ value, /** @type {number} */ series, /** @type {number | null} */ at) => {
          const shown = at === null ? plot.data[series][plot.data[series].length - 1] : value;
          return shown === null || shown === undefined ? "–" : (line.format ?? exact)(shown);
        },
      })),
    ],
    axes: [
      { ...axis, size: AXIS, ...(time ? { space: 80, values: (_, /** @type {number[]} */ splits) => splits.map(timeOfDay) } : {}) },
      {
        ...axis,
        size: (_, /** @type {string[] | null} */ texts) => Math.max(58, ...(texts ?? []).map((text) => 14 + 6.5 * text.length)),
        space: 26,
        values: (_, values, _axis, _space, step) => values.map(lines[0].format ?? ((value) => tick(value, step))),
      },
    ],
  };
  return found;
}

/** Places of values without neighbours, which are on no line. @param {ArrayLike<number | null | undefined>} values */
function alone(values) {
  const has = (/** @type {number} */ at) => values[at] !== null && values[at] !== undefined;
  return Array.from(values, (_, at) => at).filter((at) => has(at) && !has(at - 1) && !has(at + 1));
}

/** A value of the axis, with the digits in which it differs from the next. @param {number} value @param {number} step */
function tick(value, step) {
  const digits = Math.ceil(Math.log10(Math.abs(value) / step)) + 2;
  return String(Number(value.toPrecision(Math.min(16, Math.max(4, digits || 0)))));
}

/** @param {number} unix */
function timeOfDay(unix) {
  const text = new Date(unix * 1000).toTimeString().slice(0, 8);
  const hundredths = Math.round(unix * 100) % 100;
  return hundredths === 0 ? text : String(hundredths / 100).slice(1);
}

/** @param {number | null} low @param {number | null} high @param {boolean} zero @returns {[number, number]} */
function range(low, high, zero) {
  const least = zero ? Math.min(0, low ?? 0) : (low ?? 0);
  const most = high ?? 1;
  const room = (most - least || Math.abs(most) || 1) * 0.08;
  return [zero && least === 0 ? 0 : least - room, most + room];
}
