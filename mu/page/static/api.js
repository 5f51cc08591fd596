// The control port: requests with the session of this tab, and the events of a job.

const KEY = "mu-session";

/** A response other than 2xx, or none: `status` 0. */
export class Refused extends Error {
  constructor(message, status, field = null) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

let session = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
let loggedOut = () => {};

export const hasSession = () => session !== null;
export const readOnly = () => session?.read_only ?? true;

/** Call this when the session has ended. */
export function onLoggedOut(call) {
  loggedOut = call;
}

/** Exchange the one-time code of `mu open` for a session. Throws Refused. */
export async function logIn(code) {
  const answer = await request("sessions", {method: "POST", body: JSON.stringify({code})}, {});
  session = await answer.json();
  sessionStorage.setItem(KEY, JSON.stringify(session));
}

export function logOut() {
  session = null;
  sessionStorage.removeItem(KEY);
}

/** Return the response to a request. Throws Refused. */
async function request(path, options, headers) {
  let answer;
  try {
    answer = await fetch(path, {...options, headers, cache: "no-store"});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("the daemon does not answer", 0);
  }
  if (answer.ok) return answer;
  let told = {};
  try {
    told = (await answer.json()).error ?? {};
  } catch { /* not one of ours, such as a proxy's */ }
  throw new Refused(told.message ?? `the daemon answered with status ${answer.status}`, answer.status, told.field);
}

/** The same with the session, which ends at a 401. */
async function ask(path, options = {}, headers = {}) {
  try {
    return await request(path, options, {Authorization: `Bearer ${session?.session}`, ...headers});
  } catch (error) {
    if (error.status === 401) {
      logOut();
      loggedOut();
    }
    throw error;
  }
}

/** Return the JSON at a path, with the arguments that are given. */
export async function get(path, args = {}, signal = undefined) {
  const given = new URLSearchParams(args).toString();
  return (await ask(given ? `${path}?${given}` : path, {signal})).json();
}

export async function post(path, body, headers = {}) {
  return (await ask(path, {method: "POST", body: JSON.stringify(body)}, {"Content-Type": "application/json", ...headers})).json();
}

export async function remove(path) {
  return (await ask(path, {method: "DELETE"})).json();
}

/** Return what an actor printed from byte `after` on: `{text, begin, end}`. */
export async function log(job, actor, after, signal) {
  const answer = await ask(`jobs/${job}/log?${new URLSearchParams({actor, after, names: 1})}`, {signal});
  return {
    text: await answer.text(),
    begin: Number(answer.headers.get("Mu-Log-Begin") ?? after),
    end: Number(answer.headers.get("Mu-Log-End") ?? after),
  };
}

/** Follow the events of a job until it has ended or `signal` aborts; reconnect as often as needed.
 *
 * `take(kind, told)` gets each event, `linked(error)` null or why there is no connection.
 */
export async function follow(job, take, linked, signal) {
  let last = "", pause = 500;
  while (!signal.aborted) {
    try {
      const answer = await ask(`jobs/${job}/events`, {signal}, last ? {"Last-Event-ID": last} : {});
      linked(null);
      pause = 500;
      for await (const event of events(answer.body)) {
        last = event.id || last;
        if (event.kind === "end") return;
        if (event.kind) take(event.kind, JSON.parse(event.data));
      }
      throw new Refused("the connection was lost", 0);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Refused) || (error.status && error.status < 500)) throw error;
      linked(error);
    }
    await sleep(pause, signal);
    pause = Math.min(pause * 2, 8000);
  }
}

/** Resolve after some milliseconds, or at once when `signal` aborts. */
export function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, {once: true});
  });
}

/** Yield the server-sent events of a response's body. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let pieces = [];
  for (;;) {
    const {value, done} = await reader.read().catch((error) => { throw new Refused(error.message, 0); });
    if (done) return;
    let begin = 0, end;
    // An event may come in many pieces, and its end may be cut in two.
    if (value[0] === "\n" && pieces.at(-1)?.endsWith("\n")) {
      yield parsed(pieces.join(""));
      pieces = [];
      begin = 1;
    }
    while ((end = value.indexOf("\n\n", begin)) >= 0) {
      pieces.push(value.slice(begin, end));
      yield parsed(pieces.join(""));
      pieces = [];
      begin = end + 2;
    }
    if (begin < value.length) pieces.push(value.slice(begin));
  }
}

function parsed(text) {
  const event = {id: "", kind: "", data: "null"};
  for (const line of text.split("\n")) {
    if (line.startsWith("id: ")) event.id = line.slice(4);
    else if (line.startsWith("event: ")) event.kind = line.slice(7);
    else if (line.startsWith("data: ")) event.data = line.slice(6);
  }
  return event;
}
