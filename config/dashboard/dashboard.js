// Asks for the document every two seconds and shows it. Every text is set as text: names come from clients.

import { barChart } from "./charts.js";
import { bytes, clock, date, many, moment, percent, span, weekday } from "./words.js";

const INTERVAL_MS = 2000;
const TOKEN_KEY = "registry-proxy-token";
const byId = (id) => document.getElementById(id);

let isPaused = false;
let timer = 0;
let lastGoodMs = 0;
let hasFailed = false;
const shownTexts = new Map();

function make(name, options = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (key === "class") element.className = value;
    else if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined).map((child) => child instanceof Node ? child : String(child)));
  return element;
}

function say(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

// Replaces what an element holds, if that has changed: who reads with a magnifier or selects text is left in peace.
function put(id, told, build) {
  const key = JSON.stringify(told);
  if (shownTexts.get(id) === key) return;
  shownTexts.set(id, key);
  byId(id).replaceChildren(...[build()].flat());
}

const quiet = (text) => make("p", { class: "quiet" }, text);
const image = (each) => make("span", { class: "name" }, each.image ? `${each.registry}/${each.image}` : each.registry);

function table(caption, heads, rows) {
  const cell = (content, [label, kind]) => make("td", { class: kind, "data-label": label }, content);
  return make("table", { "aria-label": caption },
    make("thead", {}, make("tr", {}, ...heads.map(([label, kind]) => make("th", { class: kind, scope: "col" }, label)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((content, number) => cell(content, heads[number]))))));
}

function showTiles(told) {
  const speed = told.downloads.reduce((sum, each) => sum + (each.bytes_per_s ?? 0), 0);
  say("hit-ratio", percent(told.today.hit_ratio));
  say("hit-ratio-week", `7 days: ${percent(told.week.hit_ratio)} of ${many(told.week.hits + told.week.misses, "read", "reads")}`);
  say("saved", bytes(told.today.saved_bytes));
  say("saved-week", `7 days: ${bytes(told.week.saved_bytes)} of ${bytes(told.week.served_bytes)}`);
  say("downloads-count", String(told.downloads.length));
  say("downloads-speed", told.downloads.length ? `${bytes(speed)}/s` : "nothing is being fetched");
  say("cache-used", told.disk ? bytes(told.disk.used_bytes) : "closed");
  say("cache-cap", told.disk ? `of ${bytes(told.disk.cap_bytes)}` : "the cache does not work");
}

function showDownload(each) {
  const size = each.size_bytes === null ? `${bytes(each.arrived_bytes)} so far` : `${bytes(each.arrived_bytes)} of ${bytes(each.size_bytes)}`;
  const left = each.size_bytes === null ? 0 : each.size_bytes - each.arrived_bytes;
  const speed = each.bytes_per_s === null ? "" : `${bytes(each.bytes_per_s)}/s`;
  const rest = each.bytes_per_s > 0 && left > 0 ? `, ${span(left / each.bytes_per_s)} left` : "";
  const who = each.clients && each.clients.length ? `: ${each.clients.join(", ")}` : "";
  const waiting = each.waiting ? `${many(each.waiting, "request waits", "requests wait")}${who}` : "nobody waits; it goes on for the next";
  const known = each.size_bytes === null ? {} : { value: each.arrived_bytes, max: Math.max(1, each.size_bytes) };
  return make("div", { class: "download", title: each.digest },
    make("p", {}, image(each), make("span", {}, `${size}${speed ? `, ${speed}` : ""}${rest}`)),
    make("progress", { ...known, "aria-label": `Download of ${each.image ?? "an image"} from ${each.registry}` }),
    make("p", { class: "quiet" }, waiting));
}

function showCharts(told) {
  const sum = (times, name) => bytes(times.reduce((total, each) => total + each[name], 0));
  const title = (when, times) => `${when}: ${sum(times, "served_bytes")} to clients, ${sum(times, "fetched_bytes")} from registries`;
  put("hour", told.hour, () => barChart(title("Last hour", told.hour), told.hour, (each, number) => number % 15 === 7 ? clock(each.begins_s) : ""));
  put("week", told.days, () => barChart(title("Seven days", told.days), told.days, (each) => weekday(each.begins_s)));
  put("week-table", told.days, () => table("Seven days",
    [["Day (UTC)"], ["Hit ratio", "number"], ["Reads", "number"], ["To clients", "number"], ["From registries", "number"], ["Saved", "number"]],
    told.days.map((each) => [date(each.begins_s), percent(each.hit_ratio), (each.hits + each.misses).toLocaleString("en"),
      bytes(each.served_bytes), bytes(each.fetched_bytes), bytes(each.saved_bytes)])));
}

function showImages(told) {
  const since = `Since ${moment(told.images_since_s)}`;
  say("images-note", told.names ? `${since}.` : `${since}, by registry: names are for the operator.`);
  put("images", told.images, () => told.images.length === 0 ? quiet("Nothing has been pulled yet.") : table("Busiest images",
    [[told.names ? "Image" : "Registry"], ["To clients", "number"], ["Requests", "number"], ["Hits", "number"]],
    told.images.map((each) => [image(each), bytes(each.served_bytes), each.requests.toLocaleString("en"), percent(each.hits / each.requests)])));
}

const STATES = {
  answers: () => ["good", "answers"],
  away: (each) => ["bad", `no answer for ${span(each.for_s)}: ${each.reason}`],
  tried: (each) => ["bad", `no answer for ${span(each.for_s)}, being tried again: ${each.reason}`],
  resting: (each) => ["bad", `${each.reason}, ${span(each.again_in_s)} more`],
};

function showRegistries(told) {
  const asked = told.registries.filter((each) => each.state !== "unknown");
  const others = told.registries.filter((each) => each.state === "unknown").map((each) => each.name);
  put("registries", told.registries, () => [
    asked.length === 0 ? null : table("Registries, and how often each has failed since the start",
      [["Registry"], ["State"], ["Failures", "number"]],
      asked.map((each) => {
        const [kind, text] = STATES[each.state](each);
        return [make("span", { class: "name" }, each.name), make("span", { class: kind }, text), each.failures.toLocaleString("en")];
      })),
    others.length === 0 ? null : quiet(`Not asked since the start: ${others.join(", ")}.`),
  ].filter((part) => part !== null));
  const forecast = (each) => {
    const bad = (text) => make("span", { class: "bad" }, text);
    if (each.outlook === "runs_out") {
      return bad(each.runs_out_at_s <= told.at_s ? "used up" : `used up in ${span(each.runs_out_at_s - told.at_s)} at this rate`);
    }
    if (each.is_low) return bad("low");
    return each.outlook === "lasts" ? "lasts at this rate" : "needs a minute of pulls";
  };
  put("quotas", [told.quotas, Math.floor(told.at_s / 10)], () => told.quotas.length === 0 ? quiet("No registry has told of one.") : table("Quotas",
    [["Registry"], ["Left", "number"], ["Forecast"]],
    told.quotas.map((each) => [
      make("span", { class: "name" }, each.account ? `${each.registry} (${each.account})` : each.registry),
      `${each.remaining}${each.limit === null ? "" : ` of ${each.limit}`}${each.window_s === null ? "" : ` in ${span(each.window_s)}`}`,
      forecast(each),
    ])));
}

function horizonWords(disk) {
  if (disk.oldest_age_s === null) return "The cache is empty.";
  const oldest = `The oldest entry was read ${span(disk.oldest_age_s)} ago.`;
  if (disk.horizon === null) return `${oldest} How fast the cache fills is known an hour after the first start.`;
  const rate = `${bytes(disk.fills_bytes_per_day)} a day`;
  const when = disk.horizon.oldest_goes_in_s < 60 ? "with the next download" : `after ${span(disk.horizon.oldest_goes_in_s)}`;
  const why = disk.horizon.cause === "room" ? "to make room" : `because nobody has read it for ${span(disk.inactive_s)}`;
  return `At this rate (${rate}) the oldest entry is evicted ${when}, ${why}; what nobody reads stays for ${span(disk.horizon.unread_stays_s)}. ${oldest}`;
}

function showDisk(told) {
  put("disk", [told.disk, Math.floor(told.at_s / 10)], () => told.disk === null ? quiet("The cache is closed.") : [
    make("progress", { value: told.disk.used_bytes, max: Math.max(1, told.disk.cap_bytes), "aria-label": "Used part of the cache" }),
    make("p", {}, `${bytes(told.disk.used_bytes)} of ${bytes(told.disk.cap_bytes)} are used by ${many(told.disk.entries, "entry", "entries")}; `
      + `${bytes(told.disk.room_bytes)} more fit, ${bytes(told.disk.free_bytes)} are free on the disk.`),
    make("p", { id: "horizon" }, horizonWords(told.disk)),
  ]);
}

function showSharedStore(told) {
  const store = told.shared_store;
  byId("shared-store-section").hidden = store === null;
  if (store === null) return;
  const works = store.reading && store.writing;
  const state = works ? "It answers" : store.reading ? "It takes nothing, what is pulled now is shared later" : "It gives no answer, pulls go on without it";
  put("shared-store", store, () => [
    make("p", {}, make("span", { class: works ? "good" : "bad" }, `${state}.`),
      ` ${many(store.waiting, "content is", "contents are")} still to be written.`),
    make("p", {}, `Since the start ${many(store.reads.found, "content", "contents")} (${bytes(store.read_bytes)}) came from it and `
      + `${many(store.written, "was", "were")} (${bytes(store.written_bytes)}) written; ${store.reads.missing.toLocaleString("en")} were not there, `
      + `${store.reads.unanswered.toLocaleString("en")} had no answer, ${store.reads.wrong.toLocaleString("en")} were wrong and not used.`),
  ]);
}

function showReadiness(told) {
  put("readiness", told.readiness, () => told.readiness === null ? quiet("Not looked yet.") : [
    make("p", {}, `${told.readiness.ready} of ${many(told.readiness.images, "image that is", "images that are")} in use would come from the cache, as of ${moment(told.readiness.at_s)}.`),
    ...told.readiness.wanting.length === 0 ? [] : [table("Would fail", [["Image"]], told.readiness.wanting.map((each) => [image(each)]))],
  ]);
}

function showErrors(told) {
  const reason = (each) => [
    make("div", {}, each.reason ?? each.words),
    each.reason ? make("div", { class: "quiet" }, each.words) : null,
    each.client_ip ? make("div", { class: "quiet" }, `${each.client_ip}${each.user_agent ? `, ${each.user_agent}` : ""}`) : null,
  ];
  put("errors", told.errors, () => told.errors.length === 0 ? quiet("None since the start.") : table("Recent errors",
    [["When"], ["Image"], ["Answer"], ["Reason"]],
    told.errors.map((each) => [
      `${moment(each.at_s)}${each.count > 1 ? ` (${each.count} times)` : ""}`,
      image(each),
      each.status === null ? "none" : String(each.status),
      make("div", {}, ...reason(each)),
    ])));
}

function show(told) {
  showTiles(told);
  put("downloads", told.downloads, () => told.downloads.length === 0 ? quiet("None.") : told.downloads.map(showDownload));
  showCharts(told);
  showImages(told);
  showRegistries(told);
  showDisk(told);
  showSharedStore(told);
  showReadiness(told);
  showErrors(told);
  byId("token-section").hidden = !told.token_helps;
}

function showState() {
  byId("state").className = !isPaused && hasFailed ? "stale" : "";
  const away = lastGoodMs ? `no answer since ${clock(lastGoodMs / 1000)}` : "no answer";
  say("state", isPaused ? "paused" : hasFailed ? away : lastGoodMs ? "live" : "starting");
}

async function ask() {
  const token = sessionStorage.getItem(TOKEN_KEY);
  const answer = await fetch("_proxy/dashboard.json", {
    headers: token ? { Authorization: `Bearer ${token}` } : {},
    cache: "no-store",
    signal: AbortSignal.timeout(10000),
  });
  if (!answer.ok) throw new Error(`the proxy answered ${answer.status}`);
  return answer.json();
}

async function turn() {
  clearTimeout(timer);
  if (isPaused || document.hidden) return;
  try {
    const told = await ask();
    lastGoodMs = Date.now();
    hasFailed = false;
    show(told);
  } catch (error) {
    console.warn(error);
    hasFailed = true;
  }
  showState();
  clearTimeout(timer);
  timer = setTimeout(turn, INTERVAL_MS);
}

byId("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  byId("pause").setAttribute("aria-pressed", String(isPaused));
  showState();
  turn();
});
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN_KEY, byId("token").value);
  byId("token").value = "";
  turn();
});
document.addEventListener("visibilitychange", turn);
turn();
