"""The small sans-I/O parts of the control plane: clocks, tokens, pushed speech, activity, statistics, events, options."""

from __future__ import annotations

import io
import json
import wave
from pathlib import Path

import numpy as np
import pytest

from model.geometry import Geometry
from streamer.activity import AvatarActivity
from streamer.cli import build_parser, main, serve_config
from streamer.config import ServeConfig, SessionConfig, WorkerConfig, env_default, has_desktop
from streamer.errors import BadInput, Unauthorized
from streamer.event_hub import QUEUE_LENGTH, EventHub
from streamer.media import MediaUnit
from streamer.mic_clock import MicClock
from streamer.pacer import MAX_BACKLOG_S, Pacer
from streamer.pcm_input import PcmInput
from streamer.phase import start_shift_s
from streamer.schedule import Schedule
from streamer.session_stats import SessionStats
from streamer.speech_file import decode_speech
from streamer.sync_meter import SyncMeter
from streamer.tokens import SessionToken
from streamer.trace import Trace

PACKET = 960


def test_token_is_checked_and_ages_from_the_last_sign_of_life() -> None:
    """The right text passes until the time is over; a sign of life extends it."""
    text, token = SessionToken.issue(10.0, now_s=100.0)
    assert len(text) >= 43, "256 bits"
    token.check(text, 109.0)
    for presented, now_s, code in ((None, 101.0, "token_missing"), ("x", 101.0, "token_wrong"), (text, 110.0, "token_expired")):
        with pytest.raises(Unauthorized) as refused:
            token.check(presented, now_s)
        assert refused.value.code == code
    token.extend(108.0)
    token.check(text, 117.9)


def test_first_microphone_packet_ends_when_it_arrives() -> None:
    """The mapping is fixed by the first packet; jitter of later ones does not move it."""
    clock = MicClock()
    assert clock.place(0, PACKET, 48_000, may_move=True) == 48_000 - PACKET
    assert clock.place(PACKET, PACKET, 48_000 + 3 * PACKET, may_move=True) == 48_000


def test_slow_microphone_is_moved_in_silence_only() -> None:
    """A crystal that is 200 ppm slow makes every packet later; the mapping follows, but not while somebody speaks."""
    clock = MicClock()
    places: dict[bool, int] = {}
    for index in range(6000):
        arrival = int((index + 1) * PACKET * 1.0002)
        start = clock.place(index * PACKET, PACKET, arrival, may_move=index > 5000)
        places[index > 5000] = start - index * PACKET
    assert places[False] == 0
    assert places[True] == pytest.approx(6000 * PACKET * 0.0002, abs=48 * 20)
    assert clock.num_moves >= 1


def test_late_first_packet_is_repaired() -> None:
    """When the first packet was held up for 100 ms, the delay it caused is taken back in silence."""
    clock = MicClock()
    clock.place(0, PACKET, PACKET + 4800, may_move=True)
    for index in range(1, 300):
        start = clock.place(index * PACKET, PACKET, (index + 1) * PACKET, may_move=True)
    assert start == 299 * PACKET


def test_pushed_speech_is_resampled_and_held_until_there_is_enough() -> None:
    """The first 300 ms come out together; the end brings the rest; 16 kHz becomes 48 kHz."""
    pcm = PcmInput()
    pcm.start(16_000)
    piece = np.full(1600, 1000, dtype=np.int16).tobytes()
    lengths = [len(pcm.push(piece)) for _ in range(5)]
    assert lengths[:2] == [0, 0]
    assert sum(lengths[:4]) > 0
    assert sum(lengths) + len(pcm.end()) == pytest.approx(5 * 4800, abs=96)


def test_short_utterance_comes_with_its_end() -> None:
    """A word shorter than the held part is not lost."""
    pcm = PcmInput()
    pcm.start(24_000)
    assert len(pcm.push(bytes(2400))) == 0
    assert len(pcm.end()) == pytest.approx(2400, abs=96)
    assert len(pcm.end()) == 0


@pytest.mark.parametrize(
    ("started", "data", "code"),
    [
        pytest.param(False, b"\x00\x00", "pcm_without_start", id="no start"),
        pytest.param(True, b"\x00\x00\x00", "odd_pcm_length", id="half a sample"),
        pytest.param(True, bytes((1 << 20) + 2), "pcm_too_large", id="a megabyte and more"),
    ],
)
def test_bad_pcm(started: bool, data: bytes, code: str) -> None:
    """Each mistake has its code, and the utterance goes on after it."""
    pcm = PcmInput()
    if started:
        pcm.start(16_000)
    with pytest.raises(BadInput) as refused:
        pcm.push(data)
    assert refused.value.code == code
    pcm.start(16_000)
    pcm.push(b"\x00\x00")


def test_interrupted_utterance_is_dropped_until_the_next_start() -> None:
    """What its sender still pushes, the end included, is nothing."""
    pcm = PcmInput()
    pcm.start(16_000)
    pcm.interrupt()
    assert len(pcm.push(bytes(32_000))) == 0
    assert len(pcm.end()) == 0
    assert len(pcm.push(bytes(32_000))) == 0
    pcm.start(16_000)
    assert len(pcm.push(bytes(32_000))) > 0


class Voice:
    """A voice detector that says what the test sets."""

    def __init__(self) -> None:
        self.speaking = False

    def push(self, samples_16k: np.ndarray) -> None:
        pass


LOUD, QUIET = np.full(2560, 3000, dtype=np.int16), np.zeros(2560, dtype=np.int16)


def test_agent_speaks_while_there_is_sound_and_bridges_pauses() -> None:
    """Silence inside pushed speech counts as speaking for 400 ms; without speech the user decides."""
    user = Voice()
    activity = AvatarActivity("agent", Voice(), user)
    chunks = [LOUD, QUIET, QUIET, QUIET, LOUD]
    states = [activity.of_chunk(chunk, has_pushed_speech=True) for chunk in chunks]
    assert states == ["speaking", "speaking", "speaking", "idle", "speaking"]
    user.speaking = True
    assert activity.of_chunk(QUIET, has_pushed_speech=False) == "listening"


def test_mirror_follows_the_voice_detector() -> None:
    """Loud noise that is no voice leaves the avatar idle."""
    voice = Voice()
    activity = AvatarActivity("mirror", voice, Voice())
    assert activity.of_chunk(LOUD, has_pushed_speech=False) == "idle"
    voice.speaking = True
    assert activity.of_chunk(LOUD, has_pushed_speech=False) == "speaking"


def test_barge_in_needs_200_ms_while_the_avatar_speaks() -> None:
    """It is reported once; speech before the avatar began does not count."""
    user = Voice()
    user.speaking = True
    activity = AvatarActivity("agent", Voice(), user)
    packet = np.zeros(320, dtype=np.int16)
    assert not any(activity.hear_user(packet, avatar_speaking=False) for _ in range(50))
    assert [activity.hear_user(packet, avatar_speaking=True) for _ in range(20)].index(True) == 9
    assert not activity.hear_user(packet, avatar_speaking=True)


def test_new_session_starts_where_its_steps_collide_with_nobody() -> None:
    """80 ms steps of two sessions take turns; a third one finds no place and starts at once."""
    assert start_shift_s(0.0, [], 0.16, 0.08) == 0.0
    assert start_shift_s(0.0, [10.0 * 0.16], 0.16, 0.08) == pytest.approx(0.08)
    assert start_shift_s(0.05, [0.13], 0.16, 0.08) == 0.0
    assert start_shift_s(0.0, [0.0, 0.08], 0.16, 0.08) == 0.0


def test_pacer_skips_what_nobody_can_see_any_more() -> None:
    """After a stall of two seconds it goes on with the unit of this moment; a short delay is caught up."""
    schedule = Schedule.starting_at(100.0, Geometry(), live_input=True, slack_s=0.0, allowance_s=0.0)

    async def send(unit: MediaUnit, due_s: float) -> None:
        raise AssertionError

    pacer = Pacer(schedule, lambda index: pytest.fail(), send)
    assert pacer._next_index(99.0) == 0
    assert pacer._next_index(100.0 + MAX_BACKLOG_S - 0.01) == 0
    assert pacer._next_index(102.01) == 50
    assert pacer.num_skipped == 50


def test_skew_is_picture_minus_sound_of_one_unit() -> None:
    """The order of the halves does not matter; the second Opus packet of a unit does not count."""
    skews: list[float] = []
    meter = SyncMeter(skews.append)
    meter.left("audio", 1920 * 7, 10.0)
    meter.left("audio", 1920 * 7 + 960, 10.02)
    meter.left("video", 3600 * 7, 10.003)
    meter.left("video", 3600 * 8, 10.04)
    meter.left("audio", 1920 * 8, 10.045)
    assert skews == pytest.approx([3.0, -5.0])


def test_stats_look_back_two_seconds_for_the_rate_and_ten_for_the_skew() -> None:
    """Percentiles of the window, p95 of the absolute value."""
    stats = SessionStats()
    for index in range(100):
        stats.sent(index * 0.04, index * 0.04 - 0.001)
    assert stats.fps(99 * 0.04) == pytest.approx(25, abs=1)
    assert stats.send_late_ms == pytest.approx(1.0)
    for value in [1.0] * 300 + [-9.0] * 20:
        stats.skew(value)
    assert stats.skew_summary_ms == {"p50": 1.0, "p95": 9.0}


async def test_listener_that_does_not_read_loses_the_oldest_events() -> None:
    """The queue is bounded; late listeners get the last state first, and the bye ends all."""
    hub = EventHub()
    deaf = hub.subscribe()
    for number in range(2 * QUEUE_LENGTH):
        hub.emit({"type": "state", "number": number})
    late = hub.subscribe()
    assert await late.get() == {"type": "state", "number": 2 * QUEUE_LENGTH - 1}
    assert await deaf.get() == {"type": "state", "number": QUEUE_LENGTH}
    hub.close("test")
    assert await late.get() == {"type": "bye", "reason": "test"}
    assert await late.get() is None


def test_trace_lays_the_units_sound_end_to_end(tmp_path: Path) -> None:
    """The WAV is the input time line, the JSON has every unit and interrupt."""
    trace = Trace(tmp_path, "s")
    for index in range(3):
        trace.unit(index, 0, index == 1, 5.0 + index, np.full(1920, index, dtype=np.int16))
    trace.interrupt(1, 2, 6.0, "api")
    trace.close({"mode": "mirror"})
    result = json.loads((tmp_path / "s.json").read_text())
    assert [unit["repeated"] for unit in result["units"]] == [False, True, False]
    assert result["interrupts"][0]["played_frame"] == 2
    with wave.open(str(tmp_path / "s.wav")) as file:
        assert file.getnframes() == 3 * 1920


def test_speech_file_is_mixed_to_48_khz_mono() -> None:
    """Stereo of another rate comes out with the same duration."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setparams((2, 2, 22_050, 0, "NONE", "NONE"))
        file.writeframes(np.full((22_050, 2), 500, dtype=np.int16).tobytes())
    samples = decode_speech(data)
    assert samples.dtype == np.int16
    assert len(samples) == pytest.approx(48_000, abs=100)
    assert 480 <= np.median(samples) <= 720


def test_options_become_the_configuration() -> None:
    """Every option of serve lands where it belongs."""
    words = "serve --host 0.0.0.0 --port 0 --max-sessions 3 --mic-slack-ms 60 --cors-origin a --cors-origin b --steps 2"
    config = serve_config(build_parser().parse_args([*words.split(), "--ice-server", "stun:a:1", "--ice-server", "turn:b:2"]))
    assert (config.host, config.port, config.max_sessions, config.cors_origins) == ("0.0.0.0", 0, 3, ("a", "b"))
    assert config.session.mic_slack_ms == 60
    assert config.session.ice_servers == ("stun:a:1", "turn:b:2")
    assert config.worker.options["steps"] == 2


@pytest.mark.parametrize("command", ["", "serve", "render", "portraits", "bench", "doctor", "train"])
def test_every_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help ends with commands one can paste."""
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert f"livemimic {command or 'serve'}" in capsys.readouterr().out.split("examples:")[1]


@pytest.mark.parametrize("words", [["serve", "--port", "70000"], ["serve", "--max-sessions", "0"]])
def test_option_out_of_range_is_said(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Name, value and range; exit status 2 like argparse."""
    assert main(words) == 2
    assert "out of range" in capsys.readouterr().err


def test_configurations_check_themselves() -> None:
    """A value that cannot work is refused where it is given."""
    for build in (
        lambda: ServeConfig(port=-1),
        lambda: SessionConfig(mic_slack_ms=-1),
        lambda: WorkerConfig(num_slots=0),
        lambda: WorkerConfig(pipeline_factory="module"),
    ):
        with pytest.raises(ValueError, match="="):
            build()


def test_environment_gives_defaults_and_tells_a_desktop() -> None:
    """LIVEMIMIC_PORT is a default; a browser is opened where there is a display and no CI."""
    assert env_default("PORT", "8080", {"LIVEMIMIC_PORT": "9"}) == "9"
    assert env_default("PORT", "8080", {}) == "8080"
    assert has_desktop({"DISPLAY": ":0"})
    assert not has_desktop({"DISPLAY": ":0", "CI": "true"})
    assert not has_desktop({})
