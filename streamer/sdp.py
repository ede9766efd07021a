"""What is read from and changed in session descriptions. Pure text functions."""

from __future__ import annotations

import re

from streamer.errors import SignalingError

_MAX_SDP = 64 * 1024
_HINT = "Send the SDP of RTCPeerConnection.localDescription as it is."


def checked_offer(sdp: str, type_: str) -> str:
    """The offer without candidates that cannot be resolved. Raises SignalingError for what is no offer of media.

    Host names ending in `.local` (mDNS) would block the answer for a second each; the peer is found through its own checks.
    """
    if type_ != "offer":
        raise SignalingError("not_an_offer", f"type is {type_!r}, not 'offer'", "POST the offer; the answer comes back.")
    if len(sdp) > _MAX_SDP:
        raise SignalingError("sdp_too_large", f"the SDP has {len(sdp)} characters, {_MAX_SDP} are allowed", _HINT)
    if not sdp.startswith("v=0"):
        raise SignalingError("bad_sdp", "this is no session description", _HINT)
    if not re.search(r"^m=(audio|video) ", sdp, re.MULTILINE):
        raise SignalingError("sdp_without_media", "the offer has neither sound nor video", "Add a video and an audio transceiver.")
    lines = sdp.replace("\r\n", "\n").split("\n")
    kept = [line for line in lines if not (line.startswith("a=candidate:") and ".local " in line)]
    return "\r\n".join(kept)


def offered_kinds(sdp: str) -> set[str]:
    """Which of sound and video the offer has a section for."""
    return set(re.findall(r"^m=(audio|video) ", sdp, re.MULTILINE))


def video_codec(answer: str) -> str | None:
    """Upper-case name of the codec the answer puts first for video, None without video."""
    media = re.search(r"^m=video (\d+) \S+ (\d+)(?:.*?)$(.*?)(?=^m=|\Z)", answer.replace("\r\n", "\n"), re.MULTILINE | re.DOTALL)
    if media is None or media.group(1) == "0":
        return None
    name = re.search(rf"^a=rtpmap:{media.group(2)} ([A-Za-z0-9-]+)/", media.group(3), re.MULTILINE)
    return name.group(1).upper() if name else None
