// A job: how far it is, what its actors do, what failed, and its actors.

import {follow, get, post, readOnly, remove, sleep} from "./api.js";
import {drawChart, LEGEND} from "./chart.js";
import {complain, confirmed, fill, h, say} from "./dom.js";
import {ENDED, JobModel} from "./model.js";
import {badge, bar, counts, facts, fillBar, usage} from "./parts.js";
import {count, counted, dollars, kind, rate, span, STATES, when} from "./text.js";
import {Timeline} from "./timeline.js";

const PAGE = 50;
const MOST_GROUPS = 8;
const MOST_SLOW = 5;
const MOST_NAMED = 12;
const REFRESH_S = 10;
const FAILURES_S = 5;
const TYPING_MS = 300;
const IDLE = 50; // reading the timeline takes at most a 50th of the time

export async function jobView({main, signal, linked, given: [id]}) {
  const model = new JobModel();
  const table = new ActorTable(model, id);
  const timeline = new Timeline(model, (actor) => { location.hash = `#/jobs/${id}/actors/${actor}`; });
  const parts = {
    title: h("h1", {}), state: h("span"), acts: h("div", {class: "actions"}), bar: null,
    progress: h("p", {class: "figures"}), error: h("p", {class: "error", hidden: true}),
    facts: h("div"), groups: h("div"), failures: h("section", {class: "card", hidden: true}),
    chart: h("canvas", {class: "chart", role: "img"}), result: h("details", {class: "card", hidden: true}),
  };
  let dirty = false, seen = -1, inputs = [], known = 0, asking = false;

  function begin() {
    parts.bar = bar(model.job);
    const legend = h("div", {class: "legend"}, LEGEND.map(([name]) => h("span", {}, h("i", {class: name}), name)));
    fill(main,
      h("div", {class: "head"}, parts.title, parts.state, parts.acts),
      h("section", {class: "card"}, parts.bar, parts.progress, parts.error, parts.facts),
      parts.failures,
      h("div", {class: "two"},
        h("section", {class: "card"}, h("h2", {}, "Actors over time"), parts.chart, legend),
        h("section", {class: "card"}, parts.groups)),
      h("section", {class: "card"}, h("h2", {}, "Timeline"), timeline.element),
      parts.result,
      table.element);
    table.changed = () => { timeline.actors = table.filtered ? table.shown.map((actor) => actor.actor).sort((a, b) => a - b) : null; timeline.later(); };
  }

  function draw() {
    dirty = false;
    if (!parts.bar) begin();
    const {job} = model;
    drawHead(parts, model, () => act(cancel), () => act(rerun));
    drawFacts(parts, model);
    drawGroups(parts.groups, model);
    drawFailures(parts.failures, model, table, inputs);
    if (job.inputs.failed !== known && !asking) readFailures();
    if (job.result !== null) {
      parts.result.hidden = false;
      fill(parts.result, h("summary", {}, "Result"), h("pre", {}, JSON.stringify(job.result, null, 2).slice(0, 100000)));
    }
    table.draw();
    if (seen !== model.version || !job.finished) {
      seen = model.version;
      drawChart(parts.chart, model);
      timeline.draw();
    }
  }

  // Why inputs failed of actors that are done; those of failed actors are in the events.
  async function readFailures() {
    asking = true;
    known = model.job.inputs.failed;
    try {
      inputs = await get(`jobs/${id}/failures`, {}, signal);
      later();
    } catch { /* a pipeline that cannot tell, or an older daemon */ }
    if (!model.job.finished) await sleep(FAILURES_S * 1000, signal);
    asking = false;
    if (!signal.aborted) later();
  }

  const later = () => {
    if (dirty) return;
    dirty = true;
    requestAnimationFrame(() => signal.aborted || draw());
  };

  async function act(what) {
    complain(main, null);
    try {
      await what();
    } catch (error) {
      complain(main, error);
    }
  }

  async function cancel() {
    const {waiting, running} = model.job.counts;
    if (await confirmed(`Cancel job ${id}?`, `${counted(running, "running actor")} will be told to quit, and ${counted(waiting, "waiting one")} will not start. What has ended stays.`, "Cancel the job", true)) {
      await remove(`jobs/${id}`);
    }
  }

  async function rerun() {
    const {failed, cancelled} = model.job.counts;
    if (await confirmed("Run what failed again?", `A new job runs the inputs of ${counted(failed + cancelled, "actor")} again, with the same order. Its result will be that of both jobs.`, "Start the job")) {
      const job = await post("jobs", {rerun: id}, {"Idempotency-Key": crypto.randomUUID?.() ?? `${id}-${Date.now()}`});
      location.hash = `#/jobs/${job.id}`;
    }
  }

  // The course of all actors up to now; what they do from now on is in the events.
  async function refresh() {
    while (!signal.aborted) {
      const begun = performance.now();
      const ended = Boolean(model.job?.finished);
      try {
        model.rewrite(await get(`jobs/${id}/timeline`, {}, signal));
        later();
      } catch (error) {
        if (signal.aborted || error.status === 404) return; // without a journal there is none
      }
      if (ended) return;
      const wait = Math.max(REFRESH_S * 1000, IDLE * (performance.now() - begun));
      for (let waited = 0; waited < wait && !model.job.finished; waited += 500) await sleep(500, signal);
    }
  }

  addEventListener("resize", later, {signal});
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later, {signal});
  document.addEventListener("visibilitychange", later, {signal});
  let refreshing = null;
  const clock = setInterval(() => { if (model.job && !model.job.finished && !document.hidden) later(); }, 1000);
  signal.addEventListener("abort", () => clearInterval(clock), {once: true});
  await follow(id, (what, told) => {
    model.take(what, told);
    if (!document.hidden) later();
    refreshing ??= refresh();
  }, linked, signal);
}

function drawHead(parts, model, cancel, rerun) {
  const {job} = model;
  fill(parts.title, job.name || job.id, " ", h("small", {}, job.name ? `${job.pipeline} · ${job.id}` : job.pipeline));
  fill(parts.state, badge(job.state));
  const failed = job.counts.failed + job.counts.cancelled;
  const wanted = readOnly() ? "" : !job.finished ? "cancel" : job.state !== "done" && failed ? "rerun" : "";
  if (parts.acts.dataset.wanted !== wanted) { // else the button would lose the focus
    parts.acts.dataset.wanted = wanted;
    fill(parts.acts, wanted === "cancel" && h("button", {class: "danger", onclick: cancel}, "Cancel"), wanted === "rerun" && h("button", {class: "primary", onclick: rerun}, "Rerun failed"));
  }
}

const EMPTY = new Set(['""', "null", "[]", "{}"]);  // of parameters, which are not shown

function drawFacts(parts, model) {
  const {job} = model;
  const {total, done, failed} = job.inputs;
  fillBar(parts.bar, job);
  const speed = model.speed(), left = total - done - failed;
  const figures = [`${count(done + failed)} of ${counted(total, "input")}`];
  if (failed) figures.push(`${count(failed)} failed`);
  if (!job.finished && speed) figures.push(rate(speed), ...(left ? [`about ${span(left / speed)} left`] : []));
  if (job.finished && done + failed) figures.push(`${rate((done + failed) / Math.max(0.001, job.finished - (job.first_hello ?? job.created)))} on average`);
  say(parts.progress, figures.join(" · "));
  parts.error.hidden = !job.error;
  say(parts.error, job.error ?? "");
  const most = job.max_cost_usd ? ` of ${dollars(job.max_cost_usd)}` : "";
  const atMost = job.cost_usd_at_most > job.cost_usd ? `, at most ${dollars(job.cost_usd_at_most)}` : "";
  const launches = Object.entries(job.launches).filter(([, one]) => one).map(([name, one]) => `${count(one)} ${name}`).join(", ");
  const given = Object.entries(job.params).filter(([, value]) => !EMPTY.has(JSON.stringify(value)))
    .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`).join("  ").slice(0, 1000);
  fill(parts.facts, facts([
    ["Actors", counts(job)],
    [job.finished ? "Took" : "Running for", span(model.elapsed())],
    ["Cost", job.cost_usd === null ? "" : `${dollars(job.cost_usd)}${most}${atMost}`],
    ["Launches", launches],
    ...usage(job.used),
    ["Ordered", when(job.created)],
    ["First worker", job.first_hello && `after ${span(job.first_hello - job.created)}`],
    ["Engine", [job.engine, job.engine === "local" ? null : job.regions.join(", ")].filter(Boolean).join(", ")],
    ["Function", job.functions.length > 1 ? `${job.function}, ${job.functions.length} copies` : job.function],
    ["Rerun of", job.rerun && h("a", {href: `#/jobs/${job.rerun}`}, job.rerun)],
    ["Parameters", given && h("code", {class: "long"}, given)],
  ]));
}

function drawGroups(element, model) {
  const groups = new Map();
  for (const actor of model.actors.values()) {
    if (ENDED.has(actor.state)) continue;
    const waits = model.waits(actor);
    const key = `${actor.state}\n${actor.label}\n${waits}`;
    const group = groups.get(key) ?? {actors: 0, since: Infinity, actor, waits};
    group.actors += 1;
    group.since = Math.min(group.since, actor.since);
    groups.set(key, group);
  }
  if (!groups.size) {
    drawSlowest(element, model);
    return;
  }
  const most = [...groups.values()].sort((one, other) => other.actors - one.actors);
  fill(element, h("h2", {}, "What they do"), h("table", {class: "groups"}, h("tbody", {}, most.slice(0, MOST_GROUPS).map(({actors, since, actor, waits}) => h("tr", {},
    h("td", {class: "number"}, count(actors)),
    h("td", {}, actor.state === "running" ? h("b", {}, actor.label || "begins") : badge("waiting"), " ", h("span", {class: "dim"}, waits ? `waits for ${waits}` : "")),
    h("td", {class: "number dim"}, span(model.now() - since)))))),
  most.length > MOST_GROUPS && h("p", {class: "dim"}, `and ${counted(most.length - MOST_GROUPS, "smaller group")}`));
}

function drawSlowest(element, model) {
  const slowest = model.numbers.map((number) => model.actors.get(number)).filter((actor) => model.took(actor) !== null);
  slowest.sort((one, other) => model.took(other) - model.took(one));
  const median = slowest.length ? model.took(slowest[Math.floor(slowest.length / 2)]) : 0;
  fill(element, h("h2", {}, "Slowest actors"), slowest.length
    ? [h("table", {class: "groups"}, h("tbody", {}, slowest.slice(0, MOST_SLOW).map((actor) => h("tr", {},
      h("td", {class: "number"}, h("a", {href: `#/jobs/${model.job.id}/actors/${actor.actor}`}, String(actor.actor))),
      h("td", {}, badge(actor.state)), h("td", {class: "number"}, span(model.took(actor))))))),
    h("p", {class: "dim"}, `The median is ${span(median)}.`)]
    : h("p", {class: "empty"}, model.job.finished ? "No actor ran." : "There are no actors yet: the job is being planned."));
}

function drawFailures(element, model, table, inputs) {
  const groups = new Map();
  for (const number of model.numbers) {
    const actor = model.actors.get(number);
    if (actor.state !== "failed" || !actor.error) continue;
    const key = kind(actor.error);
    groups.has(key) ? groups.get(key).push(actor) : groups.set(key, [actor]);
  }
  element.hidden = !groups.size && !inputs.length;
  const text = [...groups].map(([key, actors]) => `${actors.length} ${key}`).join("\n") + JSON.stringify(inputs);
  if (element.dataset.text === text) return;
  element.dataset.text = text;
  const most = [...groups].sort(([, one], [, other]) => other.length - one.length);
  fill(element, h("h2", {}, "What failed, by reason"), most.slice(0, MOST_GROUPS).map(([key, actors]) => h("div", {class: "failure"},
    h("button", {class: "number", title: "Show these actors in the table", onclick: () => table.only(key)}, count(actors.length)),
    h("div", {}, h("pre", {}, actors[0].error),
      h("p", {class: "dim"}, actors.slice(0, MOST_NAMED).map(({actor}, place) => [place ? ", " : "Actor ", h("a", {href: `#/jobs/${model.job.id}/actors/${actor}`}, String(actor))]), actors.length > MOST_NAMED && ` and ${count(actors.length - MOST_NAMED)} more`)))),
  most.length > MOST_GROUPS && h("p", {class: "dim"}, `and ${counted(most.length - MOST_GROUPS, "other reason")}`),
  inputs.slice(0, MOST_GROUPS).map((one) => h("div", {class: "failure"},
    h("span", {class: "number"}, count(one.inputs)),
    h("div", {}, h("pre", {}, one.reason),
      h("p", {class: "dim"}, one.inputs === 1 ? "Input " : "Inputs ", one.names.join(", "), one.inputs > one.names.length && ` and ${count(one.inputs - one.names.length)} more`, " of ",
        one.actors.map((actor, place) => [place ? ", " : one.actors.length > 1 ? "actors " : "actor ", h("a", {href: `#/jobs/${model.job.id}/actors/${actor}`}, String(actor))]))))),
  inputs.length > MOST_GROUPS && h("p", {class: "dim"}, `and ${counted(inputs.length - MOST_GROUPS, "other reason")} of inputs`));
}

/** The actors of a job, filtered, sorted and paged. Its rows stay the same elements, so that the focus stays. */
class ActorTable {
  constructor(model, job) {
    this.model = model;
    this.job = job;
    this.page = 0;
    this.reason = null;
    this.shown = [];
    this.changed = () => {};
    this.having = new Set(); // the actors with an input that has the text in its name
    const again = () => { this.page = 0; this.draw(); };
    this.search = h("input", {type: "search", placeholder: "Filter by text or input", "aria-label": "Filter actors by text", oninput: () => { this.findInputs(again); again(); }});
    this.state = h("select", {"aria-label": "Filter actors by state", onchange: again}, [h("option", {value: ""}, "all states"), ...STATES.map((name) => h("option", {value: name}, name))]);
    this.order = h("select", {"aria-label": "Order of the actors", onchange: again}, [["number", "by number"], ["slow", "slowest first"], ["late", "latest change first"]].map(([value, name]) => h("option", {value}, name)));
    this.chip = h("button", {class: "chip", hidden: true, title: "Show all again", onclick: () => this.only(null)});
    this.turn = h("span", {class: "dim"});
    this.previous = h("button", {class: "previous", onclick: () => { this.page -= 1; this.draw(); }}, "‹ Previous");
    this.next = h("button", {class: "next", onclick: () => { this.page += 1; this.draw(); }}, "Next ›");
    this.body = h("tbody");
    this.rows = [];
    this.element = h("section", {class: "card"},
      h("div", {class: "head"}, h("h2", {}, "Actors"), this.search, this.state, this.order, this.chip),
      h("div", {class: "scroll"}, h("table", {class: "actors"},
        h("thead", {}, h("tr", {}, ["Actor", "State", "Does", "Waits for, or failed of", "Inputs", "Attempt", "Took"].map((name) => h("th", {}, name)))), this.body)),
      h("div", {class: "pager"}, this.previous, this.turn, this.next));
  }

  /** Show only the actors that failed of this kind of error; null: all. */
  only(reason) {
    this.reason = reason;
    this.state.value = reason === null ? "" : "failed";
    this.page = 0;
    this.draw();
    if (reason !== null) this.element.scrollIntoView({block: "start"});
  }

  /** Find the actors with such inputs, once nothing more is typed. */
  findInputs(found) {
    clearTimeout(this.typing);
    this.having = new Set();
    const part = this.search.value.trim();
    if (!part) return;
    this.typing = setTimeout(async () => {
      try {
        const actors = await get(`jobs/${this.job}/inputs`, {part});
        if (this.search.value.trim() !== part || !actors.length) return;
        this.having = new Set(actors);
        found();
      } catch { /* of a job of before the last restart they are not known */ }
    }, TYPING_MS);
  }

  get filtered() {
    return Boolean(this.search.value.trim() || this.state.value || this.reason !== null);
  }

  select() {
    const {model, reason} = this;
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const state = this.state.value;
    let found = model.numbers.map((number) => model.actors.get(number));
    if (state) found = found.filter((actor) => actor.state === state);
    if (reason !== null) found = found.filter((actor) => actor.error && kind(actor.error) === reason);
    if (words.length) found = found.filter((actor) => {
      const text = `${actor.actor} ${actor.state} ${actor.does ?? ""} ${actor.label} ${model.waits(actor) ?? ""} ${actor.error ?? ""}`.toLowerCase();
      return this.having.has(actor.actor) || words.every((word) => text.includes(word));
    });
    const order = this.order.value;
    if (order === "slow") found.sort((one, other) => (model.took(other) ?? -1) - (model.took(one) ?? -1));
    if (order === "late") found.sort((one, other) => other.since - one.since);
    return found;
  }

  draw() {
    const before = this.filtered ? this.shown.length : -1;
    this.shown = this.select();
    const pages = Math.max(1, Math.ceil(this.shown.length / PAGE));
    this.page = Math.min(Math.max(0, this.page), pages - 1);
    const first = this.page * PAGE;
    const visible = this.shown.slice(first, first + PAGE);
    while (this.rows.length < visible.length) this.rows.push(new ActorRow());
    visible.forEach((actor, place) => this.rows[place].show(actor, this.model, this.job));
    const elements = this.rows.slice(0, visible.length).map((row) => row.element);
    if (this.body.children.length !== elements.length) fill(this.body, elements);
    say(this.turn, visible.length ? `${count(first + 1)}–${count(first + visible.length)} of ${count(this.shown.length)}` : this.filtered ? "No actor matches." : "");
    this.previous.disabled = this.page === 0;
    this.next.disabled = this.page >= pages - 1;
    this.previous.hidden = this.next.hidden = pages === 1;
    this.chip.hidden = this.reason === null;
    say(this.chip, `one reason ×`);
    const filter = [this.search.value, this.state.value, this.reason].join("\n");
    if (filter !== this.filter || (this.filtered && before !== this.shown.length)) {
      this.filter = filter;
      this.changed();
    }
  }
}

class ActorRow {
  constructor() {
    this.link = h("a");
    this.badge = badge("waiting");
    [this.does, this.inputs, this.attempt, this.took] = ["", "number", "number", "number"].map((name) => h("td", {class: name}));
    this.text = h("div", {class: "clamp"});
    this.element = h("tr", {}, h("td", {class: "number"}, this.link), h("td", {}, this.badge), this.does, h("td", {}, this.text), this.inputs, this.attempt, this.took);
  }

  show(actor, model, job) {
    say(this.link, String(actor.actor));
    this.link.href = `#/jobs/${job}/actors/${actor.actor}`;
    say(this.badge, actor.state);
    this.badge.className = `badge ${actor.state}`;
    say(this.does, actor.state === "running" ? [actor.label, actor.does].filter(Boolean).join(": ") : "");
    say(this.text, actor.error ?? model.waits(actor) ?? "");
    this.text.classList.toggle("error", Boolean(actor.error));
    say(this.inputs, `${count(actor.done)} of ${count(actor.total)}`);
    say(this.attempt, actor.attempt ? String(actor.attempt) : "");
    say(this.took, span(model.took(actor) ?? NaN));
  }
}
