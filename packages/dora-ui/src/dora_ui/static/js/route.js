/** The address of a view within the page: `#/dataflow/UUID/node/ID`. */

import { useEffect, useState } from "preact/hooks";

/** @returns {string[]} */
function parts() {
  return location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decode);
}

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** @param {...string} words */
export function link(...words) {
  return `#/${words.map(encodeURIComponent).join("/")}`;
}

/** @param {...string} words */
export function go(...words) {
  location.hash = link(...words);
}

/** Return the words of the address, and render again when it changes. */
export function useRoute() {
  const [route, setRoute] = useState(parts());
  useEffect(() => {
    const changed = () => setRoute(parts());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}
