/** Worker of `useLayout`. A worker has no import map, so it loads the library by its path. */

import { lay } from "./layout.js";

const library = new URL("../../vendor/dagre.js", import.meta.url).href;
/** @type {Promise<import("./layout.js").Dagre>} */
const loaded = import(library);

self.onmessage = async (event) => {
  const { number, boxes, arrows, grouped } = event.data;
  let layout;
  try {
    layout = lay(await loaded, boxes, arrows, grouped);
  } catch (error) {
    console.warn("the graph is arranged without the library:", error);
    layout = lay(null, boxes, arrows, grouped);
  }
  postMessage({ number, layout });
};
