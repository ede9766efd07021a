// What the page measures itself: the receiver's statistics, the microphone's level, and the graph of the last minute.

const KEPT = 120; // samples of half a second
const RATE_WINDOW = 4; // samples a frame rate is taken over; over one alone 12 and 13 frames would alternate
const [GRAPH_MS, GRAPH_FPS] = [800, 30]; // top of the graph as its legend says; a longer latency stretches it

export class ReceiverStats {
  #past = []; // [when, frames decoded until then]

  // fps, freezes, jitter buffer (ms), round trip (ms) and the skew between both tracks (ms, positive = picture late).
  async read(connection) {
    const report = [...(await connection.getStats()).values()];
    const inbound = report.filter(({ type }) => type === "inbound-rtp");
    const video = inbound.find(({ kind }) => kind === "video") ?? {};
    const audio = inbound.find(({ kind }) => kind === "audio") ?? {};
    const pair = report.find(({ type, nominated }) => type === "candidate-pair" && nominated) ?? {};
    const now = performance.now();
    const frames = video.framesDecoded ?? 0;
    const [since, before] = this.#past[0] ?? [];
    const fps = this.#past.length ? ((frames - before) * 1000) / (now - since) : null;
    this.#past = frames ? [...this.#past, [now, frames]].slice(-RATE_WINDOW) : [];
    const both = video.estimatedPlayoutTimestamp && audio.estimatedPlayoutTimestamp;
    return {
      fps,
      freezes: video.freezeCount ?? 0,
      bufferMs: video.jitterBufferEmittedCount ? (1000 * video.jitterBufferDelay) / video.jitterBufferEmittedCount : 0,
      rttMs: 1000 * (pair.currentRoundTripTime ?? 0),
      skewMs: both ? audio.estimatedPlayoutTimestamp - video.estimatedPlayoutTimestamp : null,
    };
  }
}

// Calls `show` with 0..1 while it runs; returns a function that ends it.
export function watchLevel(stream, show) {
  const Context = window.AudioContext ?? window.webkitAudioContext;
  if (!Context || !stream.getAudioTracks().length) return () => {};
  const context = new Context();
  context.resume?.();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const rms = Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
    show(Math.min(1, Math.max(0, (20 * Math.log10(rms + 1e-6) + 60) / 54)));
  }, 50);
  return () => {
    clearInterval(timer);
    context.close();
    show(0);
  };
}

export class Graph {
  #points = [];

  // `top`: the element that says which latency the upper edge stands for.
  constructor(canvas, top) {
    Object.assign(this, { canvas, top });
    addEventListener("resize", () => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener?.("change", () => this.draw());
  }

  clear() {
    this.#points = [];
    this.draw();
  }

  add(latencyMs, fps) {
    this.#points = [...this.#points, { latencyMs, fps }].slice(-KEPT);
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const scale = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    [canvas.width, canvas.height] = [width * scale, height * scale];
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name);
    context.strokeStyle = colour("--line");
    context.lineWidth = 1;
    for (const part of [1 / 3, 2 / 3]) line(context, [[0, height * part], [width, height * part]]);
    const top = Math.max(GRAPH_MS, ...this.#points.map(({ latencyMs }) => latencyMs ?? 0));
    this.#curve(context, colour("--good"), ({ fps }) => fps, GRAPH_FPS, width, height);
    this.#curve(context, colour("--accent"), ({ latencyMs }) => latencyMs, top, width, height);
    this.top.textContent = Math.round(top);
  }

  #curve(context, colour, value, top, width, height) {
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.lineJoin = "round";
    const step = width / (KEPT - 1);
    const first = KEPT - this.#points.length;
    const place = (point, i) => [(first + i) * step, height - 4 - (height - 8) * Math.min(1, Math.max(0, value(point) / top))];
    line(context, this.#points.map((point, i) => (value(point) == null ? null : place(point, i))).filter(Boolean));
  }
}

function line(context, points) {
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}
