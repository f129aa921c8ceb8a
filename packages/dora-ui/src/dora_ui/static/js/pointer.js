/** Drags, wheel and pinches of an element that shows something large. */

import { useEffect, useRef } from "preact/hooks";

/** Pixels from which a movement is a drag and not an unsteady click. */
const DRAG = 5;

/**
 * Call `pan` for drags and `zoomAt` for the wheel and for two fingers; positions are those in the element.
 * @param {{current: Element | null}} target
 * @param {(dx: number, dy: number) => void} pan
 * @param {(factor: number, x: number, y: number) => void} zoomAt
 */
export function usePointer(target, pan, zoomAt) {
  const latest = useRef({ pan, zoomAt });
  latest.current = { pan, zoomAt };
  useEffect(() => {
    const element = /** @type {HTMLElement | null} */ (target.current);
    if (element === null) return undefined;
    /** @type {Map<number, {x: number, y: number}>} */
    const pointers = new Map();
    // The click at the end of a drag would choose what is under the pointer, or nothing.
    let way = 0;
    const local = (/** @type {{clientX: number, clientY: number}} */ event) => {
      const box = element.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    const down = (/** @type {PointerEvent} */ event) => {
      if (pointers.size === 0) way = 0;
      pointers.set(event.pointerId, local(event));
    };
    const click = (/** @type {MouseEvent} */ event) => {
      if (way > DRAG) event.stopPropagation();
    };
    const move = (/** @type {PointerEvent} */ event) => {
      const before = pointers.get(event.pointerId);
      if (before === undefined) return;
      const now = local(event);
      way += Math.abs(now.x - before.x) + Math.abs(now.y - before.y);
      if (pointers.size === 1) {
        if (event.buttons === 0) pointers.clear();
        else latest.current.pan(now.x - before.x, now.y - before.y);
      } else {
        const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
        const size = Math.hypot(before.x - other.x, before.y - other.y) || 1;
        latest.current.zoomAt(Math.hypot(now.x - other.x, now.y - other.y) / size, other.x, other.y);
      }
      pointers.set(event.pointerId, now);
    };
    const up = (/** @type {PointerEvent} */ event) => pointers.delete(event.pointerId);
    const wheel = (/** @type {WheelEvent} */ event) => {
      event.preventDefault();
      const { x, y } = local(event);
      latest.current.zoomAt(Math.exp(-event.deltaY * 0.0016), x, y);
    };
    element.addEventListener("pointerdown", down);
    element.addEventListener("click", click, true);
    element.addEventListener("wheel", wheel, { passive: false });
    addEventListener("pointermove", move);
    addEventListener("pointerup", up);
    addEventListener("pointercancel", up);
    return () => {
      element.removeEventListener("pointerdown", down);
      element.removeEventListener("click", click, true);
      element.removeEventListener("wheel", wheel);
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", up);
      removeEventListener("pointercancel", up);
    };
  }, []);
}
