// An actor: what it does, its attempts, and what its commands printed.

import {follow, get, log, sleep} from "./api.js";
import {fill, h, say} from "./dom.js";
import {ENDED, JobModel} from "./model.js";
import {badge, facts, usage} from "./parts.js";
import {span, plain, when} from "./text.js";
import {Timeline} from "./timeline.js";

const PAUSE_MS = 700;
const MOST_TEXT = 1_000_000;

export async function actorView({main, signal, linked, given: [id, text]}) {
  const number = Number(text);
  const model = new JobModel();
  const timeline = new Timeline(model, () => {}, 50);
  timeline.actors = [number];
  const parts = {head: h("div", {class: "head"}), facts: h("div"), failures: h("section", {class: "card", hidden: true}), result: h("details", {class: "card", hidden: true})};
  const printed = h("pre", {class: "log", tabIndex: 0, "aria-label": "What its commands printed"});
  const note = h("span", {class: "dim"});
  fill(main, parts.head, h("section", {class: "card"}, parts.facts), h("section", {class: "card"}, h("h2", {}, "Course"), timeline.element), parts.failures,
    h("section", {class: "card"}, h("div", {class: "head"}, h("h2", {}, "Output"), note), printed), parts.result);
  let seen = null, whole = null;

  function draw() {
    const actor = model.actors.get(number);
    if (!actor) {
      fill(parts.head, h("h1", {}, `Actor ${number}`), h("span", {class: "dim"}, "This job has no such actor yet."));
      return;
    }
    fill(parts.head, h("h1", {}, `Actor ${number} `, h("small", {}, "of job ", id)), badge(actor.state));
    fill(parts.facts,
      actor.error && h("p", {class: "error"}, whole?.error ?? actor.error),
      facts([
        ["State", actor.label], ["Does", actor.does], ["Waits for", model.waits(actor)],
        [ENDED.has(actor.state) ? "Ended" : "Since", when(actor.since)],
        ["Took", span(model.took(actor) ?? NaN)], ["Attempt", actor.attempt || ""],
        ["Inputs", `${actor.done + actor.failed} of ${actor.total}${actor.failed ? `, ${actor.failed} failed` : ""}`],
        ...usage(whole?.used),
        ["Last reply", whole?.last_reply && h("code", {class: "long"}, whole.last_reply)],
      ]));
    timeline.draw();
  }

  /** Show what the events leave out: failed attempts, the last reply and the result. */
  async function more(actor) {
    const stamp = `${actor.state} ${actor.attempt} ${actor.since}`;
    if (stamp === seen) return;
    seen = stamp;
    const [told] = await get(`jobs/${id}/workers`, {limit: 1, ...(number ? {after: number - 1} : {})}, signal);
    if (told?.actor !== number) return;
    whole = told;
    const failed = told.failures ?? [];
    parts.failures.hidden = !failed.length;
    fill(parts.failures, h("h2", {}, "Failed attempts"), failed.map((one) => h("div", {class: "failure"},
      h("span", {class: "number"}, one.attempt ? `Attempt ${one.attempt}` : "No worker"),
      h("div", {}, h("pre", {}, one.error), h("p", {class: "dim"}, [when(one.at), one.label, one.last_reply && `after ${one.last_reply}`].filter(Boolean).join(" · "))))));
    parts.result.hidden = told.result === null;
    fill(parts.result, h("summary", {}, "Result"), h("pre", {}, JSON.stringify(told.result, null, 2).slice(0, 100000)));
    draw();
  }

  async function readLog() {
    let at = 0, raw = "";
    for (;;) {
      const ended = ENDED.has(model.actors.get(number)?.state) || model.job?.finished;
      try {
        const part = await log(id, number, at, signal);
        if (part.begin > at) say(note, `${part.begin - at} earlier bytes were dropped`);
        at = part.end;
        if (part.text) {
          const follows = printed.scrollHeight - printed.scrollTop - printed.clientHeight < 40;
          raw = (raw + part.text).slice(-MOST_TEXT);
          printed.textContent = plain(raw); // as text: nothing that a worker prints is markup
          if (follows) printed.scrollTop = printed.scrollHeight;
        }
      } catch (error) {
        if (signal.aborted || error.status === 401) return;
        if (error.status === 404 && ended) {
          say(note, error.message);
          return;
        }
      }
      if (ended) {
        if (!printed.textContent) say(note, "Its commands printed nothing.");
        return;
      }
      await sleep(PAUSE_MS, signal);
      if (signal.aborted) return;
    }
  }

  let reading = null, dirty = false;
  const later = () => {
    if (dirty) return;
    dirty = true;
    requestAnimationFrame(() => { dirty = false; signal.aborted || draw(); });
  };
  addEventListener("resize", later, {signal});
  const clock = setInterval(() => model.job && !model.job.finished && later(), 1000);
  signal.addEventListener("abort", () => clearInterval(clock), {once: true});
  const course = async () => {
    try {
      const page = {limit: 1, ...(number ? {after: number - 1} : {})};
      model.rewrite(await get(`jobs/${id}/timeline`, page, signal));
      later();
    } catch { /* without a journal there is none */ }
  };
  let courses = 0;
  await follow(id, (what, told) => {
    model.take(what, told);
    later();
    const actor = model.actors.get(number);
    if (actor) more(actor).catch(linked);
    if (!courses++ || model.job.finished) course();
    reading ??= readLog();
  }, linked, signal);
  await reading;
}
