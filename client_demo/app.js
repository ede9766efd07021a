// The page: chooses presenter and voice, starts a session, shows what happens.
// Query: ?debug=1 exposes window.livemimic for measurements; ?auto=mirror|agent&portrait=NAME starts by itself.

import * as api from "./api.js";
import { Graph, ReceiverStats, watchLevel } from "./meters.js";
import { LiveSession } from "./session.js";

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const graph = new Graph($("graph"), $("graph-top"));
let people = [];
let chosen = null;
let session = null;
let microphone = null;
let stopLevel = () => {};
let figures = null;

const STATES = { idle: "Idle", listening: "Listening", speaking: "Speaking" };

// Before and after a session, when there is no state, the label over the picture says whose picture it is.
function showState(state) {
  $("state").dataset.state = state;
  $("state").querySelector("span").textContent = state === "off" ? (chosen?.title ?? "") : (STATES[state] ?? state);
}

function showPhase(phase, text = "") {
  document.body.dataset.phase = phase;
  $("overlay").hidden = phase !== "connecting";
  $("overlay-text").textContent = text;
  const live = phase === "live";
  $("start").disabled = phase !== "setup" || !chosen;
  for (const id of ["interrupt", "mute", "stop"]) $(id).disabled = !live;
  $("speak").disabled = !live || !$("sound").files.length;
  document.querySelectorAll(".setup input, .people button").forEach((e) => e.id !== "sound" && (e.disabled = phase !== "setup"));
}

// --- notices ---------------------------------------------------------------------------------------------------------
let countdown = 0;

function hideNotice() {
  clearInterval(countdown);
  $("notice").hidden = true;
}

function notify(title, hint, action = null) {
  hideNotice();
  $("notice-title").textContent = sentence(title);
  $("notice-hint").textContent = sentence(hint);
  $("notice-action").hidden = !action;
  if (action) {
    $("notice-action").textContent = action.label;
    $("notice-action").onclick = () => (hideNotice(), action.run());
  }
  $("notice").hidden = false;
}

// The server's messages are phrases for logs and programs; here they stand alone.
function sentence(text) {
  const trimmed = (text ?? "").trim();
  return trimmed && trimmed[0].toUpperCase() + trimmed.slice(1) + (/[.!?…]$/.test(trimmed) ? "" : ".");
}

function explain(error) {
  if (error instanceof api.ApiError && error.status === 503 && error.retryAfterS) return countDown(error);
  if (error.name === "NotAllowedError")
    return notify("The microphone is blocked.", "Allow it in the address bar of your browser, then press Start again.");
  if (error.name === "NotFoundError") return notify("No microphone was found.", "Plug one in, or choose a sound file instead.");
  const action = error.status === 0 ? { label: "Try again", run: load } : null;
  notify(error.message, error.hint, action);
}

function countDown(error) {
  let left = Math.ceil(error.retryAfterS);
  const show = () => ($("notice-hint").textContent = `${sentence(error.hint)} Trying again in ${left} s.`.trim());
  notify(error.message, "", { label: "Try now", run: start });
  show();
  countdown = setInterval(() => (--left > 0 ? show() : (hideNotice(), start())), 1000);
}

// --- presenters ------------------------------------------------------------------------------------------------------
function choose(name) {
  chosen = people.find((person) => person.name === name) ?? people[0] ?? null;
  for (const button of $("people").children) {
    const mine = button.dataset.name === chosen?.name;
    button.setAttribute("aria-checked", mine);
    button.tabIndex = mine ? 0 : -1;
  }
  $("poster").hidden = !chosen;
  if (chosen) $("poster").src = $("chosen-image").src = chosen.url;
  $("chosen-name").textContent = chosen?.title ?? "";
  if (!session) showState("off");
  if (document.body.dataset.phase === "setup") $("start").disabled = !chosen;
}

function showPeople() {
  $("people").replaceChildren(
    ...people.map(({ name, title, url }) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.name = name;
      button.setAttribute("role", "radio");
      button.setAttribute("aria-label", title ?? name);
      button.title = title ?? name;
      const image = new Image();
      image.src = url;
      image.alt = "";
      button.append(image);
      button.onclick = () => choose(name);
      return button;
    }),
  );
}

$("people").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const index = people.indexOf(chosen);
  choose(people[(index + step + people.length) % people.length].name);
  $("people").querySelector('[aria-checked="true"]').focus(); // scrolls it into view where they stand in one row
});

$("portrait").addEventListener("change", async ({ target }) => {
  const [file] = target.files;
  if (!file) return;
  try {
    const { name, url, report } = await api.uploadPortrait(file);
    people = [...people.filter((person) => person.name !== name), { name, title: "Your picture", url }];
    showPeople();
    choose(name);
    const advice = report?.advice ?? [];
    $("portrait-report").textContent = advice.length ? advice.join(" ") : "A good picture: the face is clear.";
    $("portrait-report").hidden = false;
    hideNotice();
  } catch (error) {
    explain(error);
  }
  target.value = "";
});

// --- voice -----------------------------------------------------------------------------------------------------------
const mode = () => (document.querySelector('input[name="source"]:checked').value === "mic" ? "mirror" : "agent");

document.querySelectorAll('input[name="source"]').forEach((input) =>
  input.addEventListener("change", () => {
    $("source-mic").hidden = mode() !== "mirror";
    $("source-file").hidden = mode() !== "agent";
  }),
);

$("sound").addEventListener("change", () => {
  const [file] = $("sound").files;
  $("sound-name").textContent = file?.name ?? "Choose a sound file";
  $("speak").disabled = !session || !file;
});

async function say() {
  const [file] = $("sound").files;
  if (!session || !file) return;
  try {
    hideNotice();
    await session.speak(file);
  } catch (error) {
    explain(error);
  }
}

async function openMicrophone(required) {
  if (!navigator.mediaDevices?.getUserMedia) {
    if (!required) return null;
    throw Object.assign(new Error("This page may not use the microphone."), {
      hint: "Browsers allow it on https:// and on http://localhost only. Open the page that way, or choose a sound file.",
    });
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: !required } });
  } catch (error) {
    if (required) throw error;
    return null; // a sound file needs no microphone; without one it cannot be talked over, that is all
  }
}

// --- session ---------------------------------------------------------------------------------------------------------
async function start() {
  if (session || !chosen) return;
  hideNotice();
  const chosenMode = mode();
  showPhase("connecting", chosenMode === "mirror" ? "Waiting for your microphone" : "Connecting");
  // Sound may only begin with a gesture; this click is one. Muted playback always may.
  const video = $("video");
  try {
    microphone = await openMicrophone(chosenMode === "mirror");
    if (microphone) stopLevel = watchLevel(microphone, showLevel);
    showPhase("connecting", `Waking ${chosen.title ?? chosen.name}`);
    session = await LiveSession.open({ portrait: chosen.name, mode: chosenMode, microphone });
  } catch (error) {
    release();
    return explain(error);
  }
  session.addEventListener("event", ({ detail }) => onEvent(detail));
  session.addEventListener("lost", ({ detail }) => {
    release();
    notify(detail, "Nothing is lost: the presenter can start again.", { label: "Reconnect", run: start });
  });
  video.srcObject = session.stream;
  video.muted = false;
  await video.play().catch(() => {
    video.muted = true;
    $("unmute").hidden = false;
    return video.play().catch(() => {});
  });
  video.addEventListener("playing", () => showPhase("live"), { once: true });
  if (!video.paused && video.readyState > 2) showPhase("live");
  watchFigures(session.connection);
  if (query.get("debug")) window.livemimic = { session, microphone, connection: session.connection, stats: () => figures?.latest };
  if (chosenMode === "agent") say();
}

function onEvent(event) {
  if (event.type === "state") showState(event.state);
  else if (event.type === "stats" && figures) figures.server = event;
  else if (event.type === "error") notify(event.error.message, event.error.hint);
}

function watchFigures(connection) {
  const stats = new ReceiverStats();
  graph.clear();
  const own = { server: null, latest: null, timer: 0 };
  figures = own;
  own.timer = setInterval(async () => {
    const read = await stats.read(connection).catch(() => null);
    if (!read || figures !== own) return;
    const delay = own.server?.latency_ms?.playout_delay;
    const latency = delay == null ? null : delay + read.bufferMs + read.rttMs / 2;
    own.latest = { ...read, latency, server: own.server };
    put("latency", latency, 0, "ms", latency > 800);
    put("fps", read.fps, 1, "", read.fps < 24);
    put("skew", read.skewMs, 0, "ms", Math.abs(read.skewMs) > 45);
    put("freezes", read.freezes, 0, "", read.freezes > 0);
    graph.add(latency, read.fps);
  }, 500);
}

function put(id, value, digits, unit, warn) {
  const cell = $(id);
  cell.classList.toggle("warn", value != null && warn);
  if (value == null || Number.isNaN(value)) return void (cell.textContent = "–");
  const rounded = value.toFixed(digits).replace(/^-0(\.0)?$/, "0$1");
  cell.replaceChildren(rounded.replace("-", "−"));
  if (unit) cell.append(Object.assign(document.createElement("small"), { textContent: unit }));
}

function showLevel(value) {
  const percent = Math.round(value * 100);
  $("level").setAttribute("aria-valuenow", percent);
  $("level").firstElementChild.style.width = `${percent}%`;
}

function release() {
  session?.close();
  session = null;
  clearInterval(figures?.timer);
  figures = null;
  stopLevel();
  stopLevel = () => {};
  microphone?.getTracks().forEach((track) => track.stop());
  microphone = null;
  $("video").srcObject = null;
  $("unmute").hidden = true;
  showState("off");
  for (const id of ["latency", "fps", "skew", "freezes"]) put(id, null);
  showPhase("setup");
}

$("start").onclick = start;
$("stop").onclick = release;
$("speak").onclick = say;
$("interrupt").onclick = () => session?.interrupt().catch(explain);
$("notice-close").onclick = hideNotice;
$("unmute").onclick = () => {
  $("video").muted = false;
  $("unmute").hidden = true;
};
$("mute").onclick = () => {
  const muted = !$("video").muted;
  $("video").muted = muted;
  $("mute").setAttribute("aria-pressed", muted);
  $("mute").textContent = muted ? "Unmute" : "Mute";
};
addEventListener("pagehide", () => session?.close());

// --- beginning -------------------------------------------------------------------------------------------------------
function showServer(text, kind) {
  $("server").textContent = text;
  $("server").className = `chip ${kind}`;
}

async function waitUntilReady() {
  while (!(await api.ready())) {
    showServer("The model is loading…", "");
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  showServer("Server ready", "ok");
}

async function load() {
  try {
    people = await api.portraits();
    showPeople();
    choose(query.get("portrait") ?? people[0]?.name);
    await waitUntilReady();
  } catch (error) {
    showServer("Not reachable", "bad");
    explain(error);
    return;
  }
  const auto = query.get("auto");
  if (auto) {
    document.querySelector(`input[name="source"][value="${auto === "agent" ? "file" : "mic"}"]`).click();
    start();
  }
}

showPhase("setup");
load();
