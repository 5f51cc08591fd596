// What the page's api.js gives its views, from the data in a report: nothing is asked of any host.

const packed = Uint8Array.from(atob(document.getElementById("data").textContent), (one) => one.charCodeAt(0));
const {job, at, actors, timeline, failures} = JSON.parse(await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text());

const COLUMNS = ["actor", "state", "does", "label", "attempt", "began", "since", "waits_for", "total", "done", "failed", "error", "retried"];
const last = new Map(timeline.actors.map(({actor, states}) => [actor, states.at(-1)?.[1] ?? "idle"]));

export const reported = job.id;
export const readOnly = () => true;
export const sleep = () => Promise.resolve();

/** Tell all that is known of the job. */
export async function follow(id, take) {
  const rows = actors.map((one) => {
    const known = {...one, ...one.inputs, does: last.get(one.actor), retried: one.failures.length > 0 && one.state !== "failed"};
    return COLUMNS.map((name) => known[name] ?? null);
  });
  take("snapshot", {at, job: {...job, finished: job.finished ?? at, awaited: null}, columns: COLUMNS, actors: rows});
}

/** Return a part of the timeline or of the actors. */
export async function get(path, {limit, after = -1} = {}) {
  const part = (all) => all.filter(({actor}) => actor > after).slice(0, limit);
  if (path.endsWith("/failures")) return failures;
  if (path.endsWith("/inputs")) return []; // their names are not in a report
  return path.endsWith("/timeline") ? {...timeline, actors: part(timeline.actors)} : part(actors);
}

export async function log() {
  throw Object.assign(new Error("Reports have no output of commands; mu log prints it."), {status: 404});
}
