// The page of a run: shows what /api/events tells, and sends what the switches say to /api/look.

import { Chart } from "./chart.js";

const SILENT_AFTER_MS = 5000;
const RETRY_MS = 2000;
const MOST_SENSORS = 8;
const HOT_C = 85;
const STATES = { starting: "Starting", running: "Running", reconnecting: "Reconnecting", ended: "Ended", offline: "No connection" };
const HANDOVERS = { inference: "at inference", render: "at rendering", sink: "at the sinks", done: "when done" };

const $ = (id) => document.getElementById(id);
const picture = $("picture");
const chart = new Chart($("chart"), (reading) => {
  $("reading").textContent = reading ?? "end to end";
});

if (location.search) history.replaceState(null, "", "/"); // the cookie has the token now; the address should not show it

// --- the picture

let numShown = 0;

function showPicture() {
  // a new address each time: a browser does not ask again for one that it has
  if (!document.hidden) picture.src = `/stream.mjpg?${++numShown}`;
}

picture.addEventListener("error", () => {
  if (!picture.hasAttribute("src")) return;
  picture.removeAttribute("src");
  setTimeout(showPicture, RETRY_MS);
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) picture.removeAttribute("src"); // nobody looks, so nothing has to be sent
  else showPicture();
});

const fullscreen = $("fullscreen");
fullscreen.hidden = !document.fullscreenEnabled;
fullscreen.addEventListener("click", () =>
  document.fullscreenElement ? document.exitFullscreen() : picture.parentElement.requestFullscreen(),
);

// --- the numbers

let events = null;
let heardAt = 0;

function listen() {
  events?.close();
  heardAt = Date.now();
  events = new EventSource("/api/events");
  events.addEventListener("history", ({ data }) => {
    const past = JSON.parse(data);
    chart.reset(past.time_s.map((t, k) => [t, past.fps[k]]));
    showPicture();
  });
  events.addEventListener("state", ({ data }) => {
    heardAt = Date.now();
    show(JSON.parse(data));
  });
  events.addEventListener("error", () => {
    if (document.body.dataset.state !== "ended") showState("offline", {});
  });
}

setInterval(() => {
  if (Date.now() - heardAt < SILENT_AFTER_MS) return;
  if (document.body.dataset.state !== "ended") showState("offline", {});
  listen();
}, 1000);

function show(now) {
  const run = now.statistics;
  showState(run.state, run);
  $("source").textContent = $("source").title = run.source;
  const engine = now.engine;
  $("engine").textContent = engine.model ? `${engine.model} ${engine.size} ${engine.precision.toUpperCase()} · ${engine.backend}` : "";
  $("uptime").textContent = duration(run.uptime_s);
  document.title = `${run.fps.toFixed(0)} fps · edgesod`;
  $("fps").textContent = run.fps.toFixed(1);
  if (run.size_hw) {
    const [height, width] = run.size_hw;
    $("caption").textContent = `${width} × ${height}`;
    picture.parentElement.style.setProperty("--ratio", `${width} / ${height}`);
  }

  const age = Object.values(run.frame_age_ms).at(-1);
  $("age").replaceChildren(age ? String(Math.round(age.p50)) : "–", ...(age ? [element("small", "ms")] : []));
  for (const name of ["frames", "dropped", "late", "reconnects"]) $(name).textContent = run[name].toLocaleString("en");
  for (const name of ["dropped", "late", "reconnects"]) $(name).classList.toggle("alert", run[name] > 0);
  $("viewers").textContent = now.viewers;

  showBars($("stages"), run.stages_ms, (name) => name.replaceAll("_", " "));
  showBars($("ages"), run.frame_age_ms, (name) => HANDOVERS[name] ?? name);
  showPapers(now.papers, run.fps);
  showSensors(now.sensors);
  showLook(now.look, now.effects, engine.threshold);
  chart.setLines(now.papers.map(({ model, fps }) => ({ name: model, fps })));
  if (run.state !== "starting" && run.state !== "ended") chart.add(now.time_s, run.fps);
}

function showState(state, run) {
  document.body.dataset.state = state;
  $("state").textContent = STATES[state] ?? state;
  const [title, text] = {
    starting: ["Waiting for the first frame", "The engine is loaded, or the source has not delivered yet."],
    reconnecting: ["The source is lost", `Trying to reach it again.${run.reconnects ? ` It came back ${times(run.reconnects)} so far.` : ""}`],
    ended: ["The run has ended", "This page comes back by itself when another one starts here."],
    offline: ["No connection to the run", "It has stopped, the network is down, or the token has changed. Trying again."],
  }[state] ?? ["", ""];
  $("notice-title").textContent = title;
  $("notice-text").textContent = text;
}

function showBars(list, summaries, label) {
  const entries = Object.entries(summaries);
  const most = Math.max(...entries.map(([, s]) => s.p95), 1e-6);
  const rows = entries.map(([name, { p50, p95 }]) => {
    const row = element("li");
    const bar = element("span", "", "bar");
    bar.style.setProperty("--p50", Math.min(1, p50 / most));
    bar.style.setProperty("--p95", p95 / most);
    bar.append(element("i"));
    row.title = `median ${p50.toFixed(2)} ms, 95th percentile ${p95.toFixed(2)} ms`;
    row.append(element("span", label(name), "name"), bar, element("span", `${milliseconds(p50)} ms`, "value"));
    row.classList.toggle("total", name === "end_to_end");
    return row;
  });
  list.replaceChildren(...(rows.length ? rows : [element("li", "nothing yet", "empty")]));
}

function showPapers(papers, fps) {
  $("papers").replaceChildren(
    ...papers.map(({ model, fps: figure }) => {
      const item = element("li", "", fps >= figure ? "reached" : "");
      item.append(element("b", String(figure)), model);
      return item;
    }),
  );
}

function showSensors({ temperatures_c: temperatures, power_w: power }) {
  const hottest = Object.entries(temperatures).sort((a, b) => b[1] - a[1]).slice(0, MOST_SENSORS);
  const rows = [
    ...hottest.map(([name, value]) => [name, `${value.toFixed(0)} °C`, value >= HOT_C]),
    ...Object.entries(power).slice(0, MOST_SENSORS).map(([name, value]) => [name, `${value.toFixed(value < 10 ? 2 : 1)} W`, false]),
  ];
  $("board").hidden = !rows.length;
  $("sensors").replaceChildren(
    ...rows.map(([name, value, isHot]) => {
      const row = element("li");
      row.title = name;
      row.append(element("span", name), element("b", value, isHot ? "hot" : ""));
      return row;
    }),
  );
}

// --- the switches

const slider = $("threshold");
let wanted = null; // what to send next: switches may move faster than answers come
let isSending = false;
let isDragging = false;

function showLook(look, effects, own) {
  if (wanted || isSending || isDragging) return;
  if ($("effects").childElementCount !== 2 * effects.length) makeEffects(effects);
  for (const input of $("effects").querySelectorAll("input")) {
    input.checked = input.value === look.effect;
    input.disabled = input.value === "replace" && !look.background;
    input.nextElementSibling.title = input.disabled ? "Needs edgesod run --background FILE" : "";
  }
  const value = look.threshold ?? own ?? null;
  if (value !== null) slider.value = value;
  showThreshold(value, look.threshold === null ? ", the model's own" : "");
  $("own-threshold").hidden = look.threshold === null;
}

function showThreshold(value, whose = "") {
  $("threshold-value").textContent = value === null ? "–" : `${Number(value).toFixed(2)}${whose}`;
}

function makeEffects(effects) {
  $("effects").replaceChildren(
    ...effects.flatMap((name) => {
      const input = element("input");
      Object.assign(input, { type: "radio", name: "effect", value: name, id: `effect-${name}` });
      const label = element("label", name);
      label.htmlFor = input.id;
      return [input, label];
    }),
  );
}

async function send(change) {
  wanted = { ...wanted, ...change };
  if (isSending) return;
  isSending = true;
  while (wanted) {
    const body = JSON.stringify(wanted);
    wanted = null;
    try {
      const answer = await fetch("/api/look", { method: "POST", headers: { "Content-Type": "application/json" }, body });
      const { error, hint } = answer.ok ? {} : await answer.json();
      complain(error && (hint ? `${error} (${hint})` : error));
    } catch {
      complain("The switch did not reach the run.");
    }
  }
  isSending = false;
}

function complain(problem) {
  $("problem").textContent = problem ?? "";
  $("problem").hidden = !problem;
}

$("switches").addEventListener("submit", (event) => event.preventDefault());
$("effects").addEventListener("change", ({ target }) => send({ effect: target.value }));
slider.addEventListener("pointerdown", () => (isDragging = true));
for (const end of ["pointerup", "pointercancel", "change"]) slider.addEventListener(end, () => (isDragging = false));
slider.addEventListener("input", () => {
  showThreshold(slider.value);
  send({ threshold: Number(slider.value) });
});

$("own-threshold").addEventListener("click", () => send({ threshold: null }));

// --- small helpers

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const milliseconds = (value) => (value < 10 ? value.toFixed(1) : value.toFixed(0));
const times = (count) => (count === 1 ? "once" : `${count} times`);

function duration(seconds) {
  const s = Math.floor(seconds);
  const [days, hours, minutes] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min ${s % 60} s` : `${s} s`;
}

listen();
