// What the canvases share: sharp lines, colours of the stylesheet, an axis of time.

import {span} from "./text.js";

/** Fit a canvas to its place on the page; return its context, and its size in CSS pixels. */
export function prepare(canvas, height) {
  const scale = window.devicePixelRatio || 1;
  const width = Math.max(50, canvas.clientWidth);
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11px system-ui, sans-serif";
  return {context, width, height};
}

/** Return the value of a variable of the stylesheet. */
export const colour = (element, name) => getComputedStyle(element).getPropertyValue(name).trim();

const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400];

/** Draw times from `begin` to `end`, in seconds, below `bottom`. */
export function axis(context, canvas, begin, end, left, right, bottom) {
  const fits = Math.max(2, (right - left) / 90);
  const step = STEPS.find((one) => (end - begin) / one <= fits) ?? Math.ceil((end - begin) / fits);
  context.fillStyle = colour(canvas, "--dim");
  context.textBaseline = "top";
  for (let at = Math.ceil(begin / step) * step; at <= end; at += step) {
    const x = left + ((right - left) * (at - begin)) / (end - begin);
    context.fillRect(Math.round(x), bottom, 1, 4);
    const text = at === 0 ? "0" : step < 1 ? `${at.toFixed(1)} s` : span(at).replace(".0 s", " s");
    const half = context.measureText(text).width / 2;
    context.textAlign = x - half < left - 20 ? "left" : x + half > right ? "right" : "center";
    context.fillText(text, x, bottom + 5);
  }
}
