"""One WebRTC peer: the avatar's picture and voice out, as packets encoded here; the microphone in.

Sound is encoded and queued at once; pictures go through one worker task and the encoder threads, so that a slow encode never delays
sound. Both tracks take their timestamps from the unit's index and start at 0.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import numpy as np
from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpCodecCapability,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.exceptions import InternalError, InvalidAccessError, InvalidStateError, OperationError

from model.geometry import Geometry
from streamer import aiortc_compat
from streamer.aiortc_compat import MediaOrigin, SenderHooks
from streamer.encode import H264Encoder, OpusEncoder, VideoEncoder, Vp8Encoder, encoder_executor
from streamer.errors import Conflict, SignalingError
from streamer.media import MediaUnit
from streamer.mic import MicReceiver
from streamer.sdp import checked_offer, offered_kinds, video_codec
from streamer.tracks import PacketTrack

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
_VIDEO_BACKLOG = 4  # units that wait for the encoder before the oldest are skipped
# aiortc's parser reports bad descriptions through any of these; a RuntimeError is a StopIteration of it inside a coroutine.
BAD_OFFER = (
    ValueError, LookupError, AttributeError, TypeError, AssertionError, RuntimeError,
    InternalError, InvalidAccessError, InvalidStateError, OperationError,
)  # fmt: skip
_BASELINE = ("42e01f", "42001f")


class Peer:
    """`on_mic(index, samples)`: 48 kHz index since the first packet, int16 mono. `on_state`: aiortc's connection states.
    `on_alive` is called for every packet the peer sends, RTP or RTCP."""

    def __init__(
        self, *, ice_servers: list[str], geometry: Geometry, on_mic: Callable[[int, np.ndarray], None],
        on_state: Callable[[str], None], session_id: str, on_alive: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        aiortc_compat.check_version()
        self._geometry = geometry
        self._on_state, self._on_alive = on_state, on_alive
        self._session_id = session_id
        # An explicit list, even an empty one: the default asks a public STUN server.
        servers = [RTCIceServer(urls=url) for url in ice_servers]
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._connection.on("connectionstatechange", self._state_changed)
        self._mic = MicReceiver(on_mic)
        self._audio_track, self._video_track = PacketTrack("audio", 25), PacketTrack("video", 25)
        origin = MediaOrigin()
        self._audio_hooks = SenderHooks(origin, lambda: None, lambda bps: None, on_alive)
        self._video_hooks = SenderHooks(origin, self.request_keyframe, self._set_bitrate, on_alive)
        self._opus = OpusEncoder()
        self._video: VideoEncoder | None = None
        self._pending: deque[MediaUnit] = deque(maxlen=_VIDEO_BACKLOG)
        self._wake = asyncio.Event()
        self._last_frame: np.ndarray | None = None
        self._keyframe_wanted = False
        self._encoding: asyncio.Task[None] | None = None
        self._answered = False
        self._closed = False
        self.bitrate_kbps: int | None = None
        self.video_codec: str | None = None

    @property
    def rtt_ms(self) -> float | None:
        rtt_s = self._video_hooks.rtt_s or self._audio_hooks.rtt_s
        return None if rtt_s is None else round(rtt_s * 1000, 1)

    @property
    def packets_lost(self) -> int:
        return self._audio_hooks.packets_lost + self._video_hooks.packets_lost

    @property
    def mic_packets_lost(self) -> int:
        return self._mic.lost

    async def answer(self, sdp: str, type_: str) -> tuple[str, str]:
        """Answer of (sdp, "answer"). Raises SignalingError for a bad offer, Conflict for a second one."""
        if self._answered:
            raise Conflict("already_answered", "this session has its peer already", "Create another session for another peer.")
        self._answered = True
        offer = checked_offer(sdp, type_)
        try:
            return await asyncio.wait_for(self._negotiate(offer), ANSWER_TIMEOUT_S)
        except TimeoutError:
            raise SignalingError("ice_timeout", "no network candidates in time", "Check the ICE servers.") from None
        except BAD_OFFER as error:
            raise SignalingError("bad_sdp", f"the offer cannot be answered ({error})", "Send localDescription as it is.") from error

    async def _negotiate(self, offer: str) -> tuple[str, str]:
        connection = self._connection
        # aiortc cannot answer with a track that the offer has no section for; who wants no sound gets the picture alone.
        for track, hooks in ((self._audio_track, self._audio_hooks), (self._video_track, self._video_hooks)):
            if track.kind in offered_kinds(offer):
                aiortc_compat.adopt_sender(connection.addTrack(track), hooks)
        # Before the remote description: aiortc ignores preferences that come later.
        for transceiver in connection.getTransceivers():
            transceiver.setCodecPreferences(_preferred_codecs(transceiver.kind))
        await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        self._tap(connection.getTransceivers())
        await connection.setLocalDescription(await connection.createAnswer())
        answer = connection.localDescription
        self.video_codec = video_codec(answer.sdp)
        if self.video_codec is not None:
            self._video = H264Encoder(self._geometry) if self.video_codec == "H264" else Vp8Encoder(self._geometry)
            self._encoding = asyncio.create_task(self._encode_pictures())
        logger.info("session %s: answers with %s and Opus", self._session_id, self.video_codec)
        return answer.sdp, answer.type

    def _tap(self, transceivers: list[RTCRtpTransceiver]) -> None:
        microphone = next((t for t in transceivers if t.kind == "audio"), None)
        for transceiver in transceivers:
            if transceiver is microphone:
                aiortc_compat.tap_receiver(transceiver.receiver, self._mic_packet)
            else:
                aiortc_compat.silence_receiver(transceiver.receiver)

    def _mic_packet(self, sequence: int, timestamp: int, payload: bytes) -> None:
        self._on_alive()
        if payload:
            self._mic.push(sequence, timestamp, payload)

    async def send(self, unit: MediaUnit) -> None:
        """Queues one unit; never waits for the encoder or the network."""
        if self._closed:
            return
        for packet in self._opus.encode(unit.audio, unit.index):
            self._audio_track.put(packet)
        if self._video is not None:
            self._pending.append(unit)
            self._wake.set()

    def request_keyframe(self) -> None:
        self._keyframe_wanted = True

    def _set_bitrate(self, bits_per_second: int) -> None:
        self.bitrate_kbps = bits_per_second // 1000
        if self._video is not None:
            self._video.set_kbps(int(self.bitrate_kbps * 0.9))

    async def _encode_pictures(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._video is not None
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                unit = self._pending.popleft()
                self._last_frame = unit.frame if unit.frame is not None else self._last_frame
                if self._last_frame is None:
                    continue
                keyframe, self._keyframe_wanted = self._keyframe_wanted, False
                work = loop.run_in_executor(encoder_executor(), self._video.encode, self._last_frame, unit.index, keyframe)
                dropped = self._video_track.dropped
                for packet in await work:
                    self._video_track.put(packet)
                if self._video_track.dropped > dropped:
                    self.request_keyframe()  # what follows refers to what was dropped

    async def _state_changed(self) -> None:
        if not self._closed or self._connection.connectionState == "closed":
            self._on_state(self._connection.connectionState)

    async def close(self) -> None:
        """Idempotent; takes at most CLOSE_TIMEOUT_S."""
        if self._closed:
            return
        self._closed = True
        if self._encoding is not None:
            self._encoding.cancel()
            await asyncio.gather(self._encoding, return_exceptions=True)
        try:
            await asyncio.wait_for(self._connection.close(), CLOSE_TIMEOUT_S)
        except TimeoutError:
            logger.warning("session %s: its peer connection did not close in %.0f s", self._session_id, CLOSE_TIMEOUT_S)
        except AttributeError as error:
            # aiortc cannot close a data channel whose offer failed before it got a transport; nothing is connected then.
            logger.info("session %s: closed half set up (%s)", self._session_id, error)


def _preferred_codecs(kind: str) -> list[RTCRtpCodecCapability]:
    """H.264 constrained baseline first, because Safari needs it and its bitrate can be steered; then VP8. Opus alone for sound."""
    codecs = RTCRtpSender.getCapabilities(kind).codecs
    if kind == "audio":
        return [c for c in codecs if c.mimeType == "audio/opus"]

    def rank(codec: RTCRtpCodecCapability) -> int:
        profile = str(codec.parameters.get("profile-level-id", ""))
        if codec.mimeType == "video/H264":
            return _BASELINE.index(profile) if profile in _BASELINE else 2
        return {"video/VP8": 3, "video/rtx": 9}.get(codec.mimeType, 8)

    return sorted((c for c in codecs if rank(c) in (0, 1, 2, 3, 9)), key=rank)
