// One live session: the peer connection, the event socket, and their end. Emits "track", "event", "lost".

import * as api from "./api.js";

const HEARTBEAT_MS = 2000;
// Browsers buffer sound longer than pictures. They correct more than 30 ms by themselves; this takes most of the rest.
const VIDEO_BUFFER_MS = 70;

// Safari decodes H.264 in hardware and its VP8 is unreliable, so H.264 goes first wherever the order can be chosen.
function preferH264(transceiver) {
  const codecs = RTCRtpReceiver.getCapabilities?.("video")?.codecs;
  if (!codecs || !transceiver.setCodecPreferences) return;
  const rank = ({ mimeType }) => (mimeType === "video/H264" ? 0 : mimeType === "video/VP8" ? 1 : 2);
  transceiver.setCodecPreferences([...codecs].sort((a, b) => rank(a) - rank(b)));
}

// The server cannot take candidates later: wait for them here, but not for a silent STUN server.
function gathered(connection) {
  if (connection.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    setTimeout(resolve, 2000);
    connection.addEventListener("icegatheringstatechange", () => connection.iceGatheringState === "complete" && resolve());
  });
}

export class LiveSession extends EventTarget {
  static async open({ portrait, mode, microphone }) {
    const info = await api.createSession(portrait, mode);
    const session = new LiveSession(info);
    try {
      await session.#connect(microphone);
    } catch (error) {
      session.close();
      throw error;
    }
    return session;
  }

  constructor(info) {
    super();
    this.info = info;
    this.stream = new MediaStream();
    this.connection = new RTCPeerConnection({ iceServers: info.ice_servers });
    this.closed = false;
  }

  async #connect(microphone) {
    const { connection } = this;
    connection.addEventListener("track", ({ track, receiver }) => {
      if (track.kind === "video" && "jitterBufferTarget" in receiver) receiver.jitterBufferTarget = VIDEO_BUFFER_MS;
      this.stream.addTrack(track);
      this.#emit("track", track);
    });
    connection.addEventListener("connectionstatechange", () => {
      if (["failed", "disconnected"].includes(connection.connectionState)) this.#lost("The connection to the server was lost.");
    });
    const track = microphone?.getAudioTracks()[0];
    if (track) connection.addTransceiver(track, { direction: "sendrecv", streams: [microphone] });
    else connection.addTransceiver("audio", { direction: "recvonly" });
    preferH264(connection.addTransceiver("video", { direction: "recvonly" }));
    await connection.setLocalDescription(await connection.createOffer());
    await gathered(connection);
    const answer = await api.sendOffer(this.info, connection.localDescription);
    await connection.setRemoteDescription(answer);
    this.#listen();
  }

  #listen() {
    this.socket = api.eventSocket(this.info);
    this.socket.addEventListener("message", ({ data }) => {
      const event = JSON.parse(data);
      this.#emit("event", event);
      if (event.type === "bye") this.#ended(byeText(event.reason));
    });
    this.socket.addEventListener("close", () => this.#lost("The server ended the session."));
    this.heartbeat = setInterval(() => this.socket.readyState === WebSocket.OPEN && this.socket.send('{"type":"ping"}'), HEARTBEAT_MS);
  }

  interrupt() {
    return api.interrupt(this.info);
  }

  speak(file) {
    return api.speak(this.info, file);
  }

  close() {
    if (this.closed) return;
    this.#end();
    // The server hangs up by itself; hanging up first would end the session before it is told to.
    api.endSession(this.info).finally(() => this.connection.close());
  }

  #end() {
    this.closed = true;
    clearInterval(this.heartbeat);
    this.socket?.close();
  }

  #lost(reason) {
    if (this.closed) return;
    this.close();
    this.#emit("lost", reason);
  }

  // The server said that the session is over: there is nothing left to delete.
  #ended(reason) {
    if (this.closed) return;
    this.#end();
    this.connection.close();
    this.#emit("lost", reason);
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

function byeText(reason) {
  const texts = { server_shutdown: "The server is shutting down.", heartbeat_lost: "The server did not hear from this page for ten seconds." };
  return texts[reason] ?? "The server ended the session.";
}
