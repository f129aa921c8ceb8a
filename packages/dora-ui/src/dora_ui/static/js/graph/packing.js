/** Machines in rows, and the arrows between them through the space around them; no layout engine. */

/** @typedef {import("./layout.js").Point} Point */
/** @typedef {import("./layout.js").Area} Area */
/** @typedef {import("./layout.js").Layout} Layout */
/** @typedef {import("./layout.js").Route} Route */
/** @typedef {import("./model.js").Bundle} Bundle */

/**
 * The layout of one machine; `leaving` and `entering` are the pieces of arrows from a node to the lower edge and from the
 * upper edge to a node.
 * @typedef {Layout & {leaving: Record<string, Point[]>, entering: Record<string, Point[]>}} Part
 */
/** @typedef {{part: Part, x: number, y: number, row: number, place: number}} Placed */
/** @typedef {{bundle: Bundle, from: Placed, to: Placed, gap: number, lane: number}} Crossing `lane`: where it passes a row; NaN until known */
/** @typedef {{id: string, left: number, right: number, label: Area | undefined, y: number}} Track a horizontal piece of an arrow */

const SPACE = 24;
const LANE = 8;
const MOST_ROWS = 24;

/**
 * All arrangements of the machines, by their number of rows.
 * @param {Part[]} parts in the order in which they are read
 * @param {Bundle[]} bundles arrows between them
 * @param {boolean} labelled
 * @returns {Layout[]}
 */
export function arrangements(parts, bundles, labelled) {
  if (parts.length <= 1 && bundles.length === 0) return parts;
  const rows = Array.from({ length: Math.min(parts.length, MOST_ROWS) }, (_, index) => index + 1);
  return rows.map((count) => arrange(parts, inRows(parts, count), bundles, labelled));
}

/**
 * Row of each part: at most `count` rows, the longest as short as possible.
 * @param {Part[]} parts
 * @param {number} count
 */
function inRows(parts, count) {
  const filled = (/** @type {number} */ limit) => {
    let [row, used] = [0, 0];
    return parts.map(({ width }) => {
      if (used > 0 && used + SPACE + width > limit) [row, used] = [row + 1, 0];
      used += (used > 0 ? SPACE : 0) + width;
      return row;
    });
  };
  let least = Math.max(...parts.map(({ width }) => width));
  let most = parts.reduce((sum, { width }) => sum + width + SPACE, 0);
  while (most - least > 1) {
    const middle = (least + most) / 2;
    if ((filled(middle).at(-1) ?? 0) < count) most = middle;
    else least = middle;
  }
  return filled(most);
}

/**
 * @param {Part[]} parts
 * @param {number[]} rowOf
 * @param {Bundle[]} bundles
 * @param {boolean} labelled
 * @returns {Layout}
 */
function arrange(parts, rowOf, bundles, labelled) {
  /** @type {Placed[][]} */
  const rows = [];
  const placed = parts.map((part, index) => {
    const row = (rows[rowOf[index]] ??= []);
    row.push({ part, x: 0, y: 0, row: rowOf[index], place: row.length });
    return row[row.length - 1];
  });
  const holder = new Map(placed.flatMap((one) => Object.keys(one.part.boxes).map((id) => /** @type {const} */ ([id, one]))));
  /** @type {Crossing[]} */
  const crossings = bundles.flatMap((bundle) => {
    const [from, to] = [holder.get(bundle.from), holder.get(bundle.to)];
    if (from === undefined || to === undefined) return [];
    const gap = from.row === to.row ? from.place + (to.place > from.place ? 0 : -1) : -1;
    return [{ bundle, from, to, gap, lane: NaN }];
  });
  const { width, left } = placeAcross(rows, crossings);
  const tracks = tracksOf(rows.length, crossings, labelled);
  const height = placeDown(rows, tracks);
  /** @type {Layout} */
  const layout = { boxes: {}, groups: [], routes: {}, width, height, direction: parts[0].direction };
  for (const one of placed) move(one, left, layout);
  for (const crossing of crossings) layout.routes[crossing.bundle.id] = route(crossing, left, tracks);
  return layout;
}

/**
 * Place the parts of all rows, and the lanes beside them in which arrows pass a row.
 * @param {Placed[][]} rows
 * @param {Crossing[]} crossings
 */
function placeAcross(rows, crossings) {
  const inGap = (/** @type {number} */ row, /** @type {number} */ gap) => crossings.filter((one) => one.from.row === row && one.gap === gap);
  const widths = rows.map((row, number) => {
    let x = 0;
    for (const one of row) {
      one.x = x;
      x += one.part.width + (one.place < row.length - 1 ? SPACE + LANE * inGap(number, one.place).length : 0);
    }
    return x;
  });
  const width = Math.max(...widths);
  rows.forEach((row, number) => row.forEach((one) => (one.x += (width - widths[number]) / 2)));
  rows.forEach((row, number) =>
    row.forEach((one) => inGap(number, one.place).forEach((crossing, index) => (crossing.lane = one.x + one.part.width + SPACE / 2 + LANE * index))),
  );
  let [left, right] = [0, 0];
  for (const one of crossings) {
    if (one.gap >= 0 || one.to.row === one.from.row + 1) continue;
    const middle = (start(one).x + end(one).x) / 2;
    one.lane = middle < width / 2 ? -LANE * (left += 1) : width + LANE * (right += 1);
  }
  return { width: width + LANE * (left + right), left: LANE * left };
}

/** Where an arrow leaves a machine, before the rows are placed. @param {Crossing} crossing @returns {Point} */
function start({ bundle, from }) {
  const [point] = from.part.leaving[bundle.id].slice(-1);
  return { x: from.x + point.x, y: from.y + from.part.height };
}

/** @param {Crossing} crossing @returns {Point} */
function end({ bundle, to }) {
  const [point] = to.part.entering[bundle.id];
  return { x: to.x + point.x, y: to.y };
}

/**
 * Horizontal pieces of arrows in the space above, between and below the rows.
 * @param {number} rows
 * @param {Crossing[]} crossings
 * @param {boolean} labelled
 * @returns {Track[][]}
 */
function tracksOf(rows, crossings, labelled) {
  /** @type {Track[][]} */
  const tracks = Array.from({ length: rows + 1 }, () => []);
  for (const one of crossings) {
    const [from, to] = [start(one).x, end(one).x];
    const first = Number.isNaN(one.lane) ? to : one.lane;
    tracks[one.from.row + 1].push(track(one, from, first, labelled));
    if (!Number.isNaN(one.lane)) tracks[one.to.row].push(track(one, one.lane, to, false));
  }
  return tracks;
}

/** @param {Crossing} crossing @param {number} from @param {number} to @param {boolean} labelled @returns {Track} */
function track({ bundle: { id, label } }, from, to, labelled) {
  const [left, right] = [Math.min(from, to), Math.max(from, to)];
  if (!labelled) return { id, left, right, label: undefined, y: 0 };
  const isLong = right - left > label.width + 8;
  const x = !isLong ? right + 4 : to < from ? right - label.width - 4 : left + 4;
  return { id, left, right: Math.max(right, x + label.width + 4), label: { x, y: 0, ...label }, y: 0 };
}

/**
 * Place tracks and rows from top to bottom; tracks that do not touch share a height.
 * @param {Placed[][]} rows
 * @param {Track[][]} tracks
 */
function placeDown(rows, tracks) {
  let y = 0;
  tracks.forEach((found, number) => {
    const outside = number === 0 || number === rows.length;
    if (found.length === 0) y += outside ? 0 : SPACE;
    else y = placeTracks(found, y) + LANE;
    if (number === rows.length) return;
    for (const one of rows[number]) one.y = y;
    y += Math.max(...rows[number].map(({ part }) => part.height));
  });
  return y;
}

/** @param {Track[]} tracks @param {number} y @returns {number} where the lowest ends */
function placeTracks(tracks, y) {
  /** @type {Track[][]} */
  const lines = [];
  for (const one of tracks.toSorted((a, b) => a.left - b.left || a.right - b.right)) {
    const line = lines.find((others) => others.every((other) => other.right + LANE < one.left));
    if (line === undefined) lines.push([one]);
    else line.push(one);
  }
  for (const line of lines) {
    const text = Math.max(0, ...line.map(({ label }) => label?.height ?? 0));
    y += LANE + text;
    for (const one of line) {
      one.y = y;
      if (one.label !== undefined) one.label.y = y - one.label.height - 1;
    }
  }
  return y;
}

/** Add a placed part to a layout. @param {Placed} placed @param {number} left @param {Layout} layout */
function move({ part, x, y }, left, layout) {
  const area = (/** @type {Area} */ one) => ({ ...one, x: one.x + x + left, y: one.y + y });
  for (const [id, box] of Object.entries(part.boxes)) layout.boxes[id] = area(box);
  for (const group of part.groups) layout.groups.push({ ...group, area: area(group.area) });
  for (const [id, { points, label }] of Object.entries(part.routes)) {
    layout.routes[id] = { points: moved(points, x + left, y), label: label && area(label) };
  }
}

/** @param {Point[]} points @param {number} x @param {number} y */
function moved(points, x, y) {
  return points.map((one) => ({ x: one.x + x, y: one.y + y }));
}

/** @param {Crossing} crossing @param {number} left @param {Track[][]} tracks @returns {Route} */
function route(crossing, left, tracks) {
  const { bundle, from, to, lane } = crossing;
  const leaving = moved(from.part.leaving[bundle.id], from.x, from.y);
  const entering = moved(to.part.entering[bundle.id], to.x, to.y);
  const [a, b] = [leaving[leaving.length - 1].x, entering[0].x];
  const find = (/** @type {number} */ number) => /** @type {Track} */ (tracks[number].find((one) => one.id === bundle.id));
  const first = find(from.row + 1);
  const between = Number.isNaN(lane)
    ? [{ x: a, y: first.y }, { x: b, y: first.y }]
    : [{ x: a, y: first.y }, { x: lane, y: first.y }, { x: lane, y: find(to.row).y }, { x: b, y: find(to.row).y }];
  const label = first.label && { ...first.label, x: first.label.x + left };
  return { points: moved([...leaving, ...between, ...entering], left, 0), label };
}
