// A job as its events describe it, and the course of each of its actors.

export const ENDED = new Set(["done", "failed", "cancelled"]);

/** The states that come before a worker has connected. */
/** Return how an actor waits that has no worker: for other actors, or for a worker. */
const waiting = (actor) => actor.state === "waiting" && actor.attempt === 0 && actor.waits_for ? "blocked" : "waiting";

export const BEFORE = new Set(["blocked", "waiting", "launching", "starting"]);

const WINDOW_S = 60;
const ENOUGH_S = 5;

export class JobModel {
  constructor() {
    this.job = null;
    /** By number: what is known of an actor, with the names in `columns`. */
    this.actors = new Map();
    this.numbers = [];
    /** By number: [seconds, state, seconds, state, ...] since the order; a state is a place in `states`. */
    this.courses = new Map();
    this.states = [];
    this.offset = 0; // of the daemon's clock, in seconds
    this.columns = [];
    this.pace = [];
    this.version = 0; // of the courses
  }

  /** The time at the daemon, in seconds since the epoch; that of the job's end, once it has ended. */
  now() {
    return this.job?.finished ?? Date.now() / 1000 + this.offset;
  }

  /** Seconds from the order to the job's end, or until now. */
  elapsed() {
    return Math.max(0, (this.job.finished ?? this.now()) - this.job.created);
  }

  take(kind, told) {
    this.offset = told.at - Date.now() / 1000;
    if (kind === "snapshot") {
      this.columns = told.columns;
      this.job = told.job;
    } else Object.assign(this.job, told.job);
    let more = false;
    for (const row of told.actors) {
      const actor = Object.fromEntries(this.columns.map((name, place) => [name, row[place]]));
      more ||= !this.actors.has(actor.actor);
      this.actors.set(actor.actor, actor);
      this.follow(actor, told.at);
    }
    if (more) this.numbers = [...this.actors.keys()].sort((one, other) => one - other);
    this.version += 1;
    const {done, failed} = this.job.inputs;
    if (!this.pace.length || told.at > this.pace.at(-1)[0] + 1) this.pace.push([told.at, done + failed]);
    while (told.at - this.pace[0][0] > WINDOW_S) this.pace.shift();
  }

  state(name) {
    const place = this.states.indexOf(name);
    return place >= 0 ? place : this.states.push(name) - 1;
  }

  /** Continue the course of an actor with what it does now. */
  follow(actor, at) {
    const created = this.job.created;
    let course = this.courses.get(actor.actor);
    if (!course) {
      this.courses.set(actor.actor, course = [0, this.state(waiting(actor))]);
      if (actor.began !== null && ENDED.has(actor.state)) course.push(Math.max(0, actor.began - created), this.state("running"));
    }
    const ended = ENDED.has(actor.state);
    if (!ended && actor.began !== null && actor.began - created > course.at(-2) && actor.since > actor.began) course.push(actor.began - created, this.state("running"));
    const state = this.state(ended ? actor.state : actor.state === "running" ? actor.does : waiting(actor));
    if (course.at(-1) === state) return;
    // What a running actor does began with its last reply; a wait began at some time before now.
    const since = Math.max(course.at(-2), (actor.state === "waiting" ? at : actor.since) - created);
    if (since === course.at(-2) && course.length > 2) course.splice(-2);
    course.push(since, state);
  }

  /** Take the courses in a timeline, which are exact; what happened since then is already known. */
  rewrite(timeline) {
    for (const {actor, states} of timeline.actors) {
      const course = states.flatMap(([at, name]) => [at, this.state(name)]);
      this.courses.set(actor, course);
      const known = this.actors.get(actor);
      if (known && ENDED.has(known.state) && course.at(-1) !== this.state(known.state)) course.push(known.since - this.job.created, this.state(known.state));
    }
    this.version += 1;
  }

  /** Return inputs per second over the last minute, or since the first worker connected; 0: unknown. */
  speed() {
    const {done, failed} = this.job.inputs;
    const now = this.now();
    let [began, before] = this.pace[0] ?? [now, 0];
    if (now - began < ENOUGH_S) [began, before] = [this.job.first_hello ?? now, 0];
    return now > began ? Math.max(0, (done + failed - before) / (now - began)) : 0;
  }

  /** How long an actor has been running, or its last attempt took, in seconds; null: it has not begun. */
  took(actor) {
    if (actor.began === null || actor.state === "waiting") return null;
    return Math.max(0, (ENDED.has(actor.state) ? actor.since : this.now()) - actor.began);
  }

  /** What an actor waits for, in words. */
  waits(actor) {
    if (actor.state === "waiting") {
      return this.job.gates?.[actor.waits_for] ?? actor.waits_for ?? this.job.awaited ?? "a worker";
    }
    return actor.state === "running" ? actor.waits_for : null;
  }
}
