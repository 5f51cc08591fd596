// Parts that several views share.

import {h} from "./dom.js";
import {count, counted, span, STATES} from "./text.js";

/** Return the state of a job or an actor, as a coloured word. */
export const badge = (state) => h("span", {class: `badge ${state}`}, state);

/** Return a progress bar: inputs done, failed, and those of running actors. */
export function bar(job) {
  const {total, done, failed} = job.inputs;
  const element = h("div", {class: "bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": total, "aria-valuenow": done + failed});
  fillBar(element, job);
  return element;
}

export function fillBar(element, job) {
  const {total, done, failed} = job.inputs;
  element.setAttribute("aria-valuemax", total);
  element.setAttribute("aria-valuenow", done + failed);
  element.replaceChildren(...[["done", done], ["failed", failed]].map(([state, part]) => {
    const one = h("span", {class: state});
    one.style.width = `${total ? (100 * part) / total : 0}%`; // set by script: the policy forbids it in markup
    return one;
  }));
}

/** Return the counts of actors in words: `3 running, 17 done`. */
export const counts = (job) => STATES.filter((state) => job.counts[state]).map((state) => `${job.counts[state].toLocaleString("en")} ${state}`).join(", ") || counted(job.workers, "actor");

/** Return what workers used, as facts; none, if nothing was told. */
export const usage = (used) => !used ? [] : [
  ["CPU", used.cpu_s === null ? "unknown" : span(used.cpu_s)],
  ["Peak memory", used.peak_mb === null ? "unknown" : `${count(used.peak_mb)}${used.memory_mb ? ` of ${count(used.memory_mb)}` : ""} MB`],
];

/** Return names and values as a list; values that are empty are left out. */
export const facts = (pairs) => h("dl", {class: "facts"}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => h("div", {class: value.className === "long" ? "whole" : ""}, h("dt", {}, name), h("dd", {}, value))));
