"""What the autoencoder and its eyes are trained on: frames, their reference, motion and moves belong together after every change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import VAEConfig
from model.controls import CONTROL_NAMES, NUM_CONTROLS
from model.errors import ConfigError
from model.motion import BLINK, fetch
from model.training.clips import Clip, load_clip, save_clip
from model.training.train_finders import bent, elsewhere
from model.training.train_vae import Frames, Sample, augment, learn_usual, unseen
from model.vae import ReferenceVAE

SIZE = 256


def smooth(seed: int, channels: int = 3) -> torch.Tensor:
    coarse = torch.randn(1, channels, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic").clamp(-0.6, 0.6)


def test_augmented_motion_still_leads_to_the_frame() -> None:
    """Mirrored, zoomed, shifted and lit, a frame is still what its motion fetches from its reference."""
    references = torch.cat((smooth(1), smooth(2)))
    motion = torch.nn.functional.interpolate(torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(3)) * 3, size=(128, 128))
    frames = fetch(references, motion)
    nowhere, everywhere = torch.zeros(4, 1, SIZE, SIZE), torch.ones(2, 1, SIZE, SIZE)
    sample = Sample(frames, references, nowhere[:2], everywhere, motion, nowhere[..., ::2, ::2], nowhere, torch.randn(4, NUM_CONTROLS))
    for seed in range(4):
        changed = augment(sample, np.random.default_rng(seed))
        wrong = (fetch(changed.references, changed.motion) - changed.frames).abs()[..., 24:-24, 24:-24]
        assert wrong.mean() < 0.02
        assert torch.equal(changed.moves[:, BLINK], sample.moves[:, BLINK])
        turned = CONTROL_NAMES.index("yaw")
        assert torch.equal(changed.moves[:, turned].abs(), sample.moves[:, turned].abs())


def test_eyes_and_mattes_are_bent_as_their_faces_are() -> None:
    """What was an eye or a person in the picture is one in the bent picture: here eyes are what is red, and people are less dark."""
    portraits = -torch.ones(3, 5, SIZE, SIZE)
    portraits[:, 3:] = 0.0
    portraits[:, :3, 40:, 50:200], portraits[:, 4, 40:, 50:200] = -0.6, 1.0
    for columns in (slice(90, 110), slice(146, 166)):
        portraits[:, 0, 95:105, columns], portraits[:, 3, 95:105, columns] = 1.0, 1.0
    pictures, eyes, mattes = bent(portraits, np.random.default_rng(0))
    red = pictures[:, 0] - pictures[:, 1] > 0.4
    assert (red == (eyes > 0.5)).float().mean() > 0.995
    assert not torch.equal(eyes[0] > 0.5, portraits[0, 3] > 0.5) and not torch.equal(eyes[0], eyes[1])
    for picture, matte in zip(pictures, mattes, strict=True):
        assert picture[2][matte > 0.9].mean() > picture[2][matte < 0.1].mean() + 0.05


def test_people_change_rooms_with_their_outline() -> None:
    """Before another's backdrop, or one that nobody has, a person stays who they were; eyes and matte stay theirs."""
    portraits = torch.zeros(2, 5, SIZE, SIZE)
    portraits[0, :3], portraits[1, :3] = -0.5, 0.5
    portraits[:, :3, 60:, 60:200] = torch.tensor([0.9, -0.9])[:, None, None, None]
    portraits[:, 4, 60:, 60:200] = 1.0
    swapped = elsewhere_else = 0
    for seed in range(8):
        moved = elsewhere(portraits, np.random.default_rng(seed))
        torch.testing.assert_close(moved[:, :, 60:, 60:200], portraits[:, :, 60:, 60:200])
        assert moved[:, :3].abs().max() <= 1.0
        room = moved[0, :3, :40]
        swapped += bool((room == 0.5).all())
        elsewhere_else += bool(room.std() > 0.02)
    assert swapped and elsewhere_else


def counted_clip(first: int) -> Clip:
    """Twelve frames, each of its own number's grey from `first` on, told from three references in turn; the fourth blinks."""
    controls = np.zeros((12, NUM_CONTROLS), dtype=np.float32)
    controls[3, BLINK] = 1.0
    return Clip(
        frames=np.stack([np.full((16, 16, 3), first + f, np.uint8) for f in range(12)]),
        references=np.stack([np.full((16, 16, 3), 100 + r, np.uint8) for r in range(3)]), source=(np.arange(12) % 3).astype(np.uint8),
        motion=np.zeros((12, 8, 8, 2), np.float16), inside=np.zeros((12, 32), np.uint8), eyes=np.zeros((3, 32), np.uint8),
        matte=np.zeros((3, 16, 16), np.uint8), outline=np.zeros((12, 8, 8), np.uint8), teeth=np.zeros((3, 6, 2), np.float32),
        controls=controls, reference_controls=np.ones((3, NUM_CONTROLS), np.float32), mouth=np.zeros((12, 1), np.float32),
        samples=np.zeros(1, np.int16), person_seed=1,
    )  # fmt: skip


def test_drawn_frames_come_in_pairs_of_one_reference_and_often_blink(tmp_path: Path) -> None:
    rng, clip = np.random.default_rng(0), counted_clip(0)
    save_clip(tmp_path / "clip_000001.npz", clip)
    np.savez(tmp_path / "earlier.npz", frames=clip.frames)
    with pytest.raises(ConfigError, match="outline") as error:
        load_clip(tmp_path / "earlier.npz")
    assert "render it again" in error.value.hint
    drawn = [Frames(tmp_path).draw(8, rng) for _ in range(20)]
    blinking = 0
    for sample in drawn:
        assert len(sample.frames) == 8 and len(sample.references) == 4
        shown = ((sample.frames[:, 0, 0, 0] + 1) * 127.5).round().long()
        told = ((sample.references[:, 0, 0, 0] + 1) * 127.5).round().long() - 100
        assert torch.equal(shown % 3, told.repeat_interleave(2))
        assert (sample.moves[:, 0] == -1.0).all(), "moves are less the reference's own controls"
        blinking += int((shown == 3).sum())
    assert blinking > 2 * 20 * 8 / 12


def test_a_cast_plays_the_same_frames_and_none_may_be_missing(tmp_path: Path) -> None:
    own, cast = tmp_path / "own", tmp_path / "cast"
    for folder, offset in ((own, 0), (cast, 100)):
        folder.mkdir()
        for clip in range(2):
            save_clip(folder / f"clip_{clip:06d}.npz", counted_clip(20 * clip + offset))
    drawn = Frames(own, cast=cast).draw(8, np.random.default_rng(0))
    shown = ((drawn.frames[:, 0, 0, 0] + 1) * 127.5).round().long()
    assert torch.equal(shown[:4] + 100, shown[4:]) and len(drawn.references) == 4
    (cast / "clip_000001.npz").unlink()
    with pytest.raises(ConfigError, match="has no clip_000001.npz"):
        Frames(own, cast=cast)


def test_what_is_usual_is_learnt_from_people_and_their_mirror_images(tmp_path: Path) -> None:
    for clip in range(3):
        save_clip(tmp_path / f"clip_{clip:06d}.npz", counted_clip(20 * clip))
    torch.manual_seed(0)
    vae = ReferenceVAE(VAEConfig(patch=16, time_stride=4, frame_channels=2, widths=(4, 6, 8), grid=1))
    with torch.no_grad():
        seen = vae.reference.features(torch.rand(1, 3, 16, 16) * 2 - 1)
        assert all(torch.equal(usual(planes), planes) for usual, planes in zip(vae.reference.of_people(), seen, strict=True))
        learn_usual(vae, tmp_path)
        # All look the same: nobody may look otherwise.
        own = vae.reference.features(torch.full((1, 3, 16, 16), 100 / 127.5 - 1))
        for usual, planes, one in zip(vae.reference.of_people(), seen, own, strict=True):
            torch.testing.assert_close(usual(planes), one, rtol=0, atol=1e-4)


def test_portraits_whose_features_are_hidden_look_like_people_on_average() -> None:
    torch.manual_seed(0)
    vae = ReferenceVAE(VAEConfig(patch=16, time_stride=4, frame_channels=2, widths=(4, 6, 8), grid=4))
    with torch.no_grad():
        for usual, planes in zip(vae.reference.of_people(), vae.reference.features(torch.rand(8, 3, 64, 64)), strict=True):
            usual.learn(planes)
        reference = vae.reference(torch.rand(64, 3, 64, 64) * 2 - 1)
        shown = unseen(reference, vae, np.random.default_rng(0))
    hidden = (shown.coarse == vae.reference.of_people()[2].mean).flatten(1).all(dim=1)
    assert 8 <= int(hidden.sum()) <= 24, "a quarter"
    assert torch.equal(shown.fine[~hidden], reference.fine[~hidden]) and torch.equal(shown.lips, reference.lips)
    assert torch.equal(shown.fine[hidden], vae.reference.of_people()[0].mean.expand_as(shown.fine[hidden]))
