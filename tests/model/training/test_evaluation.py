"""What is measured, on data made to have it: a lag, blinks, a seam, a drift and a lost motion are found, and told from their absence."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from model.controls import CONTROL_NAMES, ControllerState, neutral_controls, next_controls
from model.errors import ConfigError
from model.geometry import FPS
from model.portraits import builtin_portraits
from model.training.bundle import attach_evaluation
from model.training.cli import run
from model.training.clips import Clip, save_clip
from model.training.evaluation import held_out, lips, motion, pictures, plots, report, tracker, videos, without_truth
from model.training.visemes import aperture, mouth_curves

BLINK = CONTROL_NAMES.index("blink")


def babble(num_frames: int, seed: int = 0) -> np.ndarray:
    """An opening that moves like speech, 0 and up."""
    noise = np.random.default_rng(seed).normal(size=num_frames + 20)
    return np.convolve(noise, np.hanning(7), mode="same")[10:-10].clip(min=0)


def eyes(num_frames: int, *blinks: tuple[int, int]) -> np.ndarray:
    """Eyes open at 0.3 of their width, shut from the first to before the second frame of each blink."""
    opening = np.full(num_frames, 0.3)
    for first, stop in blinks:
        opening[first:stop] = 0.04
    return opening


class TestLips:
    @pytest.mark.parametrize("frames", [-4, 0, 3])
    def test_a_lag_is_found_with_its_sign(self, frames: int) -> None:
        """Positive = the picture is late."""
        truth = babble(300)
        _, lag_ms = lips.correlation_and_lag(np.roll(truth, frames), truth)
        assert lag_ms == pytest.approx(frames * 40, abs=3)

    def test_a_lag_of_half_a_frame_is_found_between_frames(self) -> None:
        fine = np.interp(np.arange(600) / 2, np.arange(300), babble(300))
        _, lag_ms = lips.correlation_and_lag(fine[:-1:2], fine[1::2])
        assert lag_ms == pytest.approx(20, abs=5)

    def test_correlation_is_that_of_numpy_and_undefined_for_a_still_mouth(self) -> None:
        truth, other = babble(200), babble(200) + 0.5 * babble(200, 1)
        assert lips.correlation_and_lag(other, truth)[0] == pytest.approx(np.corrcoef(other, truth)[0, 1])
        assert np.isnan(lips.correlation_and_lag(np.ones(200), truth)[0])

    def test_bilabials_are_found_in_curves_and_hit_within_one_frame_only(self) -> None:
        phones = [(p, i * 0.16, (i + 1) * 0.16) for i, p in enumerate(("SIL", "AA", "B", "AA", "P", "AE", "SIL"))]
        curves = mouth_curves(phones, 28)
        closures = lips.told_closures(curves)
        opening = aperture(curves)
        assert len(closures) == 2
        assert lips.closures_hit(opening, closures) == [True, True]
        assert lips.closures_hit(np.full(28, 0.3), closures) == [False, False]
        open_but_for_one = np.full(28, 0.3)
        open_but_for_one[closures[0][0] - 1] = 0.0
        open_but_for_one[closures[1][1] + 1] = 0.0  # two frames after its last
        assert lips.closures_hit(open_but_for_one, closures) == [True, False]

    def test_silence_is_judged_against_loud_speech(self) -> None:
        loud = np.concatenate((np.zeros(50), np.linspace(0.1, 0.2, 50)))
        assert lips.silence_over_loud(np.repeat([0.01, 0.10], 50), loud) == pytest.approx(0.1)
        assert np.isnan(lips.silence_over_loud(np.ones(100), np.full(100, 0.2)))

    def test_loudness_of_a_tone_is_its_rms(self) -> None:
        tone = (0.5 * 32768 * np.sin(np.arange(16_000) * 0.3)).astype(np.int16)
        assert lips.loudness(tone, 16_000, 25)[5:20] == pytest.approx(np.full(15, 0.5 / np.sqrt(2)), rel=0.02)

    def test_a_recording_is_judged_over_frames_without_a_face(self) -> None:
        loud = babble(200)
        opening = loud * 0.1
        opening[50:60] = np.nan
        row = lips.follows_sound(opening, lips.smoothed(loud))
        assert row["face_found"] == pytest.approx(0.95)
        assert row["correlation"] > 0.95 and abs(row["lag_ms"]) < 5

    def test_articulation_counts_closed_bilabials_and_open_vowels(self) -> None:
        opening = np.full(100, 0.05)
        opening[10:14], opening[30:34], opening[60:70] = 0.0, 0.1, 0.1
        phones = [("B", 0.44, 0.52), ("M", 2.0, 2.1), ("AA", 1.2, 1.32), ("S", 3.0, 3.1)]
        assert lips.articulation(opening, phones) == {"bilabials_closed": 0.5, "vowels_open": 1.0}


class TestMotion:
    def test_blinks_are_counted_and_timed(self) -> None:
        blinks = motion.count_blinks(eyes(1500, (100, 104), (500, 503), (1200, 1205)))
        assert blinks.count == 3
        assert blinks.rate_per_min == pytest.approx(3.0)
        assert blinks.duration_ms == pytest.approx(160, abs=20)
        assert motion.count_blinks(eyes(100)).count == 0

    def test_the_controllers_own_blinks_are_all_counted(self) -> None:
        told = next_controls(ControllerState(3), 60 * FPS, "speaking")[0][:, BLINK]
        expected = np.count_nonzero(np.diff((told > 0.5).astype(int)) == 1)
        noise = np.random.default_rng(0).normal(0, 0.01, len(told))
        assert motion.count_blinks(0.3 * (1 - 0.85 * told) + noise).count == expected > 10

    def test_halved_motion_is_half_a_spectrum_away_and_jitter_shows(self) -> None:
        told = next_controls(ControllerState(5), 1000, "speaking")[0][:, :5].astype(np.float64)
        truth = motion.band_power(told)
        assert motion.spectrum_error(truth, truth) == 0.0
        assert motion.spectrum_error(motion.band_power(told * 0.5 + 7.0), truth) == pytest.approx(0.5)
        jitter = np.random.default_rng(0).normal(0, 0.5 * told.std(), told.shape)
        assert motion.spectrum_error(motion.band_power(told + jitter), truth) > 0.2


def face(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(tracker.SKULL), 3))


def turned(points: np.ndarray, yaw: float, shift: float, size: float) -> np.ndarray:
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    return points @ turn.T * size + np.array([shift, 0, 0])


class TestTracker:
    def test_a_turn_and_a_shift_of_the_head_are_told_apart(self) -> None:
        yaw = 0.2 * np.sin(np.arange(100) / 8)
        shift = 0.1 * np.cos(np.arange(100) / 5)
        points = np.stack([turned(face(), *pose, 1.0) for pose in zip(yaw, shift, strict=True)])
        found = tracker.head_motion(points)
        assert abs(np.corrcoef(found[:, 0], yaw)[0, 1]) > 0.999
        assert found[:, 0].std() == pytest.approx(yaw.std(), rel=0.03)
        assert np.abs(found[:, 1:3] - found[:, 1:3].mean(axis=0)).max() < 0.02
        centre = points.mean(axis=1)[:, 0]
        assert np.corrcoef(found[:, 3], centre)[0, 1] > 0.999

    def test_the_distance_of_faces_ignores_pose_and_sees_another_person(self) -> None:
        template = tracker.mean_shape(face()[None])
        posed = np.stack([turned(face(), 0.3, 0.2, 1.7), turned(face(), -0.2, 0.0, 0.8)])
        assert tracker.shape_distance(posed, template).max() < 1e-6
        other = face() + 0.1 * face(1)
        assert tracker.shape_distance(turned(other, 0.3, 0.0, 1.0)[None], template)[0] == pytest.approx(0.1, rel=0.5)

    def test_what_a_turn_does_to_a_distance_is_told_from_a_drift(self) -> None:
        rng = np.random.default_rng(0)
        turns = np.zeros((2000, 5))
        turns[:, :3] = np.cumsum(rng.normal(size=(2000, 3)), axis=0) * 0.01
        seen = 0.02 + 0.1 * turns[:, 0] ** 2 + rng.normal(size=2000) * 1e-3
        steady = pictures.drift(tracker.at_mean_pose(seen, turns))
        assert pictures.drift(seen)["deviation"] > 0.3
        assert steady["deviation"] < 0.01 and abs(steady["change"]) < 0.01
        drifting = pictures.drift(tracker.at_mean_pose(seen + np.linspace(0, 0.005, 2000), turns))
        added = 0.005 / (seen.mean() + 0.0025)
        assert drifting["change"] == pytest.approx(added, rel=0.05) and drifting["deviation"] == pytest.approx(added / 2, rel=0.2)

    def test_the_tracker_sees_a_presenter_with_closed_lips_and_open_eyes(self) -> None:
        pytest.importorskip("mediapipe")
        picture = np.asarray(Image.open(next(iter(builtin_portraits().values()))).convert("RGB"))
        found = tracker.track([picture, np.zeros_like(picture)])
        assert found.face_found == 0.5
        assert found.lip_opening()[0] < 0.01 and found.eye_opening()[0] > 0.2
        assert found.skull().shape == (1, len(tracker.SKULL), 3)


class TestPictures:
    def test_a_seam_is_detected_and_none_is_not(self) -> None:
        changes = 1.0 + 0.2 * np.random.default_rng(0).random(399)
        even = pictures.seam([changes[:200], changes[200:]], 4)
        assert even.low < 1.0 < even.high and even.high - even.low < 0.1
        changes[3::4] *= 1.3
        stepped = pictures.seam([changes], 4)
        assert stepped.value == pytest.approx(1.3, abs=0.03) and stepped.low > 1.2

    def test_steps_are_mean_absolute_changes(self) -> None:
        assert pictures.steps(np.stack([np.zeros((4, 4)), np.full((4, 4), 3.0), np.full((4, 4), 1.0)])).tolist() == [3.0, 2.0]

    def test_a_drifting_video_is_told_from_a_steady_one(self) -> None:
        steady = 50 + np.random.default_rng(0).normal(0, 2, 6000)
        found = pictures.drift(steady)
        assert found["low"] < 0 < found["high"] and found["deviation"] < 0.02
        found = pictures.drift(steady * np.linspace(1.0, 0.9, 6000))
        assert found["high"] < 0 and found["change"] == pytest.approx(-0.1, abs=0.02) and found["deviation"] > 0.03

    def test_a_blurred_picture_is_less_sharp(self) -> None:
        picture = Image.open(next(iter(builtin_portraits().values()))).convert("L")
        sharp, soft = (pictures.sharpness(np.asarray(p)) for p in (picture, picture.filter(ImageFilter.GaussianBlur(1))))
        assert soft < 0.5 * sharp

    def test_psnr_of_a_known_error_in_the_mouth_alone(self) -> None:
        truth = np.full((2, 256, 256, 3), 100, dtype=np.uint8)
        frames = truth.copy()
        frames[:, *pictures.MOUTH_BOX] += 10
        errors = pictures.squared_errors(frames, truth)
        assert pictures.decibels(errors["psnr_mouth_db"]) == pytest.approx(20 * np.log10(25.5))
        assert pictures.decibels(errors["psnr_eyes_db"]) == np.inf
        assert errors["psnr_db"] == pytest.approx(100 * 60 * 68 / 256**2)


def judged(seed: int) -> held_out.Judged:
    """A clip on which autoencoder and network are as good as the truth."""
    opening = babble(200, seed)
    moved = next_controls(ControllerState(seed), 200, "speaking")[0][:, :5]
    seen = held_out.Seen(
        opening, motion.count_blinks(eyes(200, (50, 54), (150, 155))), motion.band_power(moved), np.full(200, 0.01),
        1.0 + np.random.default_rng(seed).random(199), {"psnr_db": 1.0, "psnr_mouth_db": 4.0, "psnr_eyes_db": 4.0},
    )  # fmt: skip
    closures = [(int(frame), int(frame) + 1) for frame in np.flatnonzero(opening == 0)[:5]]
    shape = tracker.mean_shape(face(seed)[None])
    return held_out.Judged(seed, shape, babble(200, seed + 100), closures, {name: seen for name in held_out.SOURCES})


class TestFigures:
    def test_a_network_that_equals_the_truth_meets_every_goal_of_clips_and_the_jaw_does_not(self) -> None:
        figures, seams = held_out.figures([judged(1), judged(2)], 4)
        network = figures[report.NETWORK]
        assert network["correlation"] == pytest.approx(1.0) and network["closures_hit"] == 1.0
        assert (network["blink_rate"], network["head_spectrum_error"], network["identity_over_autoencoder"]) == (1.0, 0.0, 1.0)
        assert network["psnr_mouth_db"] == pytest.approx(10 * np.log10(255**2 / 4))
        assert figures[report.JAW]["correlation"] < 0.5
        assert seams[report.NETWORK] == seams[report.TRUTH]
        assert figures[report.TRUTH]["identity_apart"] > 0.5  # two clouds of random points

    def test_a_network_that_lost_every_other_blink_and_half_the_motion_is_caught(self) -> None:
        clip = judged(1)
        true = clip.seen[report.TRUTH]
        poor = replace(true, blinks=motion.count_blinks(eyes(200, (50, 54))), power=true.power / 4, distance=true.distance * 2)
        figures, _ = held_out.figures([replace(clip, seen=clip.seen | {report.NETWORK: poor})], 4)
        network = figures[report.NETWORK]
        assert network["blink_rate"] == 0.5
        assert network["head_spectrum_error"] == pytest.approx(0.5)
        assert network["identity_over_autoencoder"] == pytest.approx(2.0)
        assert report.verdicts(figures)["blink_rate"] == "MISSED"

    def test_verdicts_are_goal_must_missed_or_not_measured(self) -> None:
        figures = {report.NETWORK: {"correlation": 0.96, "closures_hit": 0.91, "lag_ms": -30.0}, report.AUTOENCODER: {"psnr_db": 35.0}}
        verdicts = report.verdicts(figures)
        assert [verdicts[key] for key in ("correlation", "closures_hit", "lag_ms", "seam", "psnr_db")] == [
            "goal", "must", "MISSED", "not measured", "must",
        ]  # fmt: skip
        printed = report.table(figures)
        assert "0.960" in printed and "-30.0" in printed and "MISSED" in printed

    def test_json_holds_no_number_that_json_does_not_know(self) -> None:
        plain = report.finite({"a": [float("nan"), 1.0], "b": {"c": float("inf")}, "d": "x"})
        assert plain == {"a": [None, 1.0], "b": {"c": None}, "d": "x"}


def clip(seed: int, num_frames: int = 16) -> Clip:
    phones = [("SIL", 0.0, 0.16), ("AA", 0.16, 0.32), ("M", 0.32, 0.4), ("AA", 0.4, 0.64)]
    picture = np.asarray(Image.open(next(iter(builtin_portraits().values()))).convert("RGB"))
    return Clip(
        frames=np.repeat(picture[None], num_frames, axis=0), references=picture[None], source=np.zeros(num_frames, np.uint8),
        motion=np.zeros((num_frames, 1, 1, 2), np.float16), inside=np.zeros((num_frames, 1), np.uint8), eyes=np.zeros((1, 1), np.uint8),
        matte=np.zeros((1, 1, 1), np.uint8), outline=np.zeros((num_frames, 1, 1), np.uint8), teeth=np.zeros((1, 6, 2), np.float32),
        controls=next_controls(ControllerState(seed, frame=20), num_frames, "speaking")[0], reference_controls=neutral_controls()[None],
        mouth=mouth_curves(phones, num_frames),
        samples=(np.random.default_rng(0).normal(0, 3000, 32_000 + 640 * num_frames)).astype(np.int16), person_seed=seed,
    )  # fmt: skip


class TestClips:
    def test_people_of_training_and_odd_lengths_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="holds no clip"):
            videos.held_out_clips(tmp_path, 3, 4)
        save_clip(tmp_path / "clip_900001.npz", clip(900_001))
        assert [c.person_seed for c in videos.held_out_clips(tmp_path, 3, 4)] == [900_001]
        with pytest.raises(ConfigError, match="16 frames"):
            videos.held_out_clips(tmp_path, 3, 5)
        save_clip(tmp_path / "clip_000017.npz", clip(17))
        with pytest.raises(ConfigError, match="seed 17"):
            videos.held_out_clips(tmp_path, 3, 4)

    def test_moments_show_a_blink_bilabials_and_open_mouths(self) -> None:
        shown = clip(900_001)
        shown.controls[:, BLINK] = np.arange(16) == 1
        chosen = plots.moments(shown, 3)
        widest, closed = int(aperture(shown.mouth).argmax()), lips.told_closures(shown.mouth)[0][0]
        assert chosen == sorted({1, closed, widest}) and len(chosen) == 3

    def test_sheets_and_curves_hold_what_they_were_given(self) -> None:
        shown = clip(900_001).frames[:3]
        page = np.asarray(plots.sheet([("a", shown), ("b", 255 - shown)], ["1", "2", "3"]))
        assert np.array_equal(page[-256:, -256:], 255 - shown[2]) and np.array_equal(page[-512:-256, -256:], shown[2])
        assert plots.mouths(shown).shape == (3, 270, 288, 3)
        flat, wavy = (
            np.asarray(plots.lip_curves([("x", {"truth": curve}, [(3, 5)])])) for curve in (np.zeros(50), np.arange(50) % 5 / 4)
        )
        assert (wavy < 60).all(axis=2).sum() > 2 * (flat < 60).all(axis=2).sum()


def test_photographs_that_hardly_speak_are_told_from_presenters(tmp_path: Path) -> None:
    rows = [("anna", False, 0.1, 0.97), ("bruno", False, 0.08, 0.95), ("me", True, 0.09, 0.9), ("you", True, 0.018, 0.5)]
    keys = ("name", "photograph", "opening", "correlation")
    figures = without_truth.photograph_figures([dict(zip(keys, row, strict=True)) | {"face_found": 1.0} for row in rows])
    assert figures["photograph_opening"] == pytest.approx(0.6) and figures["photograph_least_opening"] == pytest.approx(0.2)
    assert figures["photograph_correlation"] == pytest.approx(0.7) and figures["photograph_face_found"] == 1.0
    assert report.verdicts({report.NETWORK: figures})["photograph_least_opening"] == "MISSED"
    with pytest.raises(ConfigError, match="holds no pictures"):
        without_truth.photographs(None, tmp_path, clip(900_001), 0)  # type: ignore[arg-type]
    Image.new("RGB", (200, 200)).save(tmp_path / "nobody.png")
    with pytest.raises(ConfigError, match=r"nobody\.png: No face"):
        without_truth.photographs(None, tmp_path, clip(900_001), 0)  # type: ignore[arg-type]


def test_a_card_takes_an_evaluation_of_its_own_weights_only(tmp_path: Path) -> None:
    weights, judged_file = tmp_path / "p.safetensors", tmp_path / "e.json"
    weights.write_bytes(b"weights")
    (tmp_path / "p.json").write_text('{"preset": "presenter"}')
    judged_file.write_text(json.dumps({"weights_sha256": hashlib.sha256(b"weights").hexdigest(), "figures": {"network": {"seam": 1.0}}}))
    attach_evaluation(weights, judged_file)
    card = json.loads((tmp_path / "p.json").read_text())
    assert card["preset"] == "presenter" and card["evaluation"]["figures"]["network"]["seam"] == 1.0
    weights.write_bytes(b"others")
    with pytest.raises(ConfigError, match="other weights"):
        attach_evaluation(weights, judged_file)


def test_a_step_that_cannot_begin_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    assert run(argparse.Namespace(rest=["evaluate", "--eval", str(tmp_path)])) == 1
    said = capsys.readouterr().err
    assert said.startswith("livemimic train evaluate: ") and "holds no clip_*.npz" in said and "livemimic train clips" in said
