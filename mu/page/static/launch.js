// The form that orders a job, made from what pipelines say of their parameters.

import {get, post} from "./api.js";
import {complain, fill, h, say} from "./dom.js";
import {counted} from "./text.js";

// What every order may have: name, type, help, and the placeholder for mu.conf's default.
const COMMON = [
  ["workers", "int", "number of workers", "1", 1],
  ["name", "str", "a name to find the job by", ""],
  ["engine", "str", "local, lambda, or that of a plugin", "as in mu.conf"],
  ["function", "str", "the function to invoke", "the pipeline's name"],
  ["max_cost_usd", "float", "cost limit in US dollars", "none", 0],
];
const MORE = [
  ["regions", "list", "AWS regions to use in turn", "as in mu.conf"],
  ["copies", "int", "copies of the function to use in turn", "0", 0],
  ["retries", "int", "how many times to retry a failed actor", "as in mu.conf", 0],
  ["spares", "int", "spare workers, which take over from failed ones", "as in mu.conf", 0],
  ["tolerate", "int", "how many actors may fail", "0", 0],
  ["worker_timeout_s", "float", "time limit of one attempt, in seconds", "as in mu.conf", 0],
  ["deadline_s", "float", "time limit of the job, in seconds", "as in mu.conf", 0],
];

/** One field of the form; `read()` returns its value, undefined if it is left empty. Throws an Error. */
class Field {
  constructor(parameter, path, changed) {
    const {name, type, help, required, minimum, maximum} = parameter;
    this.name = name;
    this.path = path;
    this.type = type;
    const common = {id: `field-${path}`, name: path, oninput: changed, autocomplete: "off", spellcheck: false, "aria-describedby": `help-${path}`};
    const hint = parameter.hint ?? (parameter.default === undefined ? "" : typeof parameter.default === "string" ? parameter.default : JSON.stringify(parameter.default));
    if (type === "bool") this.input = h("input", {type: "checkbox", checked: parameter.default === true, ...common});
    else if (type === "list" || type === "dict") this.input = h("textarea", {rows: 3, placeholder: hint, ...common});
    else if (type === "int" || type === "float") this.input = h("input", {type: "number", step: type === "int" ? 1 : "any", min: minimum, max: maximum, placeholder: hint, ...common});
    else this.input = h("input", {type: "text", placeholder: hint, ...common});
    this.input.required = Boolean(required) && type !== "bool" && type !== "str";
    this.plain = parameter.default === true;
    this.error = h("span", {class: "error", role: "alert"});
    const bounds = minimum !== undefined && maximum !== undefined ? `${minimum} to ${maximum}` : minimum !== undefined ? `at least ${minimum}` : maximum !== undefined ? `at most ${maximum}` : "";
    const form = {list: "one per line, or a JSON list", dict: "a JSON object"}[type] ?? "";
    this.element = h("div", {class: `field ${type}`},
      h("label", {htmlFor: `field-${path}`}, name, required && h("span", {class: "dim"}, " (required)")),
      this.input, this.error,
      h("span", {class: "help", id: `help-${path}`}, [help, bounds, form].filter(Boolean).join("; ")));
    this.required = required;
  }

  read() {
    say(this.error, "");
    if (this.type === "bool") return this.input.checked === this.plain ? undefined : this.input.checked;
    const text = this.input.value;
    if (this.input.validity.badInput) throw new Error("must be a number");
    if (text.trim() === "") {
      if (this.required && this.type !== "str") throw new Error("is required");
      return this.required ? text : undefined;
    }
    if (this.type === "str") return text;
    if (this.type === "int" || this.type === "float") {
      if (!this.input.checkValidity()) throw new Error(this.input.validationMessage);
      return Number(text);
    }
    if (this.type === "list" && !text.trim().startsWith("[")) return text.split("\n").map((line) => line.trim()).filter(Boolean);
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Error(`must be ${this.type === "list" ? "a JSON list" : "a JSON object"}: ${error.message}`);
    }
  }
}

/** Return a text as one word of a POSIX shell. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export async function launchView({main, signal}) {
  const pipelines = (await get("pipelines", {}, signal)).filter((one) => !one.error);
  const known = new URLSearchParams(location.hash.split("?")[1] ?? "");
  const choice = h("select", {id: "field-pipeline", onchange: () => choose()}, pipelines.map(({name}) => h("option", {value: name}, name)));
  if (known.has("pipeline")) choice.value = known.get("pipeline");
  const about = h("p", {class: "dim"});
  const own = h("div", {class: "fields"});
  const curl = h("pre", {class: "curl"});
  const outcome = h("p", {role: "status"});
  const field = ([name, type, help, hint, minimum]) => new Field({name, type, help, hint, minimum}, name, changed);
  const common = COMMON.map(field), more = MORE.map(field);
  let params = [];
  const submit = h("button", {class: "primary"}, "Launch");
  const check = h("button", {type: "button", onclick: () => send("plan")}, "Check");
  const copy = h("button", {type: "button", onclick: async () => { await navigator.clipboard?.writeText(curl.textContent); say(copy, "Copied"); }}, "Copy");
  fill(main, h("h1", {}, "New job"), h("form", {class: "launch", noValidate: true, onsubmit: (event) => { event.preventDefault(); send("jobs"); }},
    h("section", {class: "card"},
      h("div", {class: "field"}, h("label", {htmlFor: "field-pipeline"}, "pipeline"), choice), about,
      h("div", {class: "fields"}, common.map((one) => one.element)),
      h("details", {}, h("summary", {}, "Retries, limits, regions"), h("div", {class: "fields"}, more.map((one) => one.element)))),
    h("section", {class: "card"}, h("h2", {}, "Parameters of the pipeline"), own),
    h("section", {class: "card"},
      h("div", {class: "actions start"}, submit, check, outcome),
      h("div", {class: "head"}, h("h2", {}, "The same with curl"), copy), curl)));

  /** Return the order in the form; a field that is wrong says so. Throws an Error. */
  function order() {
    const told = {pipeline: choice.value};
    let wrong = null;
    const read = (one, into) => {
      try {
        const value = one.read();
        if (value !== undefined) into[one.name] = value;
      } catch (error) {
        say(one.error, error.message);
        wrong ??= one;
      }
    };
    for (const one of [...common, ...more]) read(one, told);
    const given = {};
    for (const one of params) read(one, given);
    if (Object.keys(given).length) told.params = given;
    if (wrong) throw Object.assign(new Error(`${wrong.path} ${wrong.error.textContent}`), {input: wrong.input});
    return told;
  }

  function changed() {
    say(copy, "Copy");
    say(outcome, "");
    let told;
    try {
      told = order();
    } catch {
      told = {pipeline: choice.value, "…": "…"};
    }
    const url = new URL("jobs", document.baseURI);
    say(curl, `curl -H "Authorization: Bearer $(cat ~/.mu/token)" ${url} \\\n  -d ${quoted(JSON.stringify(told, null, 1).replace(/\n\s*/g, " "))}`);
  }

  function choose() {
    const pipeline = pipelines.find(({name}) => name === choice.value);
    say(about, pipeline.description);
    params = pipeline.parameters.map((one) => new Field(one, `params.${one.name}`, changed));
    fill(own, params.length ? params.map((one) => one.element) : h("p", {class: "dim"}, "It has none."));
    changed();
    for (const one of params) say(one.error, ""); // nothing was entered yet
  }

  let key = null;
  async function send(path) {
    complain(main, null);
    let told;
    try {
      told = order();
    } catch (error) {
      error.input.focus();
      return;
    }
    const body = JSON.stringify(told);
    if (key?.body !== body) key = {body, id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`};
    submit.disabled = check.disabled = true;
    try {
      if (path === "plan") {
        const plan = await post("plan", told);
        say(outcome, `It would start ${counted(plan.actors, "actor")}${plan.size ? ` of ${plan.size.memory_mb} MB` : ""}.`);
      } else {
        // A click that is repeated after a lost connection must not start a second job.
        const job = await post("jobs", told, {"Idempotency-Key": key.id});
        location.hash = `#/jobs/${job.id}`;
      }
    } catch (error) {
      const wrong = [...common, ...more, ...params].find((one) => one.path === error.field);
      if (wrong) {
        say(wrong.error, error.message);
        wrong.element.closest("details")?.setAttribute("open", "");
        wrong.input.focus();
      } else complain(main, error);
    } finally {
      submit.disabled = check.disabled = false;
    }
  }

  choose();
}
