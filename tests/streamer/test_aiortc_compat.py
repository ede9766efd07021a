"""One test for every private name of aiortc that streamer/aiortc_compat.py touches."""

from __future__ import annotations

import asyncio

import aiortc
import pytest
from aiortc import RTCPeerConnection, RTCRtpSender
from aiortc.rtp import RtcpPsfbPacket, RtcpReceiverInfo, RtcpRrPacket, RtcpRtpfbPacket, RtpPacket, pack_remb_fci

from streamer import aiortc_compat
from streamer.aiortc_compat import ClockedSender, MediaOrigin, SenderHooks
from streamer.tracks import PacketTrack


class Heard:
    """Collects what the hooks report."""

    def __init__(self) -> None:
        self.keyframes = self.alive = 0
        self.remb: list[int] = []
        self.hooks = SenderHooks(MediaOrigin(), self._keyframe, self.remb.append, self._alive)

    def _keyframe(self) -> None:
        self.keyframes += 1

    def _alive(self) -> None:
        self.alive += 1


@pytest.fixture
async def sender():  # type: ignore[no-untyped-def]
    connection = RTCPeerConnection()
    yield connection.addTrack(PacketTrack("video", 4))
    await connection.close()


def test_this_version_is_supported() -> None:
    aiortc_compat.check_version()


def test_another_version_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiortc, "__version__", "1.9.0")
    with pytest.raises(RuntimeError, match="constraints.txt"):
        aiortc_compat.check_version()


def test_a_missing_private_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(RTCRtpSender, "_send_keyframe")
    with pytest.raises(RuntimeError, match="_send_keyframe"):
        aiortc_compat.check_version()


def test_both_tracks_share_one_origin() -> None:
    origin = MediaOrigin()
    first = origin.ntp_of(1.0)
    assert origin.ntp_of(3.5) - first == pytest.approx(2.5 * 2**32, abs=2)


async def test_reported_time_is_media_time(sender: RTCRtpSender) -> None:
    """What aiortc stores as the moment of sending has no effect on the report."""
    heard = Heard()
    aiortc_compat.adopt_sender(sender, heard.hooks)
    assert isinstance(sender, ClockedSender)
    sender._media_ntp = 1234
    sender._RTCRtpSender__ntp_timestamp = 99
    assert sender._RTCRtpSender__ntp_timestamp == 1234


async def test_feedback_reaches_the_encoder(sender: RTCRtpSender) -> None:
    """PLI asks for a keyframe, REMB gives a bitrate, reports give loss, everything is a sign of life."""
    heard = Heard()
    aiortc_compat.adopt_sender(sender, heard.hooks)
    ssrc = sender._ssrc
    await sender._handle_rtcp_packet(RtcpPsfbPacket(fmt=1, ssrc=1, media_ssrc=ssrc))
    await sender._handle_rtcp_packet(RtcpPsfbPacket(fmt=15, ssrc=1, media_ssrc=0, fci=pack_remb_fci(640_000, [ssrc])))
    await sender._handle_rtcp_packet(RtcpPsfbPacket(fmt=15, ssrc=1, media_ssrc=0, fci=b"no REMB"))
    await sender._handle_rtcp_packet(RtcpRtpfbPacket(fmt=1, ssrc=1, media_ssrc=ssrc, lost=[]))
    info = RtcpReceiverInfo(ssrc=ssrc, fraction_lost=64, packets_lost=7, highest_sequence=1, jitter=0, lsr=0, dlsr=0)
    report = RtcpRrPacket(ssrc=1, reports=[info])
    sender.transport._stats_id = "t"
    await sender._handle_rtcp_packet(report)
    assert heard.keyframes == 1
    assert heard.remb == [pytest.approx(640_000, rel=0.01)]
    assert (heard.hooks.fraction_lost, heard.hooks.packets_lost) == (0.25, 7)
    assert heard.alive == 5


async def test_tapped_and_silenced_receivers_queue_nothing() -> None:
    """Packets of the microphone are handed on undecoded; packets of a track nobody reads are discarded."""
    connection = RTCPeerConnection()
    microphone, unread = connection.addTransceiver("audio"), connection.addTransceiver("video")
    got: list[tuple[int, int, bytes]] = []
    aiortc_compat.tap_receiver(microphone.receiver, lambda *packet: got.append(packet))
    packet = RtpPacket(sequence_number=5, timestamp=960, payload=b"opus")
    packet._data = b"opus"
    assert microphone.receiver._RTCRtpReceiver__jitter_buffer.add(packet) == (False, None)
    assert got == [(5, 960, b"opus")]
    aiortc_compat.silence_receiver(unread.receiver)
    await unread.receiver._handle_rtp_packet(packet, arrival_time_ms=0)
    await asyncio.sleep(0)
    assert unread.receiver._RTCRtpReceiver__decoder_queue.empty()
    await connection.close()
