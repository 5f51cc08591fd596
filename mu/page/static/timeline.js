// The timeline: a row for each actor, coloured by what it does, as a canvas that zooms and scrolls.

import {axis, colour, prepare} from "./canvas.js";
import {fill, h} from "./dom.js";
import {BEFORE, ENDED} from "./model.js";
import {count, span} from "./text.js";

const TALL = 360;
const LEFT = 44;
const TALLEST = 22;
const FIXED = {blocked: "--blocked", waiting: "--waiting", launching: "--launching", starting: "--launched", idle: "--idle", away: "--away", wait: "--wait", failed: "--failed", run: "--run", retrieve: "--retrieve", upload: "--upload", connect: "--connect", running: "--run"};
const OTHERS = 6;
const SHORTEST_S = 0.1;
const NICE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000];

export class Timeline {
  /** `open(actor)` is called for an actor that is clicked; `tall` is the height in pixels. */
  constructor(model, open, tall = TALL) {
    this.model = model;
    this.open = open;
    this.canvas = h("canvas", {class: "timeline", tabIndex: 0, role: "img"});
    this.legend = h("div", {class: "legend"});
    this.tip = h("div", {class: "tip", hidden: true});
    this.actors = null; // those that the filter of the page leaves, or null: all
    this.begin = 0;
    this.end = null; // null: follow the job
    this.row = 0; // the height of a row in pixels; 0: all actors fit
    this.top = 0; // how far it is scrolled, in pixels
    this.most = tall;
    const button = (text, title, act) => h("button", {title, onclick: () => { act(); this.draw(); }}, text);
    this.element = h("div", {},
      h("div", {class: "tools"},
        button("−", "Zoom out (−)", () => this.zoom(1.5)),
        button("+", "Zoom in (+), or Ctrl and the wheel", () => this.zoom(1 / 1.5)),
        button("All", "Show the whole job (0)", () => this.reset()),
        tall === TALL && button("Rows +", "Taller rows (Page Up and Page Down scroll)", () => this.stretch(4)),
        tall === TALL && button("Rows −", "Lower rows", () => this.stretch(1 / 4)),
        this.legend),
      h("div", {class: "frame"}, this.canvas, this.tip));
    this.listen();
  }

  get numbers() {
    return this.actors ?? this.model.numbers;
  }

  reset() {
    this.begin = 0;
    this.end = null;
    this.row = 0;
    this.top = 0;
  }

  /** The height of the canvas: of what its rows need, at most. */
  get tall() {
    return Math.min(this.most, Math.max(46, this.numbers.length * TALLEST + 22));
  }

  get last() {
    return this.end ?? Math.max(SHORTEST_S, this.model.elapsed());
  }

  /** Zoom the time, around the middle or the part `at` (0 to 1) of what is shown. */
  zoom(factor, at = 0.5) {
    const whole = Math.max(SHORTEST_S, this.model.elapsed());
    const length = Math.min(whole, Math.max(0.05, (this.last - this.begin) * factor));
    const middle = this.begin + (this.last - this.begin) * at;
    this.show(middle - length * at, length, whole);
  }

  move(part) {
    const length = this.last - this.begin;
    this.show(this.begin + length * part, length, Math.max(SHORTEST_S, this.model.elapsed()));
  }

  show(begin, length, whole) {
    this.begin = Math.min(Math.max(0, begin), whole - length);
    this.end = length >= whole ? null : this.begin + length;
    if (this.end === null) this.begin = 0;
  }

  stretch(factor) {
    const fit = this.bottom / Math.max(1, this.numbers.length);
    const now = this.height;
    const then = Math.min(TALLEST, now * factor);
    const middle = (this.top + this.bottom / 2) / now;
    this.row = then <= fit ? 0 : then;
    this.scroll(middle * this.height - this.bottom / 2 - this.top);
  }

  scroll(pixels) {
    this.top = Math.min(Math.max(0, this.top + pixels), Math.max(0, this.numbers.length * this.height - this.bottom));
  }

  get bottom() {
    return this.tall - 20;
  }

  /** The height of a row in pixels, which may be a fraction. */
  get height() {
    return this.row || Math.min(TALLEST, this.bottom / Math.max(1, this.numbers.length));
  }

  listen() {
    const {canvas} = this;
    const part = (event) => Math.min(1, Math.max(0, (event.offsetX - LEFT) / (canvas.clientWidth - LEFT - 8)));
    let pressed = null, moved = false;
    canvas.addEventListener("wheel", (event) => {
      const pixels = event.deltaMode === 1 ? event.deltaY * 20 : event.deltaY;
      if (event.ctrlKey || event.metaKey) this.zoom(1.002 ** pixels, part(event));
      else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.move((event.deltaX || pixels) / canvas.clientWidth);
      else if (this.row) this.scroll(pixels);
      else return; // the page scrolls
      event.preventDefault();
      this.later();
    }, {passive: false});
    canvas.addEventListener("pointerdown", (event) => {
      pressed = event;
      moved = false;
      if (event.pointerType === "mouse") canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (pressed && event.pointerType === "mouse") {
        if (Math.abs(event.offsetX - pressed.offsetX) + Math.abs(event.offsetY - pressed.offsetY) > 3) moved = true;
        this.move((pressed.offsetX - event.offsetX) / (canvas.clientWidth - LEFT - 8));
        if (this.row) this.scroll(pressed.offsetY - event.offsetY);
        pressed = event;
        this.later();
      }
      this.point(event);
    });
    canvas.addEventListener("pointerup", (event) => {
      const actor = this.actorAt(event.offsetY);
      if (pressed && !moved && actor !== undefined) this.open(actor);
      pressed = null;
    });
    canvas.addEventListener("pointercancel", () => { pressed = null; });
    canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    canvas.addEventListener("keydown", (event) => {
      const acts = {
        ArrowLeft: () => this.move(-0.2), ArrowRight: () => this.move(0.2),
        ArrowUp: () => this.scroll(-60), ArrowDown: () => this.scroll(60),
        PageUp: () => this.scroll(-this.bottom), PageDown: () => this.scroll(this.bottom),
        "+": () => this.zoom(1 / 1.5), "=": () => this.zoom(1 / 1.5), "-": () => this.zoom(1.5), 0: () => this.reset(),
      };
      if (!(event.key in acts) || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      acts[event.key]();
      this.later();
    });
  }

  later() {
    this.frame ??= requestAnimationFrame(() => { this.frame = null; this.draw(); });
  }

  actorAt(y) {
    return y < this.bottom ? this.numbers[Math.floor((y + this.top) / this.height)] : undefined;
  }

  point(event) {
    const actor = this.actorAt(event.offsetY);
    const course = this.model.courses.get(actor);
    const width = this.canvas.clientWidth;
    const at = this.begin + ((event.offsetX - LEFT) / (width - LEFT - 8)) * (this.last - this.begin);
    this.tip.hidden = !course || event.offsetX < LEFT;
    if (this.tip.hidden) return;
    let i = 0;
    while (i + 2 < course.length && course[i + 2] <= at) i += 2;
    const state = this.model.states[course[i + 1]];
    const end = course[i + 2] ?? (ENDED.has(state) ? course[i] : this.model.elapsed());
    fill(this.tip, h("b", {}, `Actor ${actor}`), ` ${state}`, ENDED.has(state) ? ` at ${span(course[i])}` : ` for ${span(end - course[i])}, from ${span(course[i])}`);
    this.tip.style.left = `${Math.min(event.offsetX + 12, width - 220)}px`;
    this.tip.style.top = `${event.offsetY + 14}px`;
  }

  /** Return the colour of each state, by its place in the model's list. */
  palette() {
    let other = 0;
    return this.model.states.map((name) => {
      const variable = name in FIXED ? FIXED[name] : ENDED.has(name) ? null : `--other-${other++ % OTHERS}`;
      return variable && colour(this.canvas, variable);
    });
  }

  draw() {
    const {context, width} = prepare(this.canvas, this.tall);
    const {numbers, height, bottom, begin, last} = this;
    this.scroll(0);
    const right = width - 8;
    const palette = this.palette();
    const scale = (right - LEFT) / (last - begin);
    const end = this.model.elapsed();
    const step = Math.max(1, height); // rows lower than a pixel: one actor for each pixel
    const gap = height >= 4 ? 1 : 0;
    for (let y = height >= 1 ? -(this.top % height) : 0; y < bottom; y += step) {
      const place = Math.floor((this.top + y + (height >= 1 ? 0.01 : 0)) / height);
      if (place >= numbers.length) break;
      const course = this.model.courses.get(numbers[place]);
      if (course) this.drawRow(context, course, palette, y, Math.min(step - gap, bottom - y), begin, scale, end, right);
    }
    this.drawNumbers(context, height);
    axis(context, this.canvas, begin, last, LEFT, right, bottom);
    this.drawLegend(palette);
    this.canvas.setAttribute("aria-label", `Timeline of ${count(numbers.length)} actors, from ${span(begin)} to ${span(last)}. The table below has the same facts.`);
  }

  drawRow(context, course, palette, y, tall, begin, scale, end, right) {
    let drawn = LEFT; // what is left of this is done: parts that are lower than a pixel are skipped
    for (let i = 0; i < course.length; i += 2) {
      const name = course[i + 1];
      const until = course[i + 2] ?? end;
      const x = Math.max(drawn, LEFT + (course[i] - begin) * scale);
      const to = Math.min(right, LEFT + (until - begin) * scale);
      if (x > right) return;
      if (palette[name] === null || (this.model.states[name] === "failed")) {
        if (palette[name] && x >= LEFT && course[i] >= begin) {
          context.fillStyle = palette[name];
          context.fillRect(x, y, 4, tall);
        }
        continue;
      }
      if (to - x < 0.5) continue;
      context.fillStyle = palette[name];
      context.fillRect(x, y, Math.max(1, to - x), tall);
      drawn = to;
    }
  }

  drawNumbers(context, height) {
    context.fillStyle = colour(this.canvas, "--dim");
    context.textAlign = "right";
    context.textBaseline = "middle";
    const every = NICE.find((one) => one * height >= 14) ?? this.numbers.length;
    const first = Math.ceil(this.top / height / every) * every;
    for (let place = first; place < this.numbers.length; place += every) {
      const y = Math.max(6, place * height - this.top + Math.min(height, 14) / 2);
      if (y > this.bottom) break;
      context.fillText(String(this.numbers[place]), LEFT - 6, y + 1);
    }
  }

  /** Return the states that occur in the rows, by their places in the model's list. */
  used() {
    if (this.usedVersion !== this.model.version || this.usedOf !== this.actors) {
      const found = new Set();
      for (const number of this.numbers) {
        const course = this.model.courses.get(number) ?? [];
        for (let i = 1; i < course.length; i += 2) found.add(course[i]);
      }
      [this.usedVersion, this.usedOf, this.usedStates] = [this.model.version, this.actors, [...found].sort((a, b) => a - b)];
    }
    return this.usedStates;
  }

  drawLegend(palette) {
    const shown = this.used().map((place) => [this.model.states[place], palette[place]]).filter(([, one]) => one);
    const text = shown.flat().join();
    if (text === this.legendText) return;
    this.legendText = text;
    const rank = (name) => (BEFORE.has(name) ? 0 : ENDED.has(name) ? 2 : 1);
    shown.sort(([one], [other]) => rank(one) - rank(other));
    fill(this.legend, shown.map(([name, one]) => {
      const swatch = h("i", {});
      swatch.style.background = one;
      return h("span", {}, swatch, name);
    }));
  }
}
