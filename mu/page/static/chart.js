// How many actors were starting, running and done at each time, as a canvas.

import {BEFORE} from "./model.js";
import {count, span} from "./text.js";
import {axis, colour, prepare} from "./canvas.js";

const BANDS = [["launched", "--launched"], ["running", "--running"], ["done", "--done"], ["failed", "--failed"]];
const HEIGHT = 150;
const LEFT = 44;

/** Return which band a state is in; -1: the actor waits and is not counted. */
const band = (name) => name === "waiting" || name === "blocked" ? -1 : BEFORE.has(name) ? 0 : name === "done" ? 2 : name === "failed" || name === "cancelled" ? 3 : 1;

/** Return, for each of `steps` parts of the time, how many actors are in each band. */
export function concurrency(model, seconds, steps) {
  const changes = BANDS.map(() => new Int32Array(steps + 1));
  const bands = model.states.map(band);
  const place = (at) => Math.min(steps, Math.max(0, Math.ceil((at / seconds) * steps)));
  for (const course of model.courses.values()) {
    let last = -1;
    for (let i = 0; i < course.length; i += 2) {
      const now = bands[course[i + 1]];
      if (now === last) continue;
      const at = place(course[i]);
      if (last >= 0) changes[last][at] -= 1;
      if (now >= 0) changes[now][at] += 1;
      last = now;
    }
  }
  for (const one of changes) for (let i = 1; i <= steps; i += 1) one[i] += one[i - 1];
  return changes;
}

export function drawChart(canvas, model) {
  const {context, width, height} = prepare(canvas, HEIGHT);
  const seconds = Math.max(0.1, model.elapsed());
  const right = width - 8, bottom = height - 18, steps = Math.max(1, Math.floor((right - LEFT) / 2));
  const sums = concurrency(model, seconds, steps);
  const most = Math.max(1, model.numbers.length);
  const x = (step) => LEFT + ((right - LEFT) * step) / steps;
  const y = (value) => bottom - ((bottom - 8) * value) / most;
  const below = new Float64Array(steps + 1);
  // Done is at the bottom, since it only grows; what is launched lies on what runs.
  for (const which of [2, 3, 1, 0]) {
    context.fillStyle = colour(canvas, BANDS[which][1]);
    context.beginPath();
    for (let i = 0; i <= steps; i += 1) context.lineTo(x(i), y(below[i]));
    for (let i = steps; i >= 0; i -= 1) context.lineTo(x(i), y(below[i] + sums[which][i]));
    context.fill();
    for (let i = 0; i <= steps; i += 1) below[i] += sums[which][i];
  }
  context.fillStyle = colour(canvas, "--dim");
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillText(count(most), LEFT - 6, y(most) + 2);
  context.fillText("0", LEFT - 6, y(0));
  axis(context, canvas, 0, seconds, LEFT, right, bottom);
  const now = BANDS.map(([name], which) => `${count(sums[which][steps])} ${name}`).join(", ");
  canvas.setAttribute("aria-label", `Actors over ${span(seconds)}: now ${now}`);
}

/** The names of the bands and their colours, for a legend. */
export const LEGEND = BANDS;
