"""The embedded preset: portrait and voice to frames, chunk by chunk.

Lives in the worker process and in `livemimic render`; both go through the same window, sampler and decoder. All streaming state is
in `AvatarState`, immutable and passed in and out, so a batch may mix sessions at any point of their lives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.checkpoints import PRESENTER_FILE, PresenterParts, load_presenter
from model.closures import close_lips, heard_closures
from model.conditions import STEPS_BEFORE, image_tokens, move_tokens
from model.config import PRESENTER_WINDOW, WindowConfig
from model.controls import NUM_CONTROLS, ControllerState, neutral_controls, next_controls
from model.devices import choose_device, keep_freed_memory, working_dtype
from model.errors import ConfigError
from model.geometry import Geometry
from model.i420_decoder import I420Canvas, I420Decoder, to_pixels
from model.manner import manner_of
from model.mouth import mouth_mask
from model.pose import PoseReader
from model.sampler import shifted_sigmas
from model.tasks import Between, Ends, LipSync, Talk, Task
from model.window import RollingWindow, WindowState

_STEP_SAMPLES = 320  # one audio feature step, 20 ms
# How far the first video frame of a chunk leans towards the last one before, but for the mouth. What happens within a chunk is predicted
# a little too small, so the step between two is too large: this evens them out (`livemimic train evaluate`, seam).
LEAN = 0.5
# Where the framing puts the skin above and below the lips, in the motion's rows and columns (half the picture's).
ABOVE_LIPS, BELOW_LIPS = (slice(67, 73), slice(56, 72)), (slice(86, 94), slice(56, 72))


@dataclass(frozen=True, slots=True)
class AvatarState:
    """Where a session is: its portrait, its window, the last video frame that was predicted and a face at rest, as latents [c, h, w], its
    motion, the sound before the next chunk (int16, 16 kHz), and its task."""

    canvas: I420Canvas
    window: WindowState
    last: Tensor
    resting: Tensor
    controller: ControllerState
    past_audio: np.ndarray
    task: Task = Talk()


class AvatarPipeline:
    """Preset `presenter`. Implements `model.presets.Pipeline`. Not thread-safe."""

    geometry = Geometry()

    def __init__(self, parts: PresenterParts, window: WindowConfig, device: torch.device, dtype: torch.dtype) -> None:
        self._audio = parts.audio.to(device)
        self._text = parts.text
        self._vae = parts.vae.to(device)
        self._decoder = I420Decoder(parts.vae.decoder, device, dtype)
        self._device = device
        self._past_samples = parts.audio.context_samples + STEPS_BEFORE * _STEP_SAMPLES
        silence = torch.zeros(1, self._past_samples + self.geometry.step_samples_16k, device=device)
        self._quiet = self._audio(silence)[0]
        self._window = RollingWindow(parts.dit.to(device, dtype), window, self._quiet)
        self._mouth = mouth_mask().to(device)
        self._lean = LEAN * (1.0 - self._mouth)

    @classmethod
    def load(cls, *, weights: Path | None = None, device: str = "auto", steps: int | None = None) -> AvatarPipeline:
        """`steps` denoising steps a chunk, 1 to 4 (default: what the weights were distilled for)."""
        if steps is not None and not 1 <= steps <= 4:
            raise ConfigError("bad_steps", f"steps must be 1 to 4, got {steps}", "Leave --steps out for the default.")
        chosen = choose_device(device)
        if chosen.type == "cpu":
            keep_freed_memory()
        window = PRESENTER_WINDOW if steps is None else replace(PRESENTER_WINDOW, sigmas=tuple(shifted_sigmas(steps, 3.0)))
        return cls(load_presenter(weights or PRESENTER_FILE), window, chosen, working_dtype(chosen))

    @torch.inference_mode()
    def open(self, portrait: np.ndarray, *, seed: int = 0, prompt: str = "") -> AvatarState:
        """A new session from a prepared portrait, uint8 RGB [256, 256, 3]. Known words of the prompt set how it moves."""
        reference = self._vae.reference(self._pictures(portrait[None]))
        anchor = self._vae.encode_still(reference)[0]
        window = self._window.open(anchor, anchor, image_tokens(reference.coarse)[0], self._text.encode(prompt)[0], seed)
        controller = ControllerState(seed, manner=manner_of(prompt))
        last = self._vae.unstack(anchor[None])[-1]
        resting = self._at_rest(window, self._unmoved(1))
        silence = np.zeros(self._past_samples, dtype=np.int16)
        return AvatarState(self._decoder.canvas(reference), window, last, resting, controller, silence)

    @torch.inference_mode()
    def open_between(self, first: np.ndarray, last: np.ndarray, num_frames: int, *, seed: int = 0, prompt: str = "") -> AvatarState:
        """A session that starts at one prepared portrait and, after `num_frames`, has arrived at another of the same person."""
        state = self.open(first, seed=seed, prompt=prompt)
        pictures = self._pictures(np.stack((first, last)))
        reference = self._vae.reference(pictures[:1])
        moves = torch.cat((self._unmoved(1), PoseReader(self._vae, reference)(pictures[1:])))
        latents = self._vae.encoder(pictures, reference, reference.moved(moves))
        answers = torch.stack((state.resting, self._at_rest(state.window, moves[1:])))
        missing = self._decoder.planes(pictures[1:]) - self._decoder(latents[1:], state.canvas, moves[1:])
        return replace(state, task=Between(self._vae, Ends(moves, latents, answers, missing[0], state.window.fill.float()), num_frames))

    @torch.inference_mode()
    def open_lipsync(self, portrait: np.ndarray, pictures: Callable[[int], np.ndarray], *, seed: int = 0) -> AvatarState:
        """A session whose frames are those of a clip but for the mouth.

        portrait: a picture of the clip with closed lips; pictures: for a chunk's first frame, uint8 RGB [chunk_frames, 256, 256, 3].
        """
        state = self.open(portrait, seed=seed)
        reference = self._vae.reference(self._pictures(portrait[None]))
        return replace(state, task=LipSync(self._vae, reference, lambda frame: self._pictures(pictures(frame)), self._decoder.planes))

    @torch.inference_mode()
    def jaws_and_poses(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of pictures of one person, uint8 RGB [N, 256, 256, 3]: how much further the jaw has dropped than in the first, in pixels, float32
        [N], and what moves the head there from the first's pose, float32 [N, NUM_CONTROLS]."""
        batch = self._pictures(pictures)
        read = PoseReader(self._vae, self._vae.reference(batch[:1]))
        came_from = torch.cat([read.motion(picture) for picture in batch.split(1)])
        above, below = (came_from[:, 1, rows, columns].mean(dim=(1, 2)) for rows, columns in (ABOVE_LIPS, BELOW_LIPS))
        return (above - below).cpu().numpy(), read.pose(came_from).cpu().numpy()

    def _pictures(self, pictures: np.ndarray) -> Tensor:
        """uint8 RGB [N, 256, 256, 3] as the networks take them."""
        size = (self.geometry.height, self.geometry.width, 3)
        if pictures.shape[1:] != size or pictures.dtype != np.uint8:
            raise ValueError(f"portrait must be uint8 {size}, got {pictures.dtype} {pictures.shape[1:]}")
        return torch.from_numpy(pictures).movedim(-1, 1).to(self._device, torch.float32) / 127.5 - 1.0

    def _unmoved(self, num_frames: int) -> Tensor:
        return torch.zeros(num_frames, NUM_CONTROLS, device=self._device)

    def _at_rest(self, window: WindowState, moves_1M: Tensor) -> Tensor:
        """What the network answers to silence in a pose that is held, as a frame's latents [c, h, w]."""
        told = move_tokens(moves_1M.expand(self.geometry.chunk_frames, -1))
        return self._vae.unstack(self._window.advance([window], self._quiet[None], told)[0].float()).mean(dim=0)

    def step(
        self, states: Sequence[AvatarState], audio: Sequence[np.ndarray], activity: Sequence[str]
    ) -> tuple[list[np.ndarray], list[AvatarState]]:
        """One chunk for each session.

        audio: int16 [geometry.step_samples_16k], the chunk's own sound and the look-ahead; activity: idle, listening, speaking.
        Returns frames, uint8 I420 [chunk_frames, H*3//2, W], and the state after the chunk, one a session.
        """
        motions = [next_controls(s.controller, self.geometry.chunk_frames, a) for s, a in zip(states, activity, strict=True)]
        frames, after = self.animate(states, audio, [controls for controls, _ in motions])
        return frames, [replace(s, controller=controller) for s, (_, controller) in zip(after, motions, strict=True)]

    @torch.inference_mode()
    def animate(
        self, states: Sequence[AvatarState], audio: Sequence[np.ndarray], motions: Sequence[np.ndarray]
    ) -> tuple[list[np.ndarray], list[AvatarState]]:
        """One chunk for each session with the head's motion given, float32 [chunk_frames, NUM_CONTROLS]; otherwise as `step`, but that the
        controller stays where it is."""
        for samples in audio:
            if samples.shape != (self.geometry.step_samples_16k,) or samples.dtype != np.int16:
                raise ValueError(f"audio must be int16 [{self.geometry.step_samples_16k}], got {samples.dtype} {samples.shape}")
        heard = np.stack([np.concatenate((s.past_audio, a)) for s, a in zip(states, audio, strict=True)])
        tokens = self._audio(torch.from_numpy(heard.astype(np.float32) / 32768.0).to(self._device))
        moved = [controls - neutral_controls() for controls in motions]
        told = [s.task.told(s.controller.frame, m) for s, m in zip(states, moved, strict=True)]
        moves = torch.from_numpy(np.concatenate([each.moves for each in told]).astype(np.float32)).to(self._device)
        known = [each.known for each in told]
        latents, windows = self._window.advance([s.window for s in states], tokens, move_tokens(moves), known=known)
        predicted = self._vae.unstack(latents.float()).unflatten(0, (len(states), -1))
        predicted[:, 0].lerp_(torch.stack([s.last for s in states]), self._lean)
        closures = heard_closures(self._audio, tokens, predicted.shape[1])
        closed = close_lips(predicted, torch.stack([s.resting for s in states]), closures, self._mouth)
        shown = torch.cat([each.finish(frames) for each, frames in zip(told, closed, strict=True)])
        drawn = self._decoder(shown, I420Canvas.cat([s.canvas for s in states]), moves).unflatten(0, (len(states), -1))
        frames = [f if each.retouch is None else to_pixels(each.retouch(f.float())) for each, f in zip(told, drawn, strict=True)]
        end = self._past_samples + self.geometry.chunk_samples_16k
        after = [
            replace(s, window=window, last=ends_at[-1], past_audio=past[end - self._past_samples : end])
            for s, window, ends_at, past in zip(states, windows, predicted, heard, strict=True)
        ]
        return [f.cpu().numpy() for f in frames], after
