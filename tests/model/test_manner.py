"""Style words of a prompt: each changes the controls it names, within what training showed, and the network draws it."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
import torch
from PIL import Image

from model.controls import CONTROL_NAMES, ControllerState, next_controls
from model.geometry import Geometry
from model.manner import Manner, manner_of
from model.pipeline import AvatarPipeline
from model.portraits import builtin_portraits, preflight, prepare_portrait


def told(prompt: str) -> np.ndarray:
    return next_controls(ControllerState(5, manner=manner_of(prompt)), 250, "idle")[0]


@pytest.mark.parametrize(
    ("prompt", "names", "sign"),
    [
        ("Smiling", {"smile"}, 1), ("she smiles", {"smile"}, 1), ("surprised", {"brow"}, 1), ("a serious man", {"brow", "smile"}, -1),
        ("looks to the left", {"yaw", "gaze_x"}, -1), ("looking right", {"yaw", "gaze_x"}, 1),
        ("looking up", {"pitch", "gaze_y"}, 1), ("looking down", {"pitch", "gaze_y"}, -1),
    ],
)  # fmt: skip
def test_a_word_changes_what_it_names_and_nothing_else(prompt: str, names: set[str], sign: int) -> None:
    difference = (told(prompt) - told("")).mean(axis=0)
    for name, value in zip(CONTROL_NAMES, difference, strict=True):
        if name in names:
            assert sign * value > 0.05, name
        else:
            assert abs(value) < 1e-6, name


def test_nodding_moves_up_and_down_about_once_a_second() -> None:
    pitch = (told("nodding") - told(""))[:, CONTROL_NAMES.index("pitch")]
    assert 7 <= (np.diff(np.sign(pitch)) > 0).sum() <= 11
    assert abs(pitch.mean()) < 0.05


def test_other_words_change_nothing() -> None:
    assert manner_of("A woman in a library talks about the weather, unsmiling") == Manner()
    assert np.array_equal(told("nodule leftover"), told(""))


def test_every_word_stays_within_what_training_showed() -> None:
    everything = told("smiling surprised nodding lively looking left")
    assert np.abs(everything[:, :5]).max() < 3.2 and np.abs(everything[:, 6:9]).max() < 1.8
    assert everything[:, 9].min() >= 0 and everything[:, 9].max() <= 1


@pytest.fixture(scope="module")
def yaws() -> dict[str, float]:
    """How far the drawn head is turned, as the portrait report measures it."""
    torch.set_num_threads(1)
    pipeline, geometry = AvatarPipeline.load(device="cpu"), Geometry()
    portrait = prepare_portrait(builtin_portraits()["clara"].read_bytes())
    found = {}
    for prompt in ("looking left", "looking right"):
        state = pipeline.open(portrait, seed=1, prompt=prompt)
        for _ in range(3):
            (chunk,), (state,) = pipeline.step([state], [np.zeros(geometry.step_samples_16k, dtype=np.int16)], ["idle"])
        buffer = io.BytesIO()
        frame = av.VideoFrame.from_ndarray(chunk[-1], format="yuv420p").reformat(format="rgb24").to_ndarray()
        Image.fromarray(frame).save(buffer, "PNG")
        found[prompt] = preflight(buffer.getvalue()).yaw
    return found


def test_the_network_looks_where_it_is_told(yaws: dict[str, float]) -> None:
    assert yaws["looking right"] - yaws["looking left"] > 8.0
