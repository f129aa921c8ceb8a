/** The graph with its search, what is collapsed in it, and facts about the selection beside it. */

import { html } from "htm/preact";
import { useMemo, useRef, useState } from "preact/hooks";

import { Search } from "../components.js";
import { counted } from "../format.js";
import { Drawing } from "./drawing.js";
import { useLayouts } from "./layout.js";
import { collapsedAtFirst, model, modulesOf } from "./model.js";

/** @typedef {import("../types.js").Graph} Graph */
/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Item} Item */
/** @typedef {import("./model.js").Bundle} Bundle */
/** @typedef {import("./drawing.js").Selection} Selection */
/** @typedef {{shown: Model, selection: Selection, select: (selection: Selection) => void, open: (item: Item) => void, toggle: (key: string) => void}} Selecting */

/**
 * `machineOf` returns where a node runs, `aside` what is beside the drawing.
 * @param {{graph: Graph, machineOf: (node: string) => string | undefined, lost?: Set<string>, openNode: (id: string) => void, space: import("./model.js").Space,
 *   itemLook: (item: Item) => import("./shapes.js").ItemLook, arrowLook: (bundle: Bundle) => import("./shapes.js").ArrowLook, aside: (selecting: Selecting) => any}} props
 */
export function GraphPanel({ graph, machineOf, lost = new Set(), openNode, space, itemLook, arrowLook, aside }) {
  const [collapsed, setCollapsed] = useState(() => collapsedAtFirst(graph));
  const [selection, select] = useState(/** @type {Selection} */ (null));
  const placement = graph.nodes.map(({ id }) => `${id} ${machineOf(id)}`).join("\n");
  const shown = useMemo(() => model(graph, machineOf, collapsed, space), [graph, placement, collapsed]);
  const { layouts, problem } = useLayouts(shown);
  const [search, setSearch] = useState("");
  const found = useMemo(() => matches(shown, search), [shown, search]);
  const drawing = useRef(/** @type {import("./drawing.js").Handle | null} */ (null));
  const toggle = (/** @type {string} */ key) => {
    const next = new Set(collapsed);
    if (!next.delete(key)) next.add(key);
    // What was selected, or what it has become a part of.
    const first = shown.items.find((one) => selection?.kind === "item" && one.id === selection.id)?.nodes[0];
    const item = first === undefined ? undefined : model(graph, machineOf, next, space).items.find((one) => one.nodes.includes(first));
    select(item === undefined ? null : { kind: "item", id: item.id });
    setCollapsed(next);
  };
  const next = () => {
    const ids = [...(found ?? [])];
    const at = selection?.kind === "item" ? ids.indexOf(selection.id) : -1;
    if (ids.length === 0) return;
    const id = ids[(at + 1) % ids.length];
    select({ kind: "item", id });
    drawing.current?.center(id);
  };
  const open = (/** @type {Item} */ item) => {
    if (item.kind === "node") openNode(item.id);
    else toggle(item.kind === "machine" ? item.id : `module ${item.label}`);
  };
  if (layouts === null) return html`<p class="muted pad">${problem || `Arranging ${counted(shown.items.length, "node")}…`}</p>`;
  return html`<div class="split">
    <div class="panel fill">
      <div class="toolbar">
        <${Search} label="Find a node" value=${search} change=${setSearch} enter=${next} />
        ${found !== null && html`<span class="muted" role="status">${found.size === 0 ? "none" : `${found.size} found`}</span>
          <button type="button" disabled=${found.size === 0} onClick=${next}>Next</button>`}
        ${problem && html`<span class="text-warn">${problem}</span>`}
        <span class="space"></span>
        <${Folding} shown=${shown} collapsed=${collapsed} toggle=${toggle} set=${setCollapsed} />
        <div class="zoom">
          <button type="button" onClick=${() => drawing.current?.zoom(1.25)} aria-label="Zoom in">+</button>
          <button type="button" onClick=${() => drawing.current?.zoom(0.8)} aria-label="Zoom out">−</button>
          <button type="button" onClick=${() => drawing.current?.fit()} aria-label="Show all" title="Show all">⤢</button>
        </div>
      </div>
      <${Drawing} layouts=${layouts} itemLook=${itemLook} arrowLook=${arrowLook} selection=${selection} select=${select} open=${open} toggle=${toggle} lost=${lost} found=${found} handle=${drawing} />
    </div>
    ${aside({ shown, selection, select, open, toggle })}
  </div>`;
}

/**
 * Items whose nodes contain the text in their name, or null without a text.
 * @param {Model} shown
 * @param {string} search
 */
function matches(shown, search) {
  const text = search.trim().toLowerCase();
  if (text === "") return null;
  const found = shown.items.filter((item) => item.label.toLowerCase().includes(text) || item.nodes.some((id) => id.toLowerCase().includes(text)));
  return new Set(found.map((item) => item.id));
}

/** @param {{shown: Model, collapsed: Set<string>, toggle: (key: string) => void, set: (keys: Set<string>) => void}} props */
function Folding({ shown, collapsed, toggle, set }) {
  /** @param {string[]} keys @param {string} what */
  const whole = (keys, what) => {
    const all = keys.every((key) => collapsed.has(key));
    const change = () => {
      const next = new Set(collapsed);
      for (const key of keys) if (all) next.delete(key); else next.add(key);
      set(next);
    };
    return html`<button type="button" onClick=${change}>${all ? "Expand" : "Collapse"} ${what}</button>`;
  };
  const modules = [...shown.modules.keys()].map((name) => `module ${name}`);
  return html`
    ${modules.length > 0 && html`<${Modules} shown=${shown} collapsed=${collapsed} toggle=${toggle} />`}
    ${modules.length > 1 && whole(modules, "modules")}
    ${shown.grouped && whole(shown.machines.map((name) => `machine ${name}`), "machines")}`;
}

/**
 * The modules of all levels, each of which collapses and expands; those in a collapsed one are not listed.
 * @param {{shown: Model, collapsed: Set<string>, toggle: (key: string) => void}} props
 */
function Modules({ shown, collapsed, toggle }) {
  const isOpen = (/** @type {string} */ name) => !collapsed.has(`module ${name}`);
  const listed = [...shown.modules].filter(([name]) => modulesOf(name).every(isOpen));
  const close = (/** @type {KeyboardEvent} */ event) => {
    const box = /** @type {HTMLDetailsElement} */ (event.currentTarget);
    if (event.key !== "Escape" || !box.open) return;
    box.open = false;
    box.querySelector("summary")?.focus();
  };
  return html`<details class="choices" onKeyDown=${close}><summary class="button">Modules</summary>
    <ul>${listed.map(([name, count]) => {
      const depth = modulesOf(name).length;
      return html`<li key=${name} style=${{ paddingLeft: `${14 * depth}px` }}>
        <button type="button" aria-expanded=${isOpen(name)} title="${isOpen(name) ? "Collapse" : "Expand"} ${name}" onClick=${() => toggle(`module ${name}`)}>
          <span aria-hidden="true">${isOpen(name) ? "▾" : "▸"}</span> ${depth > 0 ? name.slice(name.lastIndexOf(".") + 1) : name} <span class="muted">${counted(count, "node")}</span>
        </button></li>`;
    })}</ul></details>`;
}
