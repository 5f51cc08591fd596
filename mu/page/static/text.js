// Numbers, times and printed text for people.

const number = new Intl.NumberFormat("en", {maximumFractionDigits: 0});

export const count = (value) => number.format(value);

/** Return `1 actor` or `2,000 actors`. */
export const counted = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

/** Return a time span: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function span(seconds) {
  if (!(seconds >= 0)) return "";
  if (seconds < 0.995) return `${Number(seconds.toFixed(2))} s`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const [big, small, size] = whole < 3600 ? ["min", "s", 60] : whole < 86400 ? ["h", "min", 3600] : ["d", "h", 86400];
  const rest = Math.floor((whole % size) / (size === 60 ? 1 : size === 3600 ? 60 : 3600));
  return rest ? `${Math.floor(whole / size)} ${big} ${rest} ${small}` : `${Math.floor(whole / size)} ${big}`;
}

/** Return how fast inputs are handled: 12/s, 3.5/min or 1.2/h. */
export function rate(perSecond) {
  const [unit, size] = [["s", 1], ["min", 60], ["h", 3600]].find(([, one]) => perSecond * one >= 1) ?? ["h", 3600];
  const value = perSecond * size;
  return `${value >= 10 ? count(value) : value.toFixed(1)}/${unit}`;
}

/** Return a sum in US dollars, with as many digits as small sums need. */
export function dollars(usd) {
  if (usd === null || usd === undefined) return "";
  if (usd === 0) return "$0";
  const digits = usd >= 100 ? 0 : usd >= 1 ? 2 : Math.min(6, 2 - Math.floor(Math.log10(usd)));
  return `$${usd.toFixed(digits)}`;
}

/** Return the local date and time; of today, only the time. */
export function when(seconds) {
  const date = new Date(seconds * 1000);
  const today = date.toDateString() === new Date().toDateString();
  const time = {hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false};
  return today ? date.toLocaleTimeString("en-GB", time)
    : date.toLocaleString("en-GB", {day: "numeric", month: "short", ...time});
}

// Escape sequences of terminals (colours, cursor, titles), and other control characters.
const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])/g;
const CONTROLS = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/g;

/** Return printed text as a terminal would leave it: without escape sequences and overwritten parts of lines. */
export function plain(text) {
  return text.replace(ESCAPES, "").replace(/\r+\n/g, "\n").replace(/[^\n]*\r/g, "").replace(CONTROLS, "");
}

/** Return an error without the numbers in paths and long ones, so that errors of the same kind are equal. */
export const kind = (error) => error
  .replace(/\S*\/\S*/g, (path) => path.replace(/[0-9a-f]{12,}|\d+/g, "…"))
  .replace(/[0-9a-f]{12,}|\d{4,}/g, "…");

/** The states of actors. */
export const STATES = ["waiting", "running", "done", "failed", "cancelled"];
