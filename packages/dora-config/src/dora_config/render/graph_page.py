"""HTML, style and script of the page with the graph of a dataflow."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@TITLE@</title>
<style>
:root {
  --page: #f6f7f9; --box: #ffffff; --edge: #8792a2; --text: #1c2430; --soft: #667085;
  --border: #d0d5dd; --accent: #2563eb; --virtual: #b4690e; --pressure: #b42318;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171c; --box: #1e232b; --edge: #6b7685; --text: #e6e9ee; --soft: #98a2b3;
    --border: #343b47; --accent: #6ea8fe; --virtual: #f0b35c; --pressure: #f97066;
  }
}
* { box-sizing: border-box; }
html, body { margin: 0; height: 100%; }
body {
  display: flex; flex-direction: column; background: var(--page); color: var(--text);
  font: 13px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
header {
  display: flex; gap: 12px; align-items: baseline; padding: 12px 20px;
  border-bottom: 1px solid var(--border); background: var(--box);
}
header h1 { font-size: 15px; margin: 0; }
header span { color: var(--soft); }
header button {
  margin-left: auto; border: 1px solid var(--border); border-radius: 6px; padding: 3px 10px;
  background: var(--page); color: var(--text); font: inherit; cursor: pointer;
}
main { flex: 1; position: relative; overflow: hidden; }
svg { width: 100%; height: 100%; display: block; cursor: grab; touch-action: none; }
svg.moving { cursor: grabbing; }
.box { fill: var(--box); stroke: var(--border); }
.node { cursor: pointer; outline: none; }
.node text { font-size: 12px; fill: var(--text); }
.node .name { font-weight: 600; font-size: 13px; }
.node .program { fill: var(--soft); font-size: 11px; }
.node .input { fill: var(--soft); }
.node .output { fill: var(--soft); text-anchor: end; }
.node.dynamic .box { stroke-dasharray: 5 4; }
.node:hover .box, .node:focus .box, .node.chosen .box { stroke: var(--accent); stroke-width: 2; }
.stripe { fill: none; }
.place1 .stripe { fill: #2563eb; } .place2 .stripe { fill: #d97706; }
.place3 .stripe { fill: #059669; } .place4 .stripe { fill: #9333ea; }
.place5 .stripe { fill: #dc2626; } .place6 .stripe { fill: #0891b2; }
.place7 .stripe { fill: #65a30d; } .place8 .stripe { fill: #db2777; }
.port { fill: var(--box); stroke: var(--edge); stroke-width: 1.5; }
.pill .box { stroke: var(--virtual); fill: var(--page); }
.pill text { fill: var(--virtual); font-size: 12px; text-anchor: middle; }
.edge .line { fill: none; stroke: var(--edge); stroke-width: 1.5; marker-end: url(#arrow); }
.edge .hit { fill: none; stroke: transparent; stroke-width: 12; }
.edge.virtual .line { stroke: var(--virtual); stroke-dasharray: 4 4; }
.edge.backpressure .line { stroke: var(--pressure); }
.edge:hover .line, .edge.near .line { stroke: var(--accent); stroke-width: 2.5; }
svg.chosen .edge:not(.near) { opacity: .25; }
aside {
  position: absolute; top: 12px; right: 12px; width: 300px; max-height: calc(100% - 24px);
  overflow: auto; padding: 14px 16px; background: var(--box); border: 1px solid var(--border);
  border-radius: 8px; box-shadow: 0 4px 16px rgb(0 0 0 / .12);
}
aside[hidden] { display: none; }
aside h2 { font-size: 14px; margin: 0 0 8px; overflow-wrap: anywhere; }
aside dt { color: var(--soft); margin-top: 8px; }
aside dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
</style>
</head>
<body>
<header><h1>@TITLE@</h1><span>@SUMMARY@</span><button type="button">Fit</button></header>
<main>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 @WIDTH@ @HEIGHT@" role="img"
  aria-label="The graph of @TITLE@">
<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
  orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="context-stroke"/></marker></defs>
<g transform="translate(@MARGIN@ @MARGIN@)">
@DRAWING@
</g>
</svg>
<aside hidden><h2></h2><dl></dl></aside>
</main>
<script>
"use strict";
const details = @DETAILS@;
const svg = document.querySelector("svg");
const panel = document.querySelector("aside");
const whole = [0, 0, @WIDTH@, @HEIGHT@];
let view = whole.slice();
const show = () => svg.setAttribute("viewBox", view.join(" "));
const scale = () => {
  const box = svg.getBoundingClientRect();
  return Math.max(view[2] / box.width, view[3] / box.height);
};
function fit() {
  const box = svg.getBoundingClientRect();
  const width = Math.max(whole[2], box.width), height = Math.max(whole[3], box.height);
  view = [(whole[2] - width) / 2, (whole[3] - height) / 2, width, height];
  show();
}
svg.addEventListener("wheel", event => {
  event.preventDefault();
  const factor = Math.exp(event.deltaY * 0.0012), box = svg.getBoundingClientRect();
  const size = [box.width * scale(), box.height * scale()];
  const left = view[0] + (view[2] - size[0]) / 2, top = view[1] + (view[3] - size[1]) / 2;
  const x = left + (event.clientX - box.left) * scale();
  const y = top + (event.clientY - box.top) * scale();
  view = [x - (x - left) * factor, y - (y - top) * factor, size[0] * factor, size[1] * factor];
  show();
}, {passive: false});
let from = null;
svg.addEventListener("pointerdown", event => {
  from = [event.clientX, event.clientY, view.slice(), false];
});
window.addEventListener("pointermove", event => {
  if (!from) return;
  const dx = event.clientX - from[0], dy = event.clientY - from[1];
  if (Math.abs(dx) + Math.abs(dy) > 3) { from[3] = true; svg.classList.add("moving"); }
  view = [from[2][0] - dx * scale(), from[2][1] - dy * scale(), from[2][2], from[2][3]];
  show();
});
window.addEventListener("pointerup", event => {
  svg.classList.remove("moving");
  const moved = from && from[3];
  from = null;
  if (!moved && svg.contains(event.target)) choose(event.target.closest(".node, .pill"));
});
function choose(node) {
  document.querySelectorAll(".chosen, .near").forEach(e => e.classList.remove("chosen", "near"));
  const id = node && node.dataset.id;
  panel.hidden = !(id && details[id]);
  if (!node) return;
  node.classList.add("chosen");
  svg.classList.add("chosen");
  document.querySelectorAll(".edge").forEach(edge => {
    if (edge.dataset.from === id || edge.dataset.to === id) edge.classList.add("near");
  });
  if (panel.hidden) return;
  panel.querySelector("h2").textContent = id;
  const list = panel.querySelector("dl");
  list.replaceChildren(...details[id].flatMap(([label, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = label;
    dd.textContent = value;
    return [dt, dd];
  }));
}
document.querySelectorAll(".node").forEach(node => node.addEventListener("keydown", event => {
  if (event.key === "Enter") choose(node);
}));
window.addEventListener("keydown", event => { if (event.key === "Escape") choose(null); });
document.querySelector("button").addEventListener("click", fit);
window.addEventListener("resize", fit);
fit();
</script>
</body>
</html>
"""
