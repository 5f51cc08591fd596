// The list of jobs.

import {get, sleep} from "./api.js";
import {complain, fill, h} from "./dom.js";
import {bar, badge} from "./parts.js";
import {count, dollars, span, when} from "./text.js";

const SHOWN = 200;
const PAUSE_MS = 2000;

export async function jobsView({main, signal, linked}) {
  const search = h("input", {type: "search", placeholder: "Filter by id, name, pipeline or state", "aria-label": "Filter jobs", oninput: () => draw()});
  const table = h("div");
  fill(main, h("div", {class: "head"}, h("h1", {}, "Jobs"), search), table);
  let jobs = null;

  function draw() {
    if (jobs === null) return;
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = jobs.filter((job) => {
      const text = `${job.id} ${job.name} ${job.pipeline} ${job.state}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    if (!found.length) {
      fill(table, h("p", {class: "empty"}, jobs.length ? "No job matches." : "There are no jobs yet."));
      return;
    }
    const now = Date.now() / 1000;
    fill(table, h("table", {class: "jobs"},
      h("thead", {}, h("tr", {}, ["State", "Job", "Progress", "Inputs", "Ordered", "Took", "Cost"].map((name) => h("th", {}, name)))),
      h("tbody", {}, found.map((job) => h("tr", {},
        h("td", {}, badge(job.state)),
        h("td", {class: "wide"}, h("a", {href: `#/jobs/${job.id}`, class: "id"}, job.id), " ", h("b", {}, job.name), " ", h("span", {class: "dim"}, job.pipeline)),
        h("td", {class: "progress"}, bar(job)),
        h("td", {class: "number", "data-name": "inputs"}, `${count(job.inputs.done + job.inputs.failed)} of ${count(job.inputs.total)}`),
        h("td", {class: "number dim"}, when(job.created)),
        h("td", {class: "number", "data-name": "took"}, span((job.finished ?? now) - job.created)),
        h("td", {class: "number"}, dollars(job.cost_usd)))))));
    if (jobs.length === SHOWN) table.append(h("p", {class: "dim"}, `The latest ${SHOWN} jobs.`));
  }

  while (!signal.aborted) {
    if (!document.hidden || jobs === null) {
      try {
        jobs = (await get("jobs", {last: SHOWN}, signal)).reverse();
        linked(null);
        complain(main, null);
        draw();
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 401) throw error;
        linked(error);
      }
    }
    await sleep(PAUSE_MS, signal);
  }
}
