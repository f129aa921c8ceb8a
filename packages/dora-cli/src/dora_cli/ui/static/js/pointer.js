/** Drags, wheel and pinches of an element that shows something large. */

import { useEffect, useRef } from "preact/hooks";

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
    const local = (/** @type {{clientX: number, clientY: number}} */ event) => {
      const box = element.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    const down = (/** @type {PointerEvent} */ event) => pointers.set(event.pointerId, local(event));
    const move = (/** @type {PointerEvent} */ event) => {
      const before = pointers.get(event.pointerId);
      if (before === undefined) return;
      const now = local(event);
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
    element.addEventListener("wheel", wheel, { passive: false });
    addEventListener("pointermove", move);
    addEventListener("pointerup", up);
    addEventListener("pointercancel", up);
    return () => {
      element.removeEventListener("pointerdown", down);
      element.removeEventListener("wheel", wheel);
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", up);
      removeEventListener("pointercancel", up);
    };
  }, []);
}
