"""The parts of the media plane that know no sockets: time line, turns, playout, bar code, session descriptions."""

from __future__ import annotations

import numpy as np
import pytest

from model.geometry import MEDIA_RATE
from streamer.errors import SignalingError
from streamer.media import draw_barcode, read_barcode
from streamer.playout import Playout
from streamer.sdp import checked_offer, video_codec
from streamer.timeline import FADE_SAMPLES, AudioTimeline
from streamer.turns import TurnDetector


def tone(hz: float, count: int, rate: int = MEDIA_RATE, start: int = 0) -> np.ndarray:
    return (10_000 * np.sin(2 * np.pi * hz * (start + np.arange(count)) / rate)).astype(np.int16)


def test_out_of_order_writes_read_back_in_place() -> None:
    timeline = AudioTimeline()
    sound = tone(440, 4000)
    timeline.write(2000, sound[2000:])
    assert timeline.complete_until() == 0
    timeline.write(0, sound[:2000])
    assert timeline.complete_until() == 4000
    assert np.array_equal(timeline.read(0, 4000), sound)


def test_packets_for_what_was_played_are_dropped() -> None:
    timeline = AudioTimeline()
    timeline.read(0, 1000)
    timeline.write(500, np.full(1000, 7, dtype=np.int16))
    assert timeline.read(1000, 1500).tolist() == [7] * 500


def test_concealed_holes_fade_instead_of_clicking() -> None:
    timeline = AudioTimeline()
    timeline.write(0, np.full(2000, 8000, dtype=np.int16))
    timeline.write(3000, np.full(2000, 8000, dtype=np.int16))
    timeline.conceal_until(4000)
    assert timeline.complete_until() == 5000
    sound = timeline.read(0, 5000).astype(int)
    assert not sound[2000:3000].any()
    assert np.abs(np.diff(sound)).max() < 100


def test_interrupt_fades_to_silence_within_5_ms() -> None:
    timeline = AudioTimeline()
    timeline.write(0, np.full(48_000 * 3, 8000, dtype=np.int16))
    timeline.clear_after(10_000)
    sound = timeline.read(0, 48_000 * 3).astype(int)
    assert (sound[:10_000] == 8000).all()
    assert not sound[10_000 + FADE_SAMPLES :].any()
    assert np.abs(np.diff(sound)).max() < 100


def test_model_rate_is_sample_exact_and_the_same_in_chunks() -> None:
    """16 kHz sample n stands for 48 kHz sample 3n, and chunk borders leave no trace."""
    timeline = AudioTimeline()
    timeline.write(0, tone(1000, 48_000))
    whole = timeline.read_model(0, 16_000)
    parts = np.concatenate([timeline.read_model(i, i + 320) for i in range(0, 16_000, 320)])
    assert np.array_equal(whole, parts)
    expected = tone(1000, 16_000, rate=16_000)
    assert np.abs(whole[100:-100].astype(int) - expected[100:-100]).max() < 20


def test_frequencies_the_model_cannot_hear_are_filtered_out() -> None:
    timeline = AudioTimeline()
    timeline.write(0, tone(11_000, 48_000))
    assert np.abs(timeline.read_model(1000, 15_000)).max() < 100


def test_memory_of_a_long_session_is_bounded() -> None:
    timeline = AudioTimeline()
    for second in range(120):
        timeline.write(second * MEDIA_RATE, np.ones(MEDIA_RATE, dtype=np.int16))
        timeline.read(second * MEDIA_RATE, (second + 1) * MEDIA_RATE)
    assert len(timeline._blocks) <= 12


def test_silence_and_noise_are_no_turn_and_a_voice_is() -> None:
    rng = np.random.default_rng(0)
    quiet = TurnDetector()
    quiet.push((rng.normal(0, 20, 16_000)).astype(np.int16))
    assert not quiet.speaking
    t = np.arange(16_000) / 16_000
    voice = sum(np.sin(2 * np.pi * 120 * k * t) * np.exp(-((120 * k - f) ** 2) / 8e4) for k in range(1, 30) for f in (600, 1200))
    voiced = TurnDetector()
    voiced.push((voice / np.abs(voice).max() * 12_000).astype(np.int16))
    assert voiced.speaking
    voiced.push(np.zeros(16_000 // 1000 * 380, dtype=np.int16))
    assert voiced.speaking
    voiced.push(np.zeros(1600, dtype=np.int16))
    assert not voiced.speaking


def frames(value: int) -> np.ndarray:
    return np.full((4, 6, 4), value, dtype=np.uint8)


def test_playout_repeats_what_is_missing_and_drops_what_is_late() -> None:
    playout = Playout(AudioTimeline(), 4)
    playout.put_frames(0, 0, frames(1))
    units = [playout.next_unit(i) for i in range(6)]
    assert [u.frame is None for u in units] == [False] * 4 + [True] * 2
    playout.put_frames(1, 0, frames(2))
    assert playout.late_dropped == 2 and playout.repeated == 2
    assert playout.next_unit(6).frame is not None


def test_interrupt_keeps_the_latent_on_screen_and_drops_the_rest() -> None:
    playout = Playout(AudioTimeline(), 4)
    for chunk in range(3):
        playout.put_frames(chunk, 0, frames(chunk))
    playout.next_unit(0)
    playout.interrupt(1, 0)
    playout.put_frames(2, 0, frames(9))  # computed for the past epoch
    playout.put_frames(1, 1, frames(5))
    shown = [playout.next_unit(i) for i in range(1, 12)]
    assert [None if u.frame is None else int(u.frame[0, 0]) for u in shown] == [0, 0, 0, 5, 5, 5, 5, None, None, None, None]
    assert {u.epoch for u in shown} == {1}


def test_a_chunk_on_screen_is_finished_however_long_it_is() -> None:
    """The published presets' chunks are longer than a latent frame."""
    playout = Playout(AudioTimeline(), 12)
    for chunk in range(2):
        playout.put_frames(chunk, 0, np.full((12, 6, 4), chunk, dtype=np.uint8))
    playout.next_unit(0)
    playout.interrupt(1, 0)
    shown = [playout.next_unit(i).frame is not None for i in range(1, 14)]
    assert shown == [True] * 11 + [False] * 2


def test_barcode_survives() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (384, 256)).astype(np.uint8)
    draw_barcode(frame, 0xABCDE)
    assert read_barcode(frame[:256]) == 0xABCDE
    assert read_barcode(np.full((256, 256), 128, dtype=np.uint8)) is None


@pytest.mark.parametrize(
    ("sdp", "type_", "code"),
    [
        ("garbage", "offer", "bad_sdp"),
        ("v=0\r\n", "offer", "sdp_without_media"),
        ("v=0", "answer", "not_an_offer"),
        ("v=0" * 99_999, "offer", "sdp_too_large"),
    ],
)
def test_bad_offers_are_named(sdp: str, type_: str, code: str) -> None:
    with pytest.raises(SignalingError) as raised:
        checked_offer(sdp, type_)
    assert raised.value.code == code


def test_unresolvable_candidates_are_dropped() -> None:
    candidates = "a=candidate:1 1 udp 1 abc.local 5 typ host\r\na=candidate:2 1 udp 1 10.0.0.1 5 typ host\r\n"
    sdp = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n" + candidates
    cleaned = checked_offer(sdp, "offer")
    assert ".local" not in cleaned and "10.0.0.1" in cleaned


def test_codec_of_an_answer() -> None:
    video = "m=video 9 UDP/TLS/RTP/SAVPF 99 97\r\na=rtpmap:97 VP8/90000\r\na=rtpmap:99 H264/90000\r\n"
    sdp = "v=0\r\nm=audio 9 X 96\r\na=rtpmap:96 opus/48000/2\r\n" + video
    assert video_codec(sdp) == "H264"
    assert video_codec(sdp.replace("m=video 9", "m=video 0")) is None
