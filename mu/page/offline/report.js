// A report: the page's views of one job and its actors.

import {actorView} from "./actor.js";
import {reported} from "./api.js";
import {fill, h} from "./dom.js";
import {jobView} from "./job.js";

const main = document.getElementById("main");
let leave = new AbortController();

function show() {
  leave.abort();
  leave = new AbortController();
  const actor = location.hash.match(/\/actors\/(\d+)$/)?.[1];
  const name = `Job ${reported}`;
  fill(document.getElementById("path"), actor ? [h("a", {href: "#"}, name), h("span", {}, `Actor ${actor}`)] : h("span", {}, name));
  fill(main);
  const view = actor ? actorView : jobView;
  main.className = view.name;
  view({main, signal: leave.signal, linked: () => {}, given: [reported, actor]});
}

document.getElementById("page").hidden = false;
document.getElementById("summary").open = false;
addEventListener("hashchange", show);
show();
