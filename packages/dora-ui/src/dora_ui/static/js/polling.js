/** An answer that is read again and again while a view is shown. */

import { useEffect, useState } from "preact/hooks";

const PERIOD_MS = 2000;

/**
 * @template T
 * @param {() => Promise<T>} load
 * @param {boolean} paused
 * @returns {[T | null, string, () => void]} the last answer, why the last attempt failed, and a function that reads now
 */
export function usePolled(load, paused) {
  const [found, setFound] = useState(/** @type {T | null} */ (null));
  const [problem, setProblem] = useState("");
  const [wanted, setWanted] = useState(0);
  useEffect(() => {
    if (paused) return undefined;
    let current = true;
    let pending = false;
    const poll = async () => {
      if (document.hidden || pending) return;
      pending = true;
      try {
        const answer = await load();
        if (current) {
          setFound(answer);
          setProblem("");
        }
      } catch (error) {
        if (current) setProblem(/** @type {Error} */ (error).message);
      }
      pending = false;
    };
    poll();
    const timer = setInterval(poll, PERIOD_MS);
    return () => {
      current = false;
      clearInterval(timer);
    };
  }, [wanted, paused]);
  return [found, problem, () => setWanted((one) => one + 1)];
}
