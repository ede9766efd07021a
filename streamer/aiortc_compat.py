"""Every touch of what aiortc does not publish, in one place, each with a test in tests/streamer/test_aiortc_compat.py.

Three things have no public way: sender reports that follow the media clock instead of the moment of sending (otherwise a late
packet is baked in as an offset between lips and voice), keyframe requests and bandwidth estimates reaching our own encoder, and a
microphone without the built-in 80-280 ms jitter buffer. Written against aiortc 1.16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiortc
from aiortc import RTCRtpReceiver, RTCRtpSender, clock
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    RtpPacket,
    unpack_remb_fci,
)

_TESTED = (1, 16)
_NTP_SECOND = 1 << 32
_PRIVATE = {
    RTCRtpSender: ("_next_encoded_frame", "_handle_rtcp_packet", "_send_keyframe"),
    RTCRtpReceiver: ("_handle_rtp_packet",),
}


def check_version() -> None:
    """Raises RuntimeError that says what to do when aiortc is not the one this file was written against."""
    version = tuple(int(part) for part in aiortc.__version__.split(".")[:2])
    missing = [f"{cls.__name__}.{name}" for cls, names in _PRIVATE.items() for name in names if not hasattr(cls, name)]
    if version < _TESTED or missing:
        raise RuntimeError(
            f"aiortc {aiortc.__version__} is not supported ({', '.join(missing) or 'too old'}): "
            "install the version in constraints.txt, or adapt streamer/aiortc_compat.py"
        )


class MediaOrigin:
    """NTP time of media time 0, shared by both tracks of a peer; fixed by whichever sends first."""

    def __init__(self) -> None:
        self._ntp: int | None = None

    def ntp_of(self, media_s: float) -> int:
        """64-bit NTP timestamp of a moment on the media clock."""
        if self._ntp is None:
            self._ntp = clock.current_ntp_time() - int(media_s * _NTP_SECOND)
        return self._ntp + int(media_s * _NTP_SECOND)


@dataclass(slots=True)
class SenderHooks:
    """What a sender tells its peer."""

    origin: MediaOrigin
    on_keyframe: Callable[[], None]
    on_remb: Callable[[int], None]
    on_alive: Callable[[], None]
    rtt_s: float | None = None
    fraction_lost: float = 0.0
    packets_lost: int = 0
    nacks: int = 0


class ClockedSender(RTCRtpSender):
    """An RTCRtpSender whose reports pair RTP time with media time. Existing senders are turned into one by `adopt_sender`."""

    hooks: SenderHooks
    _media_ntp: int

    @property
    def _RTCRtpSender__ntp_timestamp(self) -> int:
        return self._media_ntp

    @_RTCRtpSender__ntp_timestamp.setter
    def _RTCRtpSender__ntp_timestamp(self, value: int) -> None:
        """aiortc stores the moment of sending here, after each packet."""

    async def _next_encoded_frame(self, codec: Any) -> Any:
        frame = await super()._next_encoded_frame(codec)
        if frame is not None:
            self._media_ntp = self.hooks.origin.ntp_of(frame.timestamp / codec.clockRate)
        return frame

    def _send_keyframe(self) -> None:
        self.hooks.on_keyframe()

    async def _handle_rtcp_packet(self, packet: Any) -> None:
        hooks = self.hooks
        hooks.on_alive()
        if isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            try:
                hooks.on_remb(unpack_remb_fci(packet.fci)[0])
            except ValueError:
                return  # an application message of another kind
        elif isinstance(packet, RtcpRtpfbPacket):
            hooks.nacks += len(packet.lost)
        await super()._handle_rtcp_packet(packet)
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            for report in packet.reports:
                if report.ssrc == self._ssrc:
                    hooks.fraction_lost, hooks.packets_lost = report.fraction_lost / 256, report.packets_lost
            hooks.rtt_s = self._RTCRtpSender__rtt  # type: ignore[attr-defined]


def adopt_sender(sender: RTCRtpSender, hooks: SenderHooks) -> None:
    """Before the sender starts, that is before the local description is set."""
    sender.__class__ = ClockedSender
    assert isinstance(sender, ClockedSender)
    sender.hooks = hooks
    sender._media_ntp = clock.current_ntp_time()


class _Tap:
    """Stands in for a receiver's jitter buffer: hands packets on and never completes a frame, so nothing is decoded or queued."""

    def __init__(self, on_packet: Callable[[int, int, bytes], None]) -> None:
        self._on_packet = on_packet

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        self._on_packet(packet.sequence_number, packet.timestamp, packet._data)  # type: ignore[attr-defined]
        return False, None


def tap_receiver(receiver: RTCRtpReceiver, on_packet: Callable[[int, int, bytes], None]) -> None:
    """`on_packet(sequence, timestamp, payload)` for every RTP packet, in order of arrival; the track stays empty."""
    receiver._RTCRtpReceiver__jitter_buffer = _Tap(on_packet)  # type: ignore[attr-defined]


def silence_receiver(receiver: RTCRtpReceiver) -> None:
    """A track nobody reads would queue decoded frames without bound: discard its packets."""
    receiver._enabled = False
