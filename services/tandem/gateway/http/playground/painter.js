const INTERVAL = 50; // milliseconds

/** Paints what changes faster than anybody looks: now and then, and always the newest. */
export class Painter {
  #paint = null;
  #timer = null;

  /** Paints before long, and nothing that was to be painted before. */
  soon(paint) {
    this.#paint = paint;
    this.#timer ??= setTimeout(() => this.now(this.#paint), INTERVAL);
  }

  now(paint) {
    clearTimeout(this.#timer);
    this.#timer = null;
    paint();
  }
}
