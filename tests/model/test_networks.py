"""Autoencoder, transformer, sampler and picture conversion: the properties the rest relies on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from av import VideoFrame

from kernels.yuv import rgb_to_i420
from model.conditions import STEPS_BEFORE, audio_tokens
from model.config import PRESENTER_DIT, VAEConfig
from model.controls import CONTROL_NAMES, NUM_CONTROLS, ControllerState, next_controls
from model.dit import DiT
from model.i420_decoder import I420Canvas, I420Decoder
from model.layers import Layers
from model.manner import styles_of
from model.motion import BLINK, Motion, Moved, Sources
from model.mouth import DEPTH
from model.rope import apply_rope, rope_table
from model.sampler import sample_euler, sample_renoise, shifted_sigmas
from model.text import tokenise
from model.usual import USUAL
from model.vae import Change, Drawing, ReferenceVAE, Region, compose, dct_basis

TINY_VAE = VAEConfig(patch=16, time_stride=4, frame_channels=2, widths=(4, 6, 8), grid=4)


def tiny_vae(grid: int = TINY_VAE.grid) -> ReferenceVAE:
    torch.manual_seed(0)
    vae = ReferenceVAE(replace(TINY_VAE, grid=grid)).eval().requires_grad_(False)
    fields, decoder = vae.reference.fields, vae.decoder
    finders = (vae.reference.eyes.eyes, vae.reference.person.edge)
    drawn = ((decoder.motion, 0.05), (decoder.paint, 0.05), (fields.out, 0.02), (finders[0][-1], 0.02), (finders[1][-1], 0.5))
    for layer, std in drawn:
        torch.nn.init.normal_(layer.weight, std=std)
    for finder in finders:
        torch.nn.init.constant_(finder[-1].bias, 5.0)  # eyes, half open, and half a person
    return vae


def some_moves(num_frames: int) -> torch.Tensor:
    """With a blink in every other frame."""
    moves = torch.randn(num_frames, NUM_CONTROLS, generator=torch.Generator().manual_seed(4)) * 0.5
    moves[:, BLINK] = torch.arange(num_frames) % 2 * 0.9
    return moves


def test_streaming_decode_equals_whole_decode() -> None:
    """Latent frames decoded one by one give the whole clip decoded at once."""
    vae = tiny_vae()
    latents = torch.randn(3, TINY_VAE.latent_channels, 4, 4)
    reference = vae.reference(torch.rand(1, 3, 64, 64) * 2 - 1)
    moves = some_moves(12)
    whole = vae.decode(latents, reference, moves)
    parts = torch.cat([vae.decode(one[None], reference, moved) for one, moved in zip(latents, moves.split(4), strict=True)])
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)


def test_stacking_frames_is_undone_by_unstacking() -> None:
    vae = tiny_vae()
    vae.latent_mean.copy_(torch.randn(TINY_VAE.latent_channels))
    vae.latent_std.copy_(torch.rand(TINY_VAE.latent_channels) + 0.5)
    frames = torch.randn(8, TINY_VAE.frame_channels, 4, 4)
    torch.testing.assert_close(vae.unstack(vae.stack(frames)), frames, rtol=0, atol=1e-5)


def test_a_still_far_from_those_of_training_is_taken_for_one_near_them() -> None:
    """Where it is near, it stays as it is; before there are statistics, too."""
    vae = tiny_vae()
    reference = vae.reference(torch.rand(1, 3, 64, 64) * 2 - 1)
    frame = vae.still_frame(reference)[0]
    alone = vae.unstack(vae.encode_still(reference)[0][None])
    torch.testing.assert_close(alone, frame.expand_as(alone), rtol=0, atol=1e-5)
    vae.usual_still.mean.copy_(frame)
    vae.usual_still.mean[0] -= 3.0
    vae.usual_still.std.fill_(1.0)
    kept = vae.unstack(vae.encode_still(reference)[0][None])
    torch.testing.assert_close(kept[:, 0], (frame[0] - 3.0 + USUAL).expand_as(kept[:, 0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(kept[:, 1], frame[1].expand_as(kept[:, 1]), rtol=0, atol=1e-5)


def test_a_portrait_is_seen_within_what_is_usual_among_people() -> None:
    """Its features at all three sizes, while its pixels stay its own."""
    vae = tiny_vae()
    with torch.no_grad():
        people = torch.rand(8, 3, 64, 64) * 2 - 1
        for usual, features in zip(vae.reference.of_people(), vae.reference.features(people), strict=True):
            usual.learn(features)
        stranger = torch.full((1, 3, 64, 64), 4.0)
        seen, own = vae.reference(stranger), vae.reference.features(stranger)
    for name, usual, plain in zip(("fine", "middle", "coarse"), vae.reference.of_people(), own, strict=True):
        away = (getattr(seen, name) - usual.mean).abs() / usual.std
        assert away.max() <= USUAL + 1e-3 < ((plain - usual.mean).abs() / usual.std).max()
    torch.testing.assert_close(seen.picture, stranger)


def test_an_untrained_decoder_shows_the_portrait() -> None:
    """Nothing moves and nothing is painted until training says so."""
    vae = ReferenceVAE(TINY_VAE)
    picture = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        still = torch.zeros(8, NUM_CONTROLS)
        shown = vae.decode(torch.randn(2, TINY_VAE.latent_channels, 4, 4), vae.reference(picture), still)
    assert (shown - picture.repeat_interleave(4, dim=0)).abs().max() < 0.005


def test_motion_fetches_from_where_it_points() -> None:
    """A displacement of (+3, -2) pixels shows what lies 3 to the right and 2 above; a full cover shows the colour on dark."""
    picture = torch.rand(1, 3, 32, 32)
    motion = Sources(torch.tensor([3.0, -2.0])[None, :, None, None].expand(1, 2, 16, 16), torch.zeros(1, 2, 16, 16))
    everything = Layers.of(picture, torch.ones(1, 1, 32, 32), torch.zeros(1, 3, 32, 32), picture)
    shown = compose(everything, Drawing(motion, torch.full((1, 1, 32, 32), -40.0), torch.zeros(1, 3, 32, 32)))
    torch.testing.assert_close(shown[..., 4:, :28], picture[..., 2:30, 3:31], rtol=0, atol=1e-4)
    hidden = compose(everything, Drawing(motion, torch.full((1, 1, 32, 32), 40.0), torch.full((1, 3, 32, 32), 0.25)))
    torch.testing.assert_close(hidden, (torch.tensor(DEPTH) + 0.25)[None, :, None, None].expand_as(hidden))


def test_serving_paints_what_the_decoder_shows() -> None:
    """The decoder for I420 gives the RGB decoder's pictures, converted, within a step of luma and what halving does to chroma."""
    vae = tiny_vae()
    # Colours that stay within what a picture can show, motion and texture as smooth as a face's.
    vae.decoder.paint.weight.mul_(0.1)
    vae.decoder.motion.weight.mul_(0.2)
    picture = F.interpolate(torch.rand(2, 3, 8, 8) - 0.5, size=(64, 64), mode="bicubic")
    reference = vae.reference(picture)
    latents, moves = torch.randn(6, TINY_VAE.frame_channels, 4, 4), some_moves(6)
    expected = rgb_to_i420(vae.decode_frames(latents, reference, moves).clamp(-1, 1)).float()
    decoder = I420Decoder(vae.decoder, torch.device("cpu"), torch.float32)
    shown = decoder(latents, I420Canvas.cat([decoder.canvas(vae.reference(one[None])) for one in picture]), moves).float()
    difference = (shown - expected).abs()
    assert shown.std() > 10
    assert difference[:, :64].max() <= 1
    assert difference[:, 64:].mean() < 1.0


def test_a_region_is_decoded_as_within_the_whole() -> None:
    """Away from its edge, where its neighbours are missing."""
    vae = tiny_vae(grid=12)
    reference = vae.reference(torch.rand(1, 3, 192, 192) * 2 - 1)
    latents, canvas = torch.randn(2, TINY_VAE.frame_channels, 12, 12), vae.decoder.canvas(reference)
    region = Region(slice(2, 9), slice(4, 12))
    moves = some_moves(2)
    whole, part = vae.decoder(latents, canvas, moves), vae.decoder(latents, canvas, moves, region)
    for seen, expected, scale in ((part.colour, whole.colour, 16), (part.motion, whole.motion, 8)):
        inner = (..., slice(3 * scale, -3 * scale), slice(3 * scale, -3 * scale))
        torch.testing.assert_close(region.of(seen, scale)[inner], region.of(expected, scale)[inner], rtol=1e-4, atol=1e-5)
        assert seen.shape == expected.shape and not seen[..., : 2 * scale, :].any()


def test_what_is_painted_turns_with_the_head() -> None:
    """A patch of colour in the portrait's place is seen where the head took it, and frames put back into that place are the portrait."""
    picture = F.interpolate(torch.rand(1, 3, 8, 8) - 0.5, size=(64, 64), mode="bicubic")
    by = torch.tensor([6.0, -4.0])[None, :, None, None].expand(1, 2, 32, 32)  # points go right and up
    none = Sources(torch.zeros_like(by), torch.zeros_like(by))
    moved = Moved(Layers.of(picture, torch.ones(1, 1, 64, 64), picture, picture), Motion(by, -by, none))
    colour = torch.zeros(1, 3, 64, 64)
    colour[..., 30:40, 20:30] = 0.5
    change = Change(torch.zeros_like(by), torch.full((1, 1, 64, 64), -40.0), colour).carried(moved.motion)
    painted = compose(moved.layers, change) - moved.shown()
    expected = torch.zeros_like(colour)
    expected[..., 26:36, 26:36] = 0.5
    torch.testing.assert_close(painted, expected, rtol=0, atol=1e-4)
    back, told = moved.in_place(moved.shown()).split(3, dim=1)
    torch.testing.assert_close(told, picture, rtol=0, atol=1e-4)
    torch.testing.assert_close(back[..., 8:-8, 8:-8], picture[..., 8:-8, 8:-8], rtol=0, atol=1e-4)


def test_encode_refuses_a_partial_latent_frame() -> None:
    vae = tiny_vae()
    with pytest.raises(ValueError, match="multiple of 4"):
        vae.encode(torch.zeros(3, 3, 64, 64), vae.reference(torch.zeros(1, 3, 64, 64)), torch.zeros(3, NUM_CONTROLS))


def test_time_basis_is_orthonormal() -> None:
    torch.testing.assert_close(dct_basis(4) @ dct_basis(4).T, torch.eye(4))


def test_untrained_transformer_changes_nothing() -> None:
    """The head starts at zero: nothing is added."""
    config = replace(PRESENTER_DIT, dim=48, ffn_dim=64, num_heads=2, num_layers=1, grid=4)
    y = torch.randn(1, 2, config.latent_channels, 4, 4)
    dit = DiT(config)
    out = dit(
        torch.randn_like(y), torch.zeros(1, 2, 4, 4, 4), y, torch.ones(1, 2),
        static=dit.static_keys(torch.zeros(1, 4, config.text_dim), torch.randn(1, config.image_tokens, config.image_dim)),
        audio_BTLC=torch.randn(1, 2, config.audio_tokens, config.audio_dim),
        control_BTC=torch.zeros(1, 2, config.control_dim),
    )  # fmt: skip
    assert out.shape == (1, 2, config.latent_channels, 4, 4) and not out.any()


def test_rotary_scores_depend_on_distance_only() -> None:
    table = rope_table(16, 8, 1, 1)
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(i: int, j: int) -> torch.Tensor:
        return (apply_rope(q, table[i : i + 1]) * apply_rope(k, table[j : j + 1])).sum()

    torch.testing.assert_close(score(5, 2), score(6, 3), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", [sample_euler, sample_renoise])
def test_samplers_return_what_a_perfect_denoiser_knows(sampler) -> None:  # type: ignore[no-untyped-def]
    truth = torch.randn(3, 4)
    out = sampler(lambda x, t: truth, lambda: torch.randn(3, 4), shifted_sigmas(4, 3.0))
    torch.testing.assert_close(out, truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sigmas", [[], [0.5], [1.0, 1.0], [1.0, 0.0]])
def test_samplers_refuse_bad_schedules(sigmas: list[float]) -> None:
    with pytest.raises(ValueError, match="sigmas"):
        sample_renoise(lambda x, t: x, lambda: torch.zeros(1), sigmas)


def test_i420_agrees_with_ffmpeg() -> None:
    """Our conversion and FFmpeg's differ by rounding only."""
    smooth = np.linspace(0, 255, 64, dtype=np.float32)
    planes = (smooth[None].repeat(64, 0), smooth[:, None].repeat(64, 1), np.full((64, 64), 90.0))
    picture = np.stack(planes, -1).astype(np.uint8)
    expected = VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p").to_ndarray()
    ours = rgb_to_i420(torch.from_numpy(picture).movedim(-1, 0)[None].float() / 127.5 - 1)[0].numpy()
    assert ours.shape == expected.shape
    assert np.abs(ours.astype(int) - expected.astype(int)).max() <= 3


def test_audio_tokens_belong_to_their_latent_frame() -> None:
    steps = torch.arange(STEPS_BEFORE + 16.0).view(1, -1, 1)
    tokens = audio_tokens(steps, 2)[0, :, :, 0]
    assert tokens[0].tolist() == list(range(12))
    assert tokens[1].tolist() == list(range(8, 20))
    with pytest.raises(ValueError, match="audio steps"):
        audio_tokens(steps, 3)


def test_controls_in_chunks_equal_controls_at_once() -> None:
    state = ControllerState(seed=5)
    whole, _ = next_controls(state, 40, "speaking")
    parts = []
    for _ in range(10):
        part, state = next_controls(state, 4, "speaking")
        parts.append(part)
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


def test_an_idle_face_blinks_like_a_person() -> None:
    controls, _ = next_controls(ControllerState(seed=2), 25 * 120, "idle")
    closed = controls[:, CONTROL_NAMES.index("blink")] > 0.5
    blinks = int((np.diff(closed.astype(int)) == 1).sum())
    assert 20 <= blinks <= 50  # 10 to 25 a minute
    assert closed.mean() < 0.1


def test_unknown_style_words_are_ignored() -> None:
    assert tokenise(styles_of("an astronaut smiles, looking left")) == [2, 6, 0, 0]
