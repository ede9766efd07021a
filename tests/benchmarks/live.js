// Injected into the demo page by live.py: records what a viewer sees and hears, with times of one clock (performance.now()).
// Frames: bar code and display time. Sound: RMS of every 10 ms, of the microphone and of what comes back.
window.measure = async () => {
  const { session, microphone, connection } = window.livemimic;
  const video = document.getElementById("video");
  const data = { frames: [], microphone: [], returned: [], loopbackMs: [], polls: [] };

  const cell = 8, bits = 24, width = (bits + 2) * cell;
  const canvas = new OffscreenCanvas(width, cell);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const readCode = () => {
    context.drawImage(video, 0, 0, width, cell, 0, 0, width, cell);
    const pixels = context.getImageData(0, cell / 2, width, 1).data;
    const level = (i) => pixels[4 * (i * cell + cell / 2)];
    if (level(0) < 150 || level(1) > 100) return null;
    let value = 0;
    for (let i = 0; i < bits; i++) value = value * 2 + (level(i + 2) > 127 ? 1 : 0);
    return value;
  };
  const onFrame = (now, metadata) => {
    data.frames.push([readCode(), metadata.expectedDisplayTime, now]);
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);

  const worklet = `registerProcessor("level", class extends AudioWorkletProcessor {
    constructor() { super(); this.sum = 0; this.count = 0; this.batch = []; }
    process([[channel]]) {
      for (let i = 0; i < 128; i++) {
        const x = channel ? channel[i] : 0;
        this.sum += x * x;
        if (++this.count === 480) {
          this.batch.push([(currentFrame + i + 1) / sampleRate, Math.sqrt(this.sum / 480)]);
          this.sum = 0; this.count = 0;
          if (this.batch.length === 10) { this.port.postMessage(this.batch); this.batch = []; }
        }
      }
      return true;
    }
  })`;
  // A browser hands a stream to Web Audio through a buffer of its own: how much later a sound comes out of it is measured with clicks.
  const loopback = `registerProcessor("clicks", class extends AudioWorkletProcessor {
    process(_, [[channel]]) {
      channel.fill(0);
      if (Math.floor(currentFrame / 12000) !== Math.floor((currentFrame - 128) / 12000)) {
        channel[0] = 1;
        this.port.postMessage(currentFrame);
      }
      return true;
    }
  });
  registerProcessor("arrivals", class extends AudioWorkletProcessor {
    process([[channel]]) {
      const at = channel ? channel.findIndex((x) => Math.abs(x) > 0.3) : -1;
      if (at >= 0) this.port.postMessage(currentFrame + at);
      return true;
    }
  })`;
  const audio = new AudioContext({ sampleRate: 48000, latencyHint: "interactive" });
  await audio.audioWorklet.addModule(URL.createObjectURL(new Blob([worklet], { type: "text/javascript" })));
  await audio.audioWorklet.addModule(URL.createObjectURL(new Blob([loopback], { type: "text/javascript" })));
  const clicks = new AudioWorkletNode(audio, "clicks", { numberOfInputs: 0 });
  const arrivals = new AudioWorkletNode(audio, "arrivals", { numberOfOutputs: 0 });
  const loop = audio.createMediaStreamDestination();
  clicks.connect(loop);
  audio.createMediaStreamSource(loop.stream).connect(arrivals);
  let sentAt = null;
  clicks.port.onmessage = ({ data: frame }) => (sentAt = frame);
  arrivals.port.onmessage = ({ data: frame }) => {
    if (sentAt !== null && frame >= sentAt) data.loopbackMs.push((frame - sentAt) / 48);
    sentAt = null;
  };

  const listen = (stream, into) => {
    const node = new AudioWorkletNode(audio, "level");
    node.port.onmessage = ({ data: batch }) => into.push(...batch);
    audio.createMediaStreamSource(stream).connect(node).connect(audio.destination);
  };
  if (microphone) listen(microphone, data.microphone);
  listen(new MediaStream(session.stream.getAudioTracks()), data.returned);
  await audio.resume();

  const poll = async () => {
    const report = [...(await connection.getStats()).values()];
    const video = report.find((r) => r.type === "inbound-rtp" && r.kind === "video") ?? {};
    const sound = report.find((r) => r.type === "inbound-rtp" && r.kind === "audio") ?? {};
    const stamp = audio.getOutputTimestamp();
    data.polls.push({
      now: performance.now(), audioTime: stamp.contextTime, audioNow: stamp.performanceTime, framesDecoded: video.framesDecoded,
      framesDropped: video.framesDropped, freezeCount: video.freezeCount, freezeS: video.totalFreezesDuration, keyFrames: video.keyFramesDecoded,
      skewMs: sound.estimatedPlayoutTimestamp && video.estimatedPlayoutTimestamp ? video.estimatedPlayoutTimestamp - sound.estimatedPlayoutTimestamp : null,
      concealed: sound.concealedSamples, server: window.livemimic.stats()?.server ?? null,
    });
  };
  const timer = setInterval(poll, 500);
  return { stop: async () => (clearInterval(timer), await poll(), { ...data, outputLatency: audio.outputLatency + audio.baseLatency }) };
};
