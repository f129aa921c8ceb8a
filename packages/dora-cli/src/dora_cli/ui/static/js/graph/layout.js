/** Positions of nodes and groups; runs in a worker, since large graphs take a moment. */

/**
 * @typedef {typeof import("@dagrejs/dagre")} Dagre
 * @typedef {{id: string, width: number, height: number, group: string, alone?: boolean}} Box
 * @typedef {{from: string, to: string}} Arrow
 * @typedef {{x: number, y: number}} Point
 * @typedef {{x: number, y: number, width: number, height: number}} Area
 * @typedef {{boxes: Record<string, Area>, groups: Record<string, Area>, arrows: Record<string, Point[]>, width: number, height: number}} Layout
 */

const RANK_GAP = 112;
const NODE_GAP = 18;
const GAP = 36;
const PADDING = 16;
const TITLE = 30;
const LANE = 18;
const SHAPE = 1.7;
const SIMPLE_ABOVE = 250;
const QUICK_ABOVE = 600;
const SWEEPS = 4;

/**
 * @param {Dagre | null} dagre null: without the library, in columns
 * @param {Box[]} boxes
 * @param {Arrow[]} arrows
 * @param {boolean} grouped
 * @returns {Layout}
 */
export function lay(dagre, boxes, arrows, grouped) {
  if (!grouped) {
    const plain = layComponents(dagre, boxes, arrows);
    return { ...plain, groups: {} };
  }
  /** @type {Map<string, Box[]>} */
  const members = new Map();
  for (const box of boxes) members.set(box.group, [...(members.get(box.group) ?? []), box]);
  const groupOf = new Map(boxes.map((box) => [box.id, box.group]));
  /** @type {Map<string, ReturnType<typeof layComponents>>} */
  const inner = new Map();
  /** @type {Box[]} */
  const outer = [];
  for (const [group, inside] of members) {
    const own = arrows.filter((one) => groupOf.get(one.from) === group && groupOf.get(one.to) === group);
    const placed = layComponents(dagre, inside, own);
    inner.set(group, placed);
    const frame = frameOf(inside);
    outer.push({ id: group, group: "", width: placed.width + 2 * frame.x, height: placed.height + frame.x + frame.y });
  }
  /** @type {Map<string, {from: string, to: string, arrows: Arrow[]}>} */
  const between = new Map();
  for (const arrow of arrows) {
    const [from, to] = [groupOf.get(arrow.from) ?? "", groupOf.get(arrow.to) ?? ""];
    const pair = between.get(`${from}>${to}`);
    if (pair !== undefined) pair.arrows.push(arrow);
    else if (from !== to) between.set(`${from}>${to}`, { from, to, arrows: [arrow] });
  }
  const whole = layComponents(dagre, outer, [...between.values()]);
  /** @type {Layout} */
  const result = { boxes: {}, groups: {}, arrows: {}, width: whole.width, height: whole.height };
  for (const [group, placed] of inner) {
    const { x, y } = whole.boxes[group];
    const frame = frameOf(members.get(group) ?? []);
    if (frame.x > 0) result.groups[group] = whole.boxes[group];
    const shift = (/** @type {Point} */ point) => ({ ...point, x: point.x + x + frame.x, y: point.y + y + frame.y });
    for (const [id, area] of Object.entries(placed.boxes)) result.boxes[id] = { ...area, ...shift(area) };
    for (const [id, points] of Object.entries(placed.arrows)) result.arrows[id] = points.map(shift);
  }
  for (const [id, pair] of between) {
    // The way around other groups, side by side.
    const points = whole.arrows[id] ?? [];
    pair.arrows.forEach(({ from, to }, index) => {
      const aside = (index - (pair.arrows.length - 1) / 2) * LANE;
      result.arrows[`${from}>${to}`] = points.length > 1 ? points.map(({ x, y }) => ({ x, y: y + aside })) : [];
    });
  }
  return result;
}

/** Space at the sides of a group and above; a collapsed machine has no frame. @param {Box[]} inside */
function frameOf(inside) {
  return inside.every((box) => box.alone) ? { x: 0, y: 0 } : { x: PADDING, y: TITLE };
}

/**
 * Lay out each connected part, and put the parts on shelves.
 * @param {Dagre | null} dagre
 * @param {Box[]} boxes
 * @param {Arrow[]} arrows
 */
function layComponents(dagre, boxes, arrows) {
  const parts = components(boxes, arrows).map((part) => layOne(dagre, part.boxes, part.arrows));
  const area = parts.reduce((sum, part) => sum + (part.width + GAP) * (part.height + GAP), 0);
  const limit = Math.max(Math.sqrt(area * SHAPE), ...parts.map((part) => part.width));
  /** @type {{boxes: Record<string, Area>, arrows: Record<string, Point[]>, width: number, height: number}} */
  const result = { boxes: {}, arrows: {}, width: 0, height: 0 };
  let [x, y, shelf] = [0, 0, 0];
  for (const part of parts) {
    if (x > 0 && x + part.width > limit) {
      x = 0;
      y += shelf + GAP;
      shelf = 0;
    }
    for (const [id, box] of Object.entries(part.boxes)) result.boxes[id] = { ...box, x: box.x + x, y: box.y + y };
    for (const [id, points] of Object.entries(part.arrows)) {
      result.arrows[id] = points.map((point) => ({ x: point.x + x, y: point.y + y }));
    }
    result.width = Math.max(result.width, x + part.width);
    result.height = Math.max(result.height, y + part.height);
    shelf = Math.max(shelf, part.height);
    x += part.width + GAP;
  }
  return result;
}

/** @param {Box[]} boxes @param {Arrow[]} arrows */
function components(boxes, arrows) {
  /** @type {Map<string, string>} */
  const parent = new Map(boxes.map((box) => [box.id, box.id]));
  const root = (/** @type {string} */ id) => {
    let one = id;
    while (parent.get(one) !== one) {
      parent.set(one, parent.get(parent.get(one) ?? one) ?? one);
      one = parent.get(one) ?? one;
    }
    return one;
  };
  for (const { from, to } of arrows) parent.set(root(from), root(to));
  /** @type {Map<string, {boxes: Box[], arrows: Arrow[]}>} */
  const parts = new Map();
  for (const box of boxes) {
    const key = root(box.id);
    if (!parts.has(key)) parts.set(key, { boxes: [], arrows: [] });
    parts.get(key)?.boxes.push(box);
  }
  for (const arrow of arrows) parts.get(root(arrow.from))?.arrows.push(arrow);
  return [...parts.values()].sort((a, b) => b.boxes.length - a.boxes.length);
}

/** @param {Dagre | null} dagre @param {Box[]} boxes @param {Arrow[]} arrows */
function layOne(dagre, boxes, arrows) {
  if (dagre === null || boxes.length > QUICK_ABOVE) return layQuick(boxes, arrows);
  const graph = new dagre.Graph();
  const ranker = boxes.length > SIMPLE_ABOVE ? "longest-path" : "network-simplex";
  graph.setGraph({ rankdir: "LR", ranksep: RANK_GAP, nodesep: NODE_GAP, edgesep: 8, ranker });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const box of boxes) graph.setNode(box.id, { width: box.width, height: box.height });
  for (const { from, to } of arrows) if (from !== to) graph.setEdge(from, to, {});
  dagre.layout(graph);
  /** @type {{boxes: Record<string, Area>, arrows: Record<string, Point[]>, width: number, height: number}} */
  const result = { boxes: {}, arrows: {}, width: 0, height: 0 };
  for (const { id, width, height } of boxes) {
    const { x, y } = graph.node(id);
    result.boxes[id] = { x: x - width / 2, y: y - height / 2, width, height };
    result.width = Math.max(result.width, x + width / 2);
    result.height = Math.max(result.height, y + height / 2);
  }
  for (const edge of graph.edges()) {
    const points = graph.edge(edge).points ?? [];
    result.arrows[`${edge.v}>${edge.w}`] = points.slice(1, -1);
  }
  return result;
}

/**
 * Columns by the longest way from a source, ordered by the neighbours on their left; for parts that are too large
 * for the library.
 * @param {Box[]} boxes
 * @param {Arrow[]} arrows
 */
function layQuick(boxes, arrows) {
  const { rank, before } = ranks(boxes, arrows);
  /** @type {number[][]} */
  const columns = [];
  rank.forEach((column, index) => (columns[column] ??= []).push(index));
  const place = new Float64Array(boxes.length);
  for (const column of columns) column.forEach((index, at) => (place[index] = at / column.length));
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    for (const column of columns) {
      const wanted = new Map(column.map((index) => [index, mean(before[index].map((one) => place[one]), place[index])]));
      column.sort((a, b) => (wanted.get(a) ?? 0) - (wanted.get(b) ?? 0));
      column.forEach((index, at) => (place[index] = at / column.length));
    }
  }
  const [width, height] = [Math.max(...boxes.map((box) => box.width)), Math.max(...boxes.map((box) => box.height))];
  const rows = Math.max(8, Math.ceil(Math.sqrt((boxes.length * (width + RANK_GAP)) / (height + NODE_GAP) / SHAPE)));
  /** @type {{boxes: Record<string, Area>, arrows: Record<string, Point[]>, width: number, height: number}} */
  const result = { boxes: {}, arrows: {}, width: 0, height: 0 };
  let x = 0;
  for (const column of columns) {
    // A long column is folded.
    for (let start = 0; start < column.length; start += rows) {
      column.slice(start, start + rows).forEach((index, row) => {
        const box = boxes[index];
        const y = row * (height + NODE_GAP);
        result.boxes[box.id] = { x, y, width: box.width, height: box.height };
        result.height = Math.max(result.height, y + box.height);
      });
      x += width + (start + rows < column.length ? NODE_GAP : RANK_GAP);
    }
  }
  result.width = x - RANK_GAP;
  return result;
}

/**
 * Column of each box and its neighbours on the left; cycles are broken at their first box.
 * @param {Box[]} boxes
 * @param {Arrow[]} arrows
 */
function ranks(boxes, arrows) {
  const at = new Map(boxes.map((box, index) => [box.id, index]));
  /** @type {number[][]} */
  const after = boxes.map(() => []);
  /** @type {number[][]} */
  const before = boxes.map(() => []);
  for (const arrow of arrows) {
    const [from, to] = [at.get(arrow.from), at.get(arrow.to)];
    if (from === undefined || to === undefined || from === to) continue;
    after[from].push(to);
    before[to].push(from);
  }
  const rank = boxes.map(() => 0);
  const left = before.map((list) => list.length);
  const done = boxes.map(() => false);
  const ready = boxes.map((_, index) => index).filter((index) => left[index] === 0);
  let first = 0;
  for (let count = 0; count < boxes.length; ) {
    if (ready.length === 0) {
      while (done[first]) first += 1;
      ready.push(first);
    }
    const index = /** @type {number} */ (ready.pop());
    if (done[index]) continue;
    done[index] = true;
    count += 1;
    for (const next of after[index]) {
      if (done[next]) continue;
      rank[next] = Math.max(rank[next], rank[index] + 1);
      left[next] -= 1;
      if (left[next] === 0) ready.push(next);
    }
  }
  return { rank, before };
}

/** @param {number[]} values @param {number} otherwise */
function mean(values, otherwise) {
  return values.length === 0 ? otherwise : values.reduce((sum, one) => sum + one, 0) / values.length;
}
