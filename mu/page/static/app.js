// The page: who is logged in, and which view is shown.

import {hasSession, logIn, onLoggedOut, readOnly} from "./api.js";
import {actorView} from "./actor.js";
import {complain, fill, h} from "./dom.js";
import {jobView} from "./job.js";
import {jobsView} from "./jobs.js";
import {launchView} from "./launch.js";

const main = document.getElementById("main");
const path = document.getElementById("path");
const link = document.getElementById("link");
const launch = document.getElementById("launch");

let leave = new AbortController();

// A view fills `main` and works until its signal aborts.
const VIEWS = [
  [/^\/$/, jobsView, () => []],
  [/^\/launch$/, launchView, () => [["New job"]]],
  [/^\/jobs\/(\w+)$/, jobView, (job) => [[job]]],
  [/^\/jobs\/(\w+)\/actors\/(\d+)$/, actorView, (job, actor) => [[job, `#/jobs/${job}`], [`Actor ${actor}`]]],
];

/** Say whether what is shown is up to date; null: it is. */
function linked(error) {
  fill(link, error ? h("span", {class: "lost"}, `Reconnecting: ${error.message}`) : readOnly() && hasSession() ? "read only" : "");
}

async function show() {
  leave.abort();
  leave = new AbortController();
  const {signal} = leave;
  const place = location.hash.slice(1) || "/";
  launch.hidden = !hasSession() || readOnly() || place === "/launch";
  linked(null);
  if (!hasSession()) return logInView();
  const [pattern, view, crumbs] = VIEWS.find(([one]) => one.test(place)) ?? [];
  if (!view) return location.replace("#/");
  const given = place.match(pattern).slice(1);
  const steps = crumbs(...given);
  fill(path, [["Jobs", "#/"], ...steps].map(([name, to]) => to && steps.length ? h("a", {href: to}, name) : h("span", {}, name)));
  document.title = [...steps.map(([name]) => name).reverse(), "mu"].join(" · ");
  fill(main);
  main.className = view.name;
  try {
    await view({main, signal, linked, given});
  } catch (error) {
    if (!signal.aborted && hasSession()) complain(main, error);
  }
}

function logInView(error = null) {
  fill(path);
  main.className = "logIn";
  const code = h("input", {name: "code", autocomplete: "off", spellcheck: false, required: true, "aria-label": "Link or code", placeholder: "link or code"});
  fill(main, h("section", {class: "card narrow"},
    h("h1", {}, "Log in"),
    h("p", {}, "On the daemon's machine, run"),
    h("pre", {}, "mu open"),
    h("p", {}, "and follow the link that it prints, or paste it here. It works once, within a minute."),
    h("form", {class: "row", onsubmit: (event) => { event.preventDefault(); enter(code.value.split("code=").pop().split("&")[0].trim(), "/"); }},
      code, h("button", {class: "primary"}, "Log in"))));
  complain(main, error);
}

async function enter(code, to) {
  history.replaceState(null, "", `#${to}`); // a code in the history would be of no use to anybody
  try {
    await logIn(code);
  } catch (error) {
    if (!hasSession()) return logInView(error);
  }
  show();
}

function start() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.has("code")) enter(given.get("code"), given.get("to") ?? "/");
  else show();
}

// ---------------------------------------------------------------- keys

const KEYS = [["/", "filter the list"], ["n", "new job"], ["u", "one level up"], ["[ and ]", "previous and next page"], ["?", "these keys"], ["arrows, + and −", "move and zoom the timeline, once it has the focus"]];

function keysDialog() {
  const dialog = h("dialog", {class: "ask", onclose: () => dialog.remove()},
    h("form", {method: "dialog"}, h("h2", {}, "Keys"),
      h("dl", {class: "facts"}, KEYS.map(([key, does]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, does)))),
      h("div", {class: "actions"}, h("button", {autofocus: true}, "Close"))));
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog, canvas")) return;
  const click = (selector) => main.querySelector(selector)?.click();
  const acts = {
    "/": () => main.querySelector("input[type=search]")?.focus(),
    n: () => launch.hidden || launch.click(),
    u: () => [...path.querySelectorAll("a")].pop()?.click(),
    "[": () => click(".previous"),
    "]": () => click(".next"),
    "?": keysDialog,
  };
  if (event.key in acts) {
    event.preventDefault();
    acts[event.key]();
  }
});

onLoggedOut(() => { leave.abort(); launch.hidden = true; logInView(new Error("The session has ended.")); });
addEventListener("hashchange", start);
start();
