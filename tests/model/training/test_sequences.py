"""What the transformer is taught: which errors cost what, and that other voices say a clip's words in the clip's own time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.audio import PHONES
from model.conditions import masked_video
from model.config import PRESENTER_VAE
from model.controls import CONTROL_NAMES, ControllerState, neutral_controls, next_controls
from model.manner import manner_of, styles_of
from model.mouth import mouth_mask
from model.text import STYLE_WORDS
from model.training.clips import sample_controls
from model.training.revoice import matched_times
from model.training.soup import SOUP, draw_task, hard_to_easy, mask_of
from model.training.speech import installed_voices, say_again, synthesise
from model.training.styles import styles_seen
from model.training.train_teacher import reconstruction_loss
from model.training.visemes import lips_pressed, mouth_curves
from model.vae import ReferenceVAE, dct_basis

FRAMES = PRESENTER_VAE.time_stride


def latents_of(frames_F: torch.Tensor) -> torch.Tensor:
    """Latents [1, F / 4, C, 2, 2] whose video frames are constant pictures."""
    rotated = torch.einsum("kj,tj->tk", dct_basis(FRAMES), frames_F.unflatten(0, (-1, FRAMES)))
    return rotated[None, :, :, None, None, None].expand(-1, -1, -1, PRESENTER_VAE.frame_channels, 2, 2).flatten(2, 3)


def loss(error_F: torch.Tensor, pressed_F: torch.Tensor) -> float:
    error = latents_of(error_F)
    return float(reconstruction_loss(error, torch.zeros_like(error), torch.ones(error.shape[2:]), pressed_F[None]))


def test_an_error_that_jumps_between_chunks_costs_more_than_one_that_stays() -> None:
    none = torch.zeros(8)
    stays, jumps = torch.full((8,), 0.5), torch.cat((torch.full((4,), 0.5), torch.full((4,), -0.5)))
    assert loss(stays, none) == pytest.approx(0.25, rel=1e-5)
    assert loss(jumps, none) == pytest.approx(0.25 + 1.0 / 7, rel=1e-5), "one of seven steps is off by 1"


def test_an_error_in_a_closure_costs_more() -> None:
    error, pressed = torch.zeros(8), torch.zeros(8)
    error[3], pressed[5] = 0.5, 1.0
    elsewhere = loss(error, pressed)
    pressed[3] = 1.0
    assert loss(error, pressed) > 1.5 * elsewhere


def test_lips_are_pressed_in_bilabials_only() -> None:
    phones = [("AA", 0.0, 0.2), ("M", 0.2, 0.28), ("AA", 0.28, 0.6)]
    assert np.flatnonzero(lips_pressed(mouth_curves(phones, 15))).tolist() == [5, 6]


def test_times_are_matched_by_what_is_said() -> None:
    """A slower voice, with a phone that the other swallows."""
    ours = [("SIL", 0.0, 0.1), ("M", 0.1, 0.2), ("AA", 0.2, 0.4), ("T", 0.4, 0.5), ("SIL", 0.5, 0.6)]
    theirs = [("SIL", 0.0, 0.3), ("M", 0.3, 0.5), ("AA", 0.5, 0.9), ("SIL", 0.9, 1.2)]
    at = matched_times(ours, theirs)
    assert (np.diff(at, axis=1) >= 0).all()
    assert np.interp([0.15, 0.3, 0.55], at[0], at[1]) == pytest.approx([0.4, 0.7, 1.05])


def test_another_voice_says_the_same() -> None:
    try:
        spoken = synthesise(11)
    except OSError as missing:
        pytest.skip(f"espeak-ng is not installed: {missing}")
    if len(installed_voices(False)) < 2:
        pytest.skip("one voice only")
    others = [say_again(spoken, np.random.default_rng(seed)) for seed in range(3)]
    assert all(other.texts == spoken.texts and len(other.samples) > 8000 for other in others)
    assert len({other.voice for other in others} | {spoken.voice}) > 1
    for other in others:
        assert {phone[0] for phone in other.phones} <= set(PHONES)
        at = matched_times(spoken.phones, other.phones)
        assert at[1, -1] == pytest.approx(other.phones[-1][2]) and len(at[0]) > len(spoken.phones)


def test_every_task_knows_what_it_may_and_no_more() -> None:
    """The soup of tasks: talk nothing new, lip-sync all but the mouth of every frame, the last pictures from some video frame to the end
    of its chunk, text to video not even the reference."""
    shape, rng = (6, 4, 16, 16), np.random.default_rng(3)
    mouth = mouth_mask() == 1
    assert SOUP.keys() == {"talk", "lipsync", "flf2v", "t2v"} and sum(SOUP.values()) == pytest.approx(1.0)
    assert {draw_task(SOUP, rng) for _ in range(300)} == SOUP.keys()
    assert not mask_of("talk", shape, rng).frames.any() and mask_of("talk", shape, rng).reference == 1
    assert not mask_of("t2v", shape, rng).frames.any() and mask_of("t2v", shape, rng).reference == 0
    dubbed = mask_of("lipsync", shape, rng).frames
    assert (dubbed[..., ~mouth] == 1).all() and not dubbed[..., mouth].any()
    begins = set()
    for _ in range(200):
        frames = mask_of("flf2v", shape, rng).frames
        known = frames.amin(dim=(2, 3))
        assert torch.equal(known, frames.amax(dim=(2, 3))), "whole pictures"
        (chunk,) = known.amax(dim=1).nonzero().flatten().tolist()
        begins.add((chunk, int(4 - known[chunk].sum())))
        assert torch.equal(known[chunk], known[chunk].sort().values)
    assert begins == {(chunk, frame) for chunk in range(6) for frame in range(4)}


def test_tasks_join_from_hard_to_easy() -> None:
    """Each that joins knows more than those before it, and the whole soup is what training ends with."""
    assert hard_to_easy(0.0).keys() == {"talk", "t2v"} and hard_to_easy(0.4).keys() == {"talk", "t2v", "flf2v"}
    assert hard_to_easy(1.0) == pytest.approx(SOUP)
    for progress in np.linspace(0.0, 1.0, 11):
        soup = hard_to_easy(float(progress))
        assert sum(soup.values()) == pytest.approx(1.0)
        assert soup["t2v"] / soup["talk"] == pytest.approx(SOUP["t2v"] / SOUP["talk"])
    shape = (6, 4, 16, 16)
    known = {task: np.mean([mask_of(task, shape, np.random.default_rng(i)).frames.mean() for i in range(50)]) for task in SOUP}
    assert known["t2v"] == known["talk"] < known["flf2v"] < known["lipsync"]


def test_the_masked_video_holds_known_frames_and_the_fill() -> None:
    """Of a latent frame with statistics of its own, video frame by video frame."""
    torch.manual_seed(0)
    vae = ReferenceVAE(PRESENTER_VAE)
    vae.latent_std.uniform_(0.5, 2.0)
    vae.latent_mean.normal_()
    fill, known = torch.randn(2, FRAMES, PRESENTER_VAE.frame_channels, 16, 16)
    where = torch.zeros(FRAMES, 16, 16)
    where[3], where[1, :, :8] = 1.0, 1.0
    y = masked_video(vae.stack(fill)[0], vae.stack(known)[0], where, vae.latent_std)
    assert torch.allclose(vae.unstack(y[None]), torch.lerp(fill, known, where[:, None]), atol=1e-5)


def seen(**changes: torch.Tensor | float) -> list[str]:
    """A second of a still face that looks at the viewer, changed."""
    controls = torch.from_numpy(neutral_controls()).repeat(24, 1)
    controls[:, CONTROL_NAMES.index("x")] += torch.linspace(0.0, 0.95, 24)  # as heads sway
    for name, value in changes.items():
        controls[:, CONTROL_NAMES.index(name)] += value
    return styles_seen(controls)


def test_a_stretch_is_told_in_the_words_a_prompt_would_use() -> None:
    swing = torch.sin(torch.arange(24) * 2 * torch.pi * 1.4 / 25)
    assert seen() == ["neutral"]
    assert seen(smile=0.4) == ["smiling"] and seen(brow=0.4) == ["surprised"] and seen(brow=-0.3) == ["serious"]
    assert seen(yaw=-0.8) == ["left"] == seen(gaze_x=-0.6) and seen(pitch=0.8, smile=0.4) == ["smiling", "up"]
    assert "nodding" in seen(pitch=0.3 * swing) and "nodding" not in seen(yaw=0.3 * swing)
    assert seen(x=torch.linspace(0.0, -0.8, 24)) == ["calm"] and seen(x=torch.linspace(0.0, 1.0, 24)) == ["lively"]
    assert seen(yaw=0.9, gaze_x=-0.6) == ["neutral"], "the head one way, the eyes another"


@pytest.mark.parametrize("prompt", ["smiling", "serious", "surprised", "nodding", "looking left", "looking up", "calm", "lively"])
def test_what_a_word_asks_for_is_what_training_called_so(prompt: str) -> None:
    """The controls that a prompt leads to are described by its word, most of the time."""
    (word,) = styles_of(prompt)
    assert word in STYLE_WORDS
    controls = torch.from_numpy(next_controls(ControllerState(5, manner=manner_of(prompt)), 25 * 60, "speaking")[0])
    told = [word in styles_seen(second) for second in controls.split(25)]
    plain = torch.from_numpy(next_controls(ControllerState(5), 25 * 60, "speaking")[0])
    untold = [word in styles_seen(second) for second in plain.split(25)]
    assert sum(told) > 30 and sum(told) > 1.5 * sum(untold), (sum(told), sum(untold))


def test_heads_move_as_widely_as_told() -> None:
    """Of one seed: twice the width is twice the motion of the head, and nothing else."""
    narrow, wide, drawn = (sample_controls(np.random.default_rng(3), 50, width) for width in (0.8, 1.6, None))
    np.testing.assert_allclose(wide[:, :5], 2.0 * narrow[:, :5], rtol=1e-5)
    np.testing.assert_array_equal(wide[:, 5:], narrow[:, 5:])
    np.testing.assert_array_equal(drawn[:, 5:], narrow[:, 5:])
