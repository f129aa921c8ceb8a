/**
 * The WebSocket to the local server, and the streams on it. Streams are opened again after a lost
 * connection. A hidden page has no connection, so that it costs nothing.
 */

const RETRY_MS = 1000;

/** @typedef {Record<string, any>} Frame */
/** @typedef {"connecting" | "open" | "lost"} Status */

/**
 * One open stream.
 * @typedef {{close: () => void, acknowledge: () => void}} Stream
 */

export class Live {
  /** @param {string} url */
  constructor(url) {
    this.url = url;
    /** @type {Status} */
    this.status = "connecting";
    /** @type {(status: Status) => void} */
    this.onstatus = () => {};
    /** @type {Map<number, {request: Frame, receive: (frame: Frame) => void, reset: () => void}>} */
    this.streams = new Map();
    this.last = 0;
    /** @type {WebSocket | null} */
    this.socket = null;
    document.addEventListener("visibilitychange", () => this.#toggle());
    this.#toggle();
  }

  /**
   * Open a stream. `reset` is called before each (re)start, so that nothing is shown twice.
   * @param {Frame} request
   * @param {(frame: Frame) => void} receive
   * @param {() => void} [reset]
   * @returns {Stream}
   */
  open(request, receive, reset = () => {}) {
    const id = ++this.last;
    this.streams.set(id, { request, receive, reset });
    this.#send({ ...request, id });
    return {
      close: () => {
        this.streams.delete(id);
        this.#send({ open: "close", id });
      },
      acknowledge: () => this.#send({ open: "acknowledge", id }),
    };
  }

  #toggle() {
    if (document.hidden) {
      this.socket?.close();
      this.socket = null;
    } else if (this.socket === null) {
      this.#connect();
    }
  }

  #connect() {
    const socket = new WebSocket(this.url);
    this.socket = socket;
    socket.onopen = () => {
      this.#set("open");
      for (const [id, stream] of this.streams) {
        stream.reset();
        this.#send({ ...stream.request, id });
      }
    };
    socket.onmessage = (event) => {
      const frame = JSON.parse(event.data);
      this.streams.get(frame.id)?.receive(frame);
    };
    socket.onclose = () => {
      if (this.socket !== socket) return; // hidden
      this.#set("lost");
      setTimeout(() => {
        if (this.socket === socket && !document.hidden) this.#connect();
      }, RETRY_MS);
    };
  }

  /** @param {Status} status */
  #set(status) {
    if (this.status === status) return;
    this.status = status;
    this.onstatus(status);
  }

  /** @param {Frame} frame */
  #send(frame) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
  }
}
