"""Tasks on the shipped weights: what is known of a frame is met, and the rest goes on from it."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch

from model.checkpoints import load_presenter
from model.controls import CONTROL_NAMES
from model.geometry import Geometry
from model.mouth import mouth_mask
from model.pipeline import AvatarPipeline, AvatarState
from model.portraits import builtin_portraits, prepare_portrait
from model.tasks import LipSync, smooth_continuation

GEOMETRY = Geometry()
QUIET = np.zeros(GEOMETRY.step_samples_16k, dtype=np.int16)


@pytest.fixture(scope="module")
def pipeline() -> AvatarPipeline:
    torch.set_num_threads(1)
    return AvatarPipeline.load(device="cpu")


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return prepare_portrait(builtin_portraits()["clara"].read_bytes())


def drawn(pipeline: AvatarPipeline, state: AvatarState, num_frames: int) -> np.ndarray:
    """uint8 RGB [F, 256, 256, 3], in silence."""
    frames: list[np.ndarray] = []
    while len(frames) < num_frames:
        (chunk,), (state,) = pipeline.step([state], [QUIET], ["idle"])
        frames += [av.VideoFrame.from_ndarray(f, format="yuv420p").reformat(format="rgb24").to_ndarray() for f in chunk]
    return np.stack(frames[:num_frames])


@pytest.fixture(scope="module")
def turned(pipeline: AvatarPipeline, portrait: np.ndarray) -> np.ndarray:
    """The same person looking to the viewer's left."""
    return drawn(pipeline, pipeline.open(portrait, seed=2, prompt="looking left"), 12)[-1]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def through_420(picture: np.ndarray) -> np.ndarray:
    """What is left of a picture's colours in a video."""
    planes = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").to_ndarray(format="yuv420p")
    return av.VideoFrame.from_ndarray(planes, format="yuv420p").to_ndarray(format="rgb24")


def test_first_and_last_picture_are_met(pipeline: AvatarPipeline, portrait: np.ndarray, turned: np.ndarray) -> None:
    """To the rounding of colours."""
    frames = drawn(pipeline, pipeline.open_between(portrait, turned, 26, seed=1), 26)
    apart = distance(portrait, turned)
    assert distance(frames[0], portrait) < distance(through_420(portrait), portrait) + 0.1
    assert distance(frames[25], turned) < distance(through_420(turned), turned) + 0.1
    nearer = [distance(f, turned) < distance(f, portrait) for f in frames]
    assert not nearer[0] and nearer[25]
    assert max(distance(a, b) for a, b in zip(frames, frames[1:], strict=False)) < 0.5 * apart, "it jumps"


def test_the_end_is_told_with_its_chunk(pipeline: AvatarPipeline, portrait: np.ndarray, turned: np.ndarray) -> None:
    """From the last picture's frame on, and not before; the head is led to the pose that the picture is in."""
    task, unmoved = pipeline.open_between(portrait, turned, 26, seed=1).task, np.zeros((4, 10), dtype=np.float32)
    assert all(task.told(frame, unmoved).known is None for frame in range(0, 24, 4))
    known = task.told(24, unmoved).known
    assert known is not None and known.where.amin(dim=(1, 2)).tolist() == known.where.amax(dim=(1, 2)).tolist() == [0.0, 1.0, 1.0, 1.0]
    vae = load_presenter().vae
    first, last = vae.unstack(known.y[None])[:2]
    assert torch.allclose(first, vae.unstack(pipeline.open(portrait).window.fill[None].float())[0], atol=0.02)
    assert not torch.allclose(first, last, atol=0.1)
    way = [task.told(frame, unmoved).moves[1, CONTROL_NAMES.index("yaw")] for frame in (0, 12, 24)]
    assert way[0] > way[1] > way[2] and way[0] > -0.02 and way[2] < -0.2


def test_two_frames_are_enough_to_go_from_one_picture_to_the_other(
    pipeline: AvatarPipeline, portrait: np.ndarray, turned: np.ndarray
) -> None:
    first, last = drawn(pipeline, pipeline.open_between(portrait, turned, 2), 2)
    assert distance(first, portrait) < distance(first, turned)
    assert distance(last, turned) < distance(last, portrait)


def test_lipsync_shows_the_clip_outside_the_mouth(pipeline: AvatarPipeline, portrait: np.ndarray, turned: np.ndarray) -> None:
    """The latents of a chunk are the clip's own wherever the mouth is not, to rounding."""
    vae = load_presenter().vae
    clip = np.stack([turned] * GEOMETRY.chunk_frames)
    state = pipeline.open_lipsync(portrait, lambda first: clip)
    assert isinstance(state.task, LipSync)
    with torch.inference_mode():
        told = state.task.told(0, np.zeros((4, 10), dtype=np.float32))
        moves, shown = told.moves, told.finish(torch.randn(4, 8, 16, 16))
        pictures = torch.from_numpy(np.stack((portrait, *clip))).movedim(-1, 1) / 127.5 - 1.0
        known = vae.unstack(vae.encode(pictures[1:], vae.reference(pictures[:1]), torch.from_numpy(moves)))
    outside = mouth_mask() == 0
    assert torch.allclose(shown[..., outside], known[..., outside], atol=1e-4)
    assert not torch.allclose(shown[..., ~outside], known[..., ~outside], atol=0.1)
    assert moves.shape == (4, 10) and moves[0, CONTROL_NAMES.index("yaw")] < -0.2, "the head was turned left"


def test_lipsync_draws_the_lips_where_the_head_has_them_and_shows_the_clip_elsewhere(
    pipeline: AvatarPipeline, portrait: np.ndarray, turned: np.ndarray
) -> None:
    """Of drawn frames that are black, a disc remains, over the mouth, which moves with the head."""
    middles = []
    for picture in (portrait, turned):
        clip = np.stack([picture] * GEOMETRY.chunk_frames)
        retouch = pipeline.open_lipsync(portrait, lambda first, clip=clip: clip).task.told(0, np.zeros((4, 10), dtype=np.float32)).retouch
        assert retouch is not None
        black, white = (retouch(torch.full((4, 384, 256), level))[0, :256].numpy() for level in (0.0, 255.0))
        redrawn = (white - black) / 255.0
        assert redrawn.min() < 1e-4 and redrawn.max() > 0.999 and 0.02 < redrawn.mean() < 0.08
        luma = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").to_ndarray(format="yuv420p")[:256]
        assert np.abs(black - luma)[redrawn < 1e-4].max() < 3.0
        rows, columns = np.indices(redrawn.shape)
        middles.append(((redrawn * columns).sum() / redrawn.sum(), (redrawn * rows).sum() / redrawn.sum()))
    (x, y), (turned_x, _) = middles
    assert abs(x - 128) < 5 and 150 < y < 172
    assert turned_x < x - 3, "it was turned to the left"


def test_the_fit_of_the_portrait_itself_moves_nothing(pipeline: AvatarPipeline, portrait: np.ndarray) -> None:
    state = pipeline.open_lipsync(portrait, lambda first: np.stack([portrait] * 4))
    with torch.inference_mode():
        moves = state.task.told(0, np.zeros((4, 10), dtype=np.float32)).moves
    assert np.abs(moves).max() < 0.1


def test_a_dropped_jaw_is_seen(pipeline: AvatarPipeline, portrait: np.ndarray) -> None:
    """Of pictures of one clip, the one whose mouth was opened comes out as the most open."""
    t = np.arange(GEOMETRY.step_samples_16k) / 16_000
    vowel = (9000 * np.sign(np.sin(2 * np.pi * 130 * t)) * np.sin(2 * np.pi * 700 * t)).astype(np.int16)
    state = pipeline.open(portrait, seed=0)
    for _ in range(4):
        (chunk,), (state,) = pipeline.step([state], [vowel], ["speaking"])
    spoken = av.VideoFrame.from_ndarray(chunk[-1], format="yuv420p").reformat(format="rgb24").to_ndarray()
    drops, _ = pipeline.jaws_and_poses(np.stack((portrait, spoken)))
    assert drops[1] > drops[0] + 1.0


def test_a_slope_goes_on_through_what_is_not_known() -> None:
    """Laplace's equation is solved by every plane; what is known stays as it is."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    field = (2 * x - 3 * y + 1).flatten()
    hidden = torch.where(mouth_mask().flatten() == 1, torch.full_like(field, 99.0), field)
    assert torch.allclose(smooth_continuation(mouth_mask()) @ hidden, field, atol=1e-3)
