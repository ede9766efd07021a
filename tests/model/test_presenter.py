"""The embedded preset as shipped: it loads, it is deterministic, its lips follow sound, and damaged weights are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model.audio import AudioEncoder
from model.checkpoints import PRESENTER_FILE, load_presenter
from model.controls import neutral_controls, next_controls
from model.errors import CheckpointError, ConfigError
from model.geometry import Geometry
from model.motion import BLINK
from model.pipeline import AvatarPipeline
from model.portraits import builtin_portraits, prepare_portrait

GEOMETRY = Geometry()
MOUTH = (slice(140, 185), slice(96, 160))


@pytest.fixture(scope="module")
def pipeline() -> AvatarPipeline:
    torch.set_num_threads(1)
    return AvatarPipeline.load(device="cpu")


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return prepare_portrait(next(iter(builtin_portraits().values())).read_bytes())


def vowel(seconds: float) -> np.ndarray:
    """A buzzing open vowel, on and off twice a second: int16 at 16 kHz."""
    t = np.arange(int(seconds * 16_000)) / 16_000
    tones = sum(np.exp(-(((120 * k - f) / 120) ** 2)) * np.sin(2 * np.pi * 120 * k * t) for k in range(1, 30) for f in (750, 1200, 2500))
    gate = np.clip(np.sin(2 * np.pi * 2 * t) * 4, 0, 1)
    return (tones * gate / np.abs(tones).max() * 12_000).astype(np.int16)


def run(pipeline: AvatarPipeline, portrait: np.ndarray, sound: np.ndarray, seed: int = 0) -> np.ndarray:
    state = pipeline.open(portrait, seed=seed)
    chunk, step = GEOMETRY.chunk_samples_16k, GEOMETRY.step_samples_16k
    out = []
    for start in range(0, len(sound) - step, chunk):
        (frames,), (state,) = pipeline.step([state], [sound[start : start + step]], ["speaking"])
        out.append(frames)
    return np.concatenate(out)


def test_frames_have_the_promised_shape_and_range(pipeline: AvatarPipeline, portrait: np.ndarray) -> None:
    frames = run(pipeline, portrait, vowel(1.0))
    assert frames.shape[1:] == GEOMETRY.i420_shape and frames.dtype == np.uint8
    luma = frames[:, :256]
    assert 40 < luma.mean() < 220 and luma.std() > 20


def test_the_first_frames_show_the_chosen_person(pipeline: AvatarPipeline) -> None:
    """Of all built-in presenters, what is shown resembles the one that was asked for most."""
    pictures = {name: prepare_portrait(path.read_bytes()).mean(axis=2) for name, path in builtin_portraits().items()}
    for name in list(pictures)[:3]:
        chosen = prepare_portrait(builtin_portraits()[name].read_bytes())
        shown = run(pipeline, chosen, np.zeros(8000, dtype=np.int16))[-1, :256].astype(float)
        distances = {other: np.abs(shown - picture * 219 / 255 - 16).mean() for other, picture in pictures.items()}
        assert min(distances, key=lambda other: distances[other]) == name


def test_same_seed_same_bits_other_seed_other_motion(pipeline: AvatarPipeline, portrait: np.ndarray) -> None:
    sound = vowel(1.0)
    assert np.array_equal(run(pipeline, portrait, sound, 3), run(pipeline, portrait, sound, 3))
    assert not np.array_equal(run(pipeline, portrait, sound, 3), run(pipeline, portrait, sound, 4))


def test_lips_move_with_sound_and_rest_in_silence(pipeline: AvatarPipeline, portrait: np.ndarray) -> None:
    """Frame-to-frame change around the mouth is several times larger with a voice than without."""
    spoken, silent = (run(pipeline, portrait, s)[:, :256].astype(float) for s in (vowel(3.0), np.zeros(48_000, dtype=np.int16)))
    moving, resting = (np.abs(np.diff(f[8:, MOUTH[0], MOUTH[1]], axis=0)).mean() for f in (spoken, silent))
    assert moving > 2.0 * resting


def test_sessions_in_a_batch_are_the_sessions_alone(pipeline: AvatarPipeline, portrait: np.ndarray) -> None:
    sound = vowel(1.0)
    states = [pipeline.open(portrait, seed=s) for s in (1, 2)]
    audio = [sound[:3840], sound[2560:6400]]
    together, _ = pipeline.step(states, audio, ["speaking", "idle"])
    alone = [pipeline.step([s], [a], [m])[0][0] for s, a, m in zip(states, audio, ("speaking", "idle"), strict=True)]
    for a, b in zip(together, alone, strict=True):
        assert np.abs(a.astype(int) - b.astype(int)).max() <= 12
        assert np.abs(a.astype(int) - b.astype(int)).mean() < 0.5


def test_the_motion_of_the_controller_given_from_outside_gives_the_same_frames(pipeline: AvatarPipeline, portrait: np.ndarray) -> None:
    state = pipeline.open(portrait, seed=7)
    sound = vowel(1.0)[: GEOMETRY.step_samples_16k]
    (drawn,), (after,) = pipeline.step([state], [sound], ["speaking"])
    told, controller = next_controls(state.controller, GEOMETRY.chunk_frames, "speaking")
    (given,), _ = pipeline.animate([state], [sound], [told])
    (still,), _ = pipeline.animate([state], [sound], [np.zeros_like(told)])
    assert after.controller == controller
    assert np.array_equal(given, drawn) and not np.array_equal(still, drawn)


def test_lids_close_in_the_frame_that_says_so(pipeline: AvatarPipeline, portrait: np.ndarray) -> None:
    """A blink changes the eyes, in its own frames only, and hardly anything else."""
    told = np.repeat(neutral_controls()[None], 4, axis=0)
    blinking = told.copy()
    blinking[2, BLINK] = 1.0
    state, sound = pipeline.open(portrait, seed=3), np.zeros(GEOMETRY.step_samples_16k, dtype=np.int16)
    opened, closed = (pipeline.animate([state], [sound], [controls])[0][0][:, :256].astype(float) for controls in (told, blinking))
    changed = np.abs(opened - closed)
    eyes = changed[:, 84:122, 78:178].mean(axis=(1, 2))
    assert np.quantile(changed[2, 84:122, 78:178], 0.97) > 25, "irises and whites are gone"
    assert eyes[[0, 1, 3]].max() < 0.3 * eyes[2]
    assert changed[2, 136:196, 94:162].mean() < 0.2 * eyes[2]


def test_lips_meet_in_the_frame_in_which_a_bilabial_is_heard(
    pipeline: AvatarPipeline, portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Amid an open vowel, which the mouth goes on with at once."""
    told, sound = np.repeat(neutral_controls()[None], 4, axis=0), vowel(1.0)
    state = pipeline.open(portrait, seed=3)
    (silent,), _ = pipeline.animate([state], [np.zeros(GEOMETRY.step_samples_16k, dtype=np.int16)], [told])
    heard = torch.zeros(1, 8)
    monkeypatch.setattr(AudioEncoder, "bilabials", lambda self, features: heard)
    (_,), (state,) = pipeline.animate([state], [sound[: GEOMETRY.step_samples_16k]], [told])
    later = sound[GEOMETRY.chunk_samples_16k :][: GEOMETRY.step_samples_16k]
    (spoken,), _ = pipeline.animate([state], [later], [told])
    heard[0, 5] = 1.0
    (shut,), _ = pipeline.animate([state], [later], [told])
    rest = silent[:, :256].astype(float)
    spoken_open, shut_open = (np.abs(f[:, :256] - rest)[:, MOUTH[0], MOUTH[1]].mean(axis=(1, 2)) for f in (spoken, shut))
    assert shut_open[2] < 0.35 * spoken_open[2]
    assert np.array_equal(spoken[[0, 1, 3]], shut[[0, 1, 3]])


def test_a_turning_head_shows_no_seam_between_chunks(pipeline: AvatarPipeline, portrait: np.ndarray) -> None:
    """In silence, turning evenly: steps between chunks are as large as those within. They were 2.2 times as large once."""
    controls = np.repeat(neutral_controls()[None], 32, axis=0)
    controls[:, 0] = np.linspace(-1.0, 1.0, 32)
    state, sound, frames = pipeline.open(portrait, seed=3), np.zeros(GEOMETRY.step_samples_16k, dtype=np.int16), []
    for told in np.split(controls, 8):
        (chunk,), (state,) = pipeline.animate([state], [sound], [told])
        frames.append(chunk[:, :256].astype(float))
    steps = np.abs(np.diff(np.concatenate(frames), axis=0)).mean(axis=(1, 2))[4:]
    between = np.arange(5, 32) % 4 == 0
    assert 0.85 < steps[between].mean() / steps[~between].mean() < 1.15


@pytest.mark.parametrize("samples", [np.zeros(3839, dtype=np.int16), np.zeros(3840, dtype=np.float32)])
def test_wrong_audio_is_refused(pipeline: AvatarPipeline, portrait: np.ndarray, samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match="audio must be int16"):
        pipeline.step([pipeline.open(portrait)], [samples], ["idle"])


def test_unavailable_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="steps"):
        AvatarPipeline.load(steps=9)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="CUDA"):
            AvatarPipeline.load(device="cuda")


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    """Missing, truncated, renamed key, wrong shape: one clear error each."""
    with pytest.raises(CheckpointError, match="does not exist"):
        load_presenter(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(PRESENTER_FILE.read_bytes()[:10_000])
    with pytest.raises(CheckpointError, match="broken.safetensors"):
        load_presenter(broken)
    tensors = load_file(PRESENTER_FILE)
    key = "dit.head.head.weight"
    save_file({("dit.other" if k == key else k): v for k, v in tensors.items()}, broken)
    with pytest.raises(CheckpointError, match=r"dit\.(head\.head\.weight is missing|other is not known)"):
        load_presenter(broken)
    save_file({k: (v[:1].clone() if k == key else v) for k, v in tensors.items()}, broken)
    with pytest.raises(CheckpointError, match=r"dit\.head\.head\.weight is \(1, 256\)"):
        load_presenter(broken)
