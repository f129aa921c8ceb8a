/**
 * The clock of the state: that of the coordinator, or of the computer with the local runs. The
 * browser's own clock may differ from it and may be set while the page is open.
 */

/** @type {number | null} Seconds by which that clock is ahead of the time since the page was opened. */
let ahead = null;

const elapsed = () => performance.now() / 1000;

/** @param {number | undefined} time Unix time that the server has sent just now */
export function setClock(time) {
  if (time !== undefined) ahead = time - elapsed();
}

/** Unix time by the clock of the state; by the browser's until the server has sent one. */
export function now() {
  return ahead === null ? Date.now() / 1000 : ahead + elapsed();
}
