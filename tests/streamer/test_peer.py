"""The peer against real aiortc clients: codecs, clocks, keyframes, the microphone under loss, and what it leaves behind."""

from __future__ import annotations

import asyncio
import fractions
import gc
import os
import threading

import av
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from aiortc.rtp import RtcpPsfbPacket, RtcpSrPacket

from model.geometry import Geometry
from streamer.errors import Conflict, SignalingError
from streamer.media import MediaUnit
from streamer.mic import MicReceiver
from streamer.peer import Peer

GEOMETRY = Geometry()


def unit(index: int, with_frame: bool = True) -> MediaUnit:
    frame = np.full(GEOMETRY.i420_shape, 128, dtype=np.uint8)
    frame[:256] = (np.arange(256, dtype=np.int64)[None] + index * 3) % 200 + 20
    sound = (8000 * np.sin(2 * np.pi * 400 * (np.arange(1920) + index * 1920) / 48_000)).astype(np.int16)
    return MediaUnit(index, 0, frame if with_frame else None, sound)


class Client:
    """A browser-like aiortc peer that receives both tracks and may speak."""

    def __init__(self, *, speaks: bool = False, codec: str | None = None, kinds: tuple[str, ...] = ("audio", "video")) -> None:
        self.connection = RTCPeerConnection()
        self.frames: list[av.VideoFrame] = []
        self.sound: list[av.AudioFrame] = []
        self.connection.on("track", self._collect)
        self._tasks: list[asyncio.Task[None]] = []
        if speaks:
            self.connection.addTrack(AudioStreamTrack())
        elif "audio" in kinds:
            self.connection.addTransceiver("audio", direction="recvonly")
        video = self.connection.addTransceiver("video", direction="recvonly") if "video" in kinds else None
        if video and codec:
            video.setCodecPreferences([c for c in RTCRtpReceiver.getCapabilities("video").codecs if c.mimeType == codec])

    def _collect(self, track) -> None:  # type: ignore[no-untyped-def]
        async def read() -> None:
            while True:
                (self.frames if track.kind == "video" else self.sound).append(await track.recv())

        self._tasks.append(asyncio.create_task(read()))

    async def connect(self, peer: Peer) -> None:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        sdp, type_ = await peer.answer(self.connection.localDescription.sdp, "offer")
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, type_))
        for _ in range(200):
            if self.connection.connectionState == "connected":
                return
            await asyncio.sleep(0.02)
        raise AssertionError("not connected")

    async def close(self) -> None:
        await self.connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def make_peer(**changes) -> Peer:  # type: ignore[no-untyped-def]
    defaults = {"ice_servers": [], "geometry": GEOMETRY, "on_mic": lambda i, s: None, "on_state": lambda s: None, "session_id": "t"}
    return Peer(**(defaults | changes))


async def play(peer: Peer, count: int, first: int = 0) -> None:
    for index in range(first, first + count):
        await peer.send(unit(index, with_frame=index % 3 != 2))
        await asyncio.sleep(0.04)


@pytest.mark.parametrize(("codec", "name"), [(None, "H264"), ("video/VP8", "VP8")])
async def test_pictures_and_sound_arrive(codec: str | None, name: str) -> None:
    """H.264 is chosen when the client has it, VP8 otherwise; frames and sound come through, repeats included."""
    peer, client = make_peer(), Client(codec=codec)
    await client.connect(peer)
    assert peer.video_codec == name
    await play(peer, 30)
    assert len(client.frames) >= 24
    assert client.frames[-1].width == 256
    loud = np.concatenate([f.to_ndarray().reshape(-1) for f in client.sound[5:]])
    assert np.abs(loud).max() > 4000
    await client.close()
    await peer.close()


@pytest.mark.parametrize("kind", ["audio", "video"])
async def test_half_an_offer_gets_that_half(kind: str) -> None:
    """A screen without loudspeakers asks for the picture alone, a telephone for the sound."""
    peer, client = make_peer(), Client(kinds=(kind,))
    await client.connect(peer)
    await play(peer, 15)
    assert (len(client.frames) > 8, len(client.sound) > 8) == (kind == "video", kind == "audio")
    await client.close()
    await peer.close()


async def test_one_keyframe_unless_asked_for() -> None:
    """A picture-loss report brings an IDR within two frames; nothing else does."""
    peer, client = make_peer(), Client()
    await client.connect(peer)
    keyframes: list[int] = []
    put = peer._video_track.put

    def spy(packet: av.Packet) -> None:
        if packet.is_keyframe:
            keyframes.append(packet.pts // 3600)
        put(packet)

    peer._video_track.put = spy  # type: ignore[method-assign]
    await play(peer, 20)
    assert keyframes == [0]
    sender = next(s for s in peer._connection.getSenders() if s.kind == "video")
    await sender._handle_rtcp_packet(RtcpPsfbPacket(fmt=1, ssrc=1, media_ssrc=sender._ssrc))
    await play(peer, 10, first=20)
    assert keyframes[0] == 0 and len(keyframes) == 2 and keyframes[1] <= 22
    await client.close()
    await peer.close()


async def test_sender_reports_follow_the_media_clock() -> None:
    """A picture sent 200 ms late is still reported at its own place in time, beside its sound."""
    peer, client = make_peer(), Client()
    await client.connect(peer)
    reports: dict[str, list[tuple[int, int]]] = {"audio": [], "video": []}
    for sender in peer._connection.getSenders():
        send_rtcp = sender._send_rtcp

        async def spy(packets, kind=sender.kind, send_rtcp=send_rtcp) -> None:  # type: ignore[no-untyped-def]
            for packet in packets:
                if isinstance(packet, RtcpSrPacket):
                    reports[kind].append((packet.sender_info.ntp_timestamp, packet.sender_info.rtp_timestamp))
            await send_rtcp(packets)

        sender._send_rtcp = spy
    for index in range(60):
        await peer.send(unit(index))
        await asyncio.sleep(0.04 if index % 10 else 0.2)
    for kind, rate in (("audio", 48_000), ("video", 90_000)):
        (first_ntp, first_rtp), *_, (last_ntp, last_rtp) = reports[kind]
        media_s = ((last_rtp - first_rtp) & 0xFFFFFFFF) / rate
        assert media_s > 0.3
        assert (last_ntp - first_ntp) / 2**32 == pytest.approx(media_s, abs=1e-6)
    assert peer._video_hooks.origin is peer._audio_hooks.origin
    await client.close()
    await peer.close()


async def test_bad_offers_are_refused_and_a_second_one_conflicts() -> None:
    with pytest.raises(SignalingError):
        await make_peer().answer("v=0\r\nm=audio nonsense\r\n", "offer")
    peer, client = make_peer(), Client()
    await client.connect(peer)
    with pytest.raises(Conflict):
        await peer.answer(client.connection.localDescription.sdp, "offer")
    await client.close()
    await peer.close()


async def test_no_server_is_asked_for_candidates_unless_one_is_named() -> None:
    """The library's default would ask a public STUN server, and wait for it."""
    peer, client = make_peer(ice_servers=[]), RTCPeerConnection(RTCConfiguration(iceServers=[]))
    client.addTransceiver("video", direction="recvonly")
    await client.setLocalDescription(await client.createOffer())
    async with asyncio.timeout(1.0):
        answer, _ = await peer.answer(client.localDescription.sdp, "offer")
    candidates = [line for line in answer.splitlines() if line.startswith("a=candidate:")]
    assert candidates and all(" typ host" in line for line in candidates)
    await client.close()
    await peer.close()


async def test_damaged_offers_are_answered_or_refused_and_leave_nothing_open() -> None:
    """A browser's offer with lines missing, cut and mixed up: never another error than SignalingError, never an open socket."""
    browser = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    browser.addTrack(AudioStreamTrack())
    browser.addTransceiver("video", direction="recvonly")
    browser.createDataChannel("chat")
    await browser.setLocalDescription(await browser.createOffer())
    lines = browser.localDescription.sdp.split("\r\n")
    await browser.close()
    random = np.random.default_rng(5)
    answered = 0
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(60):
        damaged = list(lines)
        for _ in range(random.integers(1, 4)):
            at = int(random.integers(len(damaged)))
            half, other = damaged[at][: len(damaged[at]) // 2], str(random.choice(lines))
            damaged[at : at + 1] = ([], [half], [damaged[at], other])[random.integers(3)]
        peer = make_peer()
        try:
            await peer.answer("\r\n".join(damaged), "offer")
            answered += 1
        except SignalingError as error:
            assert error.code in ("bad_sdp", "sdp_without_media")
        finally:
            await peer.close()
    assert 0 < answered < 60
    assert len(os.listdir("/proc/self/fd")) <= before + 1


async def test_microphone_arrives_with_its_sample_index() -> None:
    heard: list[tuple[int, int]] = []
    peer = make_peer(on_mic=lambda index, samples: heard.append((index, len(samples))))
    client = Client(speaks=True)
    await client.connect(peer)
    await asyncio.sleep(0.6)
    assert len(heard) > 15
    assert heard[0][0] == 0
    assert all(b[0] == a[0] + a[1] for a, b in zip(heard, heard[1:], strict=False))
    await client.close()
    await peer.close()


def opus_packets(count: int) -> list[bytes]:
    codec = av.CodecContext.create("libopus", "w")
    codec.sample_rate, codec.format, codec.layout, codec.time_base = 48_000, "s16", "mono", fractions.Fraction(1, 48_000)
    codec.open()
    out = []
    for i in range(count):
        samples = (9000 * np.sin(2 * np.pi * 300 * (np.arange(960) + i * 960) / 48_000)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, i * 960
        out += [bytes(p) for p in codec.encode(frame)]
    return out


def test_lost_packets_leave_holes_of_their_own_size_and_no_delay() -> None:
    """3 % loss: exactly the lost packets are missing, and afterwards every packet comes out as it goes in."""
    heard: list[int] = []
    mic = MicReceiver(lambda index, samples: heard.append(index // 960))
    packets = opus_packets(200)
    lost = set(np.random.default_rng(3).choice(np.arange(5, 190), 6, replace=False).tolist())
    waits = []
    for i, payload in enumerate(packets):
        if i not in lost:
            mic.push((65_530 + i) & 0xFFFF, (2**32 - 5000 + i * 960) & 0xFFFFFFFF, payload)
            waits.append(i - heard[-1] if heard else 0)
    assert sorted(set(range(200)) - set(heard)) == sorted(lost)
    assert mic.lost == len(lost)
    assert max(waits) <= 4 and waits[-1] == 0  # under 80 ms


def test_reordered_packets_come_out_in_order() -> None:
    heard: list[int] = []
    mic = MicReceiver(lambda index, samples: heard.append(index // 960))
    packets = opus_packets(10)
    for i in (0, 2, 1, 3, 5, 4, 6, 7, 9, 8):
        mic.push(i, i * 960, packets[i])
    assert heard == list(range(10))


async def test_peers_leave_nothing_behind() -> None:
    """Thirty connections opened and closed: threads, descriptors and tasks are where they were."""

    async def once() -> None:
        peer, client = make_peer(), Client(speaks=True)
        await client.connect(peer)
        await peer.send(unit(0))
        await client.close()
        await peer.close()

    async def counts() -> tuple[int, int, int]:
        await asyncio.sleep(0.3)
        gc.collect()
        return threading.active_count(), len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())

    for _ in range(3):
        await once()
    before = await counts()
    for _ in range(10):
        await once()
    after = await counts()
    assert all(b <= a + 1 for a, b in zip(before, after, strict=True)), (before, after)
