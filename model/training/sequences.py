"""Training sequences of the rolling window: encoded clips in memory, batches, and one parallel pass over a whole sequence.

A sequence is K consecutive latent frames of a clip plus a reference. In one pass every frame appears clean (as context) and
noisy (to be denoised); each noisy frame attends to `[reference | two clean frames before it | itself]`, exactly the window that
serving uses with its cache. Missing context at the start is the reference, which is how a session starts.
Legend: B sequences, K frames a sequence, C latent channels, h w latent pixels, D model width.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from model.audio import AudioEncoder
from model.conditions import STEPS_BEFORE, STEPS_PER_LATENT, audio_tokens, image_tokens, masked_video, move_tokens
from model.controls import NUM_CONTROLS, neutral_controls
from model.dit import DiT
from model.motion import NUM_HEAD_CONTROLS
from model.text import StyleEncoder, tokenise
from model.training.augment import augment
from model.training.clips import Clip, clip_paths, load_clip
from model.training.loop import to_picture_tensor
from model.training.revoice import revoiced
from model.training.soup import SOUP, Soup, draw_task, mask_of
from model.training.styles import styles_seen
from model.training.train_vae import EYES_BOX, MIRRORED, MOUTH_BOX
from model.training.visemes import lips_pressed
from model.vae import Reference, ReferenceVAE

STEP_SAMPLES = 320
_LEAD = 16_000  # samples a clip stores before its first frame


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """latents [R, T, C, h, w], one version a reference; stills [R, C, h, w], the references themselves, and their image tokens
    [R, 16, c]; moves [R, F, NUM_CONTROLS], controls of video frames less the reference's; audio [V, T, 12, 192], V versions of the sound;
    pressed [F], 1 where the lips are closed for a bilabial."""

    latents: Tensor
    stills: Tensor
    image: Tensor
    moves: Tensor
    audio: Tensor
    pressed: Tensor

    def styles(self, frames: slice) -> Tensor:
        """Ids [L] of the words for a stretch. The first reference looks at the viewer, as a prompt takes it."""
        return torch.tensor(tokenise(styles_seen(self.moves[0, frames] + torch.from_numpy(neutral_controls()))))


@torch.inference_mode()
def encode_clip(path: Path, vae: ReferenceVAE, encoder: AudioEncoder, versions: int) -> list[EncodedClip]:
    """A clip and its mirror image as the DiT sees them, with `versions` of its sound."""
    clip = load_clip(path)
    length = len(clip.frames) // 4
    audio = _sound_versions(clip, length, encoder, versions)
    pressed = torch.from_numpy(lips_pressed(clip.mouth[: length * 4]).astype(np.float32))
    frames, pictures = to_picture_tensor(clip.frames[: length * 4]), to_picture_tensor(clip.references)
    encoded = []
    for mirrored in (False, True):
        # The neutral picture, and one of the others: portraits are not always taken straight and silent.
        chosen = [0, other_reference(clip, mirrored)]
        moves = torch.from_numpy(np.stack([clip.moves(slice(length * 4), which) for which in chosen]))
        if mirrored:
            frames, pictures, moves = frames.flip(3), pictures.flip(3), moves * MIRRORED
        reference = vae.reference(pictures[chosen].to(vae.latent_mean.device))
        latents = torch.stack([_encode(vae, frames, reference.one(which), moves[which]) for which in range(len(chosen))])
        encoded.append(EncodedClip(
            latents=latents.half().cpu(), stills=vae.encode_still(reference).half().cpu(),
            image=image_tokens(reference.coarse).half().cpu(), moves=moves, audio=audio, pressed=pressed,
        ))  # fmt: skip
    return encoded


def _sound_versions(clip: Clip, length: int, encoder: AudioEncoder, versions: int) -> Tensor:
    """Tokens [versions, length, 12, 192]: the clip's own voice, others where there are to be more than three, the own augmented."""
    others = revoiced(clip, encoder, np.arange(-STEPS_BEFORE, length * STEPS_PER_LATENT), max(versions - 3, 0))
    sounds = [clip.samples.astype(np.float32) / 32768.0]
    sounds += [augment(sounds[0], clip.person_seed * 16 + v) for v in range(1, versions - len(others))]
    start = _LEAD - STEPS_BEFORE * STEP_SAMPLES - encoder.context_samples
    stop = _LEAD + (length * STEPS_PER_LATENT) * STEP_SAMPLES + encoder.lookahead_samples
    own = encoder(torch.from_numpy(np.stack([_cut(s, start, stop) for s in sounds])))
    return audio_tokens(torch.cat((own, *(other[None] for other in others))), length).half()


def other_reference(clip: Clip, mirrored: bool) -> int:
    """Which of a clip's pictures is its second reference."""
    return 1 + (clip.person_seed + mirrored) % (len(clip.references) - 1)


def _encode(vae: ReferenceVAE, frames: Tensor, one: Reference, moves: Tensor) -> Tensor:
    """In pieces that fit a processor's cache."""
    device = one.picture.device
    return torch.cat([vae.encode(f.to(device), one, m.to(device)) for f, m in zip(frames.split(8), moves.split(8), strict=True)])


def _cut(samples: np.ndarray, start: int, stop: int) -> np.ndarray:
    left, right = max(-start, 0), max(stop - len(samples), 0)
    return np.pad(samples, (left, right))[start + left : stop + left].astype(np.float32)


def load_sequences(folder: Path, vae: ReferenceVAE, encoder: AudioEncoder, *, mirrored: bool, versions: int) -> list[EncodedClip]:
    """All clips of a folder, encoded once, a process a core, and kept beside it under a name that follows from the weights."""
    cache = folder / f"encoded_{_digest(vae, encoder)}_{versions}"  # the decoder has no say in it, eyes little
    cache.mkdir(exist_ok=True)
    stored = {path: cache / f"{path.stem}.pt" for path in clip_paths(folder)}
    missing = [path for path, file in stored.items() if not file.exists()]
    if missing:
        store = partial(_store, cache=cache, vae=vae, encoder=encoder, versions=versions)
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            for _ in tqdm(pool.map(store, missing), total=len(missing), desc="encoding", unit="clip"):
                pass
    loaded = []
    for file in stored.values():
        clips = [EncodedClip(*fields) for fields in torch.load(file, weights_only=True)]
        loaded += clips if mirrored else clips[:1]
    return loaded


def _store(path: Path, cache: Path, vae: ReferenceVAE, encoder: AudioEncoder, versions: int) -> None:
    torch.set_num_threads(1)
    fresh = encode_clip(path, vae, encoder, versions)
    torch.save([[getattr(clip, name) for name in EncodedClip.__dataclass_fields__] for clip in fresh], cache / f"{path.stem}.pt")


def _digest(vae: ReferenceVAE, encoder: AudioEncoder) -> str:
    total = hashlib.sha256()
    without = ("decoder.", "reference.eyes.")
    kept = {name: value for name, value in vae.state_dict().items() if not name.startswith(without)}
    for value in (*kept.values(), *encoder.state_dict().values()):
        total.update(value.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Batch:
    """latents [B, K, C, h, w], still [B, C, h, w] and image [B, 16, c] of the reference, controls [B, K, c] (move tokens), audio
    [B, K, 12, 192], text [B, L] ids; known [B, K, 4, h, w], 1 where the video frames to be made are known already, anchored [B], 1 where
    the reference is; pressed [B, 4 K], 1 where the lips are closed for a bilabial."""

    latents: Tensor
    still: Tensor
    image: Tensor
    controls: Tensor
    audio: Tensor
    text: Tensor
    known: Tensor
    anchored: Tensor
    pressed: Tensor


def cut(clip: EncodedClip, start: int, length: int, which: int, task: str, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """A stretch of a clip relative to reference `which`, with a random version of its sound; the fields of a batch of one."""
    span, frames = slice(start, start + length), slice(4 * start, 4 * (start + length))
    audio = clip.audio[int(rng.integers(len(clip.audio))), span]
    text = clip.styles(frames)
    text = text if rng.random() < 0.5 else torch.zeros_like(text)
    latents, controls = clip.latents[which, span], move_tokens(clip.moves[which, frames])
    known, anchored = mask_of(task, (length, 4, *latents.shape[2:]), rng)
    still, image = (told[which] * anchored.to(told) for told in (clip.stills, clip.image))
    return latents, still, image, controls, audio, text, known, anchored, clip.pressed[frames]


def to_batch(cuts: list[tuple[Tensor, ...]], device: str) -> Batch:
    fields = [torch.stack(column).to(device) for column in zip(*cuts, strict=True)]
    return Batch(*(f.float() if f.is_floating_point() else f for f in fields))


def far_turned(clips: list[EncodedClip]) -> np.ndarray:
    """Chances to draw each clip, in proportion to how far its head is turned: such poses are rare, and wrong for longest."""
    far = np.array([float(clip.moves[0, :, :NUM_HEAD_CONTROLS].abs().amax(dim=1).mean()) for clip in clips])
    return far / far.sum()


def sample_batch(
    clips: list[EncodedClip], size: int, length: int, rng: np.random.Generator, device: str, chances: np.ndarray | None = None,
    soup: Soup = SOUP,
) -> Batch:  # fmt: skip
    cuts = []
    for index in rng.choice(len(clips), size=size, p=chances):
        clip = clips[index]
        start = int(rng.integers(0, clip.latents.shape[1] - length + 1))
        cuts.append(cut(clip, start, length, 0 if rng.random() < 0.75 else 1, draw_task(soup, rng), rng))
    return to_batch(cuts, device)


class SequencePass(nn.Module):
    """The DiT and the text encoder on whole sequences; `forward` returns the clean prediction of every noisy frame."""

    def __init__(self, dit: DiT, text: StyleEncoder) -> None:
        super().__init__()
        self.dit, self.text = dit, text

    def forward(
        self, batch: Batch, noisy: Tensor, t: Tensor, context: Tensor, context_sigma: Tensor, heard: Tensor | None = None
    ) -> Tensor:
        """noisy [B, K, C, h, w] at levels t [B, K]; context [B, K-1, C, h, w] as later frames see it, its noise told by
        context_sigma [B, 1]; heard [B, K, 12, 192], what the noisy frames hear in place of the batch's sound. Returns x0."""
        size, length = noisy.shape[:2]
        known = torch.cat((batch.still[:, None], context), dim=1)
        x = torch.cat((known, noisy), dim=1)
        still = batch.still[:, None].expand_as(noisy)
        y = torch.cat((known, masked_video(still, batch.latents, batch.known, 1.0 / self.dit.mean_latent.latent_scale)), dim=1)
        given = torch.ones_like(batch.known)
        given[:, 0] = batch.anchored[:, None, None, None]
        mask = torch.cat((given, batch.known), dim=1)
        zero = torch.zeros_like(t[:, :1])
        levels = torch.cat((zero, context_sigma.expand(-1, length - 1), t), dim=1)
        controls = torch.cat((torch.zeros_like(batch.controls[:, :1]), batch.controls[:, :-1], batch.controls), dim=1)
        audio = torch.cat((torch.zeros_like(batch.audio[:, :1]), batch.audio[:, :-1], batch.audio if heard is None else heard), dim=1)
        frames = 2 * length
        text = self.text(batch.text)
        gather = _context_indices(length).to(noisy.device)

        def context_fn(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            return _window(k, gather, size), _window(v, gather, size)

        flat = [item.flatten(0, 1)[:, None] for item in (x, mask, y, levels[..., None])]
        out = self.dit(
            flat[0], flat[1], flat[2], flat[3][..., 0], static=self.dit.static_keys(text, batch.image),
            audio_BTLC=audio.flatten(0, 1)[:, None], control_BTC=controls.flatten(0, 1)[:, None],
            context=context_fn, context_frames=3,
        )  # fmt: skip
        return y[:, length:] + out.view(size, frames, -1, *noisy.shape[3:])[:, length:]


def _context_indices(length: int) -> Tensor:
    """For the frames [reference, clean 0..K-2, noisy 0..K-1]: which three frames each attends to besides itself, oldest first."""

    def clean(frame: int) -> int:
        return frame + 1 if frame >= 0 else 0

    rows = [(0, 0, 0)]
    rows += [(0, clean(i - 2), clean(i - 1)) for i in range(length - 1)]
    rows += [(0, clean(i - 2), clean(i - 1)) for i in range(length)]
    return torch.tensor(rows)


def _window(x_BND: Tensor, gather_F3: Tensor, size: int) -> Tensor:
    frames = x_BND.unflatten(0, (size, -1))
    earlier = frames[:, gather_F3].flatten(2, 3)
    return torch.cat((earlier, frames), dim=2).flatten(0, 1)


@torch.no_grad()
def latent_weight(vae: ReferenceVAE, pictures: Tensor) -> Tensor:
    """Loss weight [C, h, w], mean 1: what a unit of each channel does to the decoded pictures, far more around mouth and eyes.

    The turning head is nearly all of the change, and learnt first: at a weight of 4 the whole was at 17 % of the still portrait's error
    and the mouth at 70 %.

    pictures [N, 3, H, W] in [-1, 1], as references.
    """
    reference = vae.reference(pictures)
    unmoved = torch.zeros(len(pictures), NUM_CONTROLS).to(pictures)
    still = vae.encoder(pictures, reference, reference.moved(unmoved))
    before = vae.decode_frames(still, reference, unmoved)
    noise = torch.randn(still[:, 0].shape, generator=torch.Generator().manual_seed(0)).to(still)
    effect = []
    for channel in range(still.shape[1]):
        moved = still.clone()
        moved[:, channel] += 0.3 * noise
        effect.append((vae.decode_frames(moved, reference, unmoved) - before).square().mean())
    per_channel = torch.stack(effect).repeat(vae.config.time_stride) * vae.latent_std.square()
    patch = vae.config.patch
    place = torch.ones(256 // patch, 256 // patch)
    for box, factor in ((EYES_BOX, 4.0), (MOUTH_BOX, 40.0)):
        place[tuple(slice(s.start // patch, -(-s.stop // patch)) for s in box)] = factor
    weight = per_channel[:, None, None] * place.to(per_channel)
    return weight / weight.mean()


def noise_levels(shape: tuple[int, ...], generator: torch.Generator, shift: float = 3.0) -> Tensor:
    """Half logit-normal, half uniform, shifted towards noise; every other is pure noise, where few steps do most of their work."""
    normal = torch.sigmoid(torch.randn(shape, generator=generator))
    uniform = torch.rand(shape, generator=generator)
    t = torch.where(torch.rand(shape, generator=generator) < 0.5, normal, uniform)
    t = shift * t / (1 + (shift - 1) * t)
    return torch.where(torch.rand(shape, generator=generator) < 0.5, torch.ones(()), t).clamp(min=0.02)


def noised(clean: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """The straight path x_t = (1 - t) x0 + t eps (rectified flow); t [B, K]."""
    level = t[..., None, None, None]
    return (1 - level) * clean + level * noise
