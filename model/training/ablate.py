"""What each part of the training does: short students that differ in one thing, and the teacher sampled in several ways, rolled out on
held-out people.

Every variant is distilled from the same teacher for the same minutes, then speaks and moves as the held-out clips do, through the window
that serves. Columns: error against the true latents as a share of the still portrait's; how well the visible inside of the mouth
follows the true one (correlation, slope); steps between chunks over those within, beside the true video's; error in the last
third of a clip over the first. Short students are worse than the shipped one: compare rows, not with other tables.

The teacher's rows are of four steps, because phases need steps: text, image and sound weighed by the noise level as in EchoMimicV3's figure
(PhDA), and guidance away from silence in every phase, in the early or in the late one alone (what PNG is with silence as the negative).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from model.attention import BranchGains
from model.audio import AudioEncoder
from model.conditions import move_tokens
from model.config import PRESENTER_WINDOW, WindowConfig
from model.dit import Block, DiT
from model.echomimic.guidance import phda_gains
from model.sampler import shifted_sigmas
from model.training.clips import Clip, clip_paths, load_clip
from model.training.loop import begin, to_picture_tensor
from model.training.sequences import EncodedClip, SequencePass
from model.training.train_student import Settings, distil, quiet_tokens
from model.training.train_teacher import Data, add_sequence_arguments, build, load_data, load_vae, weighted_error
from model.training.train_vae import MOUTH_BOX
from model.vae import ReferenceVAE, compose
from model.window import RollingWindow, WindowState

Change = Callable[[Settings], Settings]
VARIANTS: dict[str, Change] = {
    "all": lambda s: s,
    "no guidance from silence": lambda s: replace(s, guidance=1.0),
    "no self-rollout": lambda s: replace(s, rollout_share=0.0),
    "no noise on the context": lambda s: replace(s, context_sigma=0.0),
    "no averaged weights": lambda s: replace(s, decay=0.0),
}
NO_ANCHOR = "no anchor (the oldest context in its place)"
TEACHER_STEPS = tuple(shifted_sigmas(4, 3.0))
EARLY = 0.8  # noise levels above are the early phase: two of the four steps
GUIDANCE = 1.3


@dataclass(frozen=True, slots=True)
class Rolled:
    """Of one clip: latents [T, C, h, w], luma [F, H, W] and how much of the mouth's inside shows [F]."""

    latents: Tensor
    luma: Tensor
    inside: Tensor


@contextmanager
def phase_aware(dit: DiT) -> Iterator[None]:
    """Weighs text, image and sound by each row's noise level while it lasts."""
    gains = BranchGains(1.0, 1.0, 1.0)

    def see(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal gains
        rows = [phda_gains(float(level) * 1000.0) for level in args[3].flatten()]
        image, audio = (torch.tensor([getattr(row, name) for row in rows])[:, None, None] for name in ("image", "audio"))
        gains = BranchGains(1.0, image, audio)

    def weigh(module: nn.Module, args: tuple[object, ...]) -> tuple[object, ...]:
        return (*args[:3], gains)

    hooks = [dit.register_forward_pre_hook(see)]
    hooks += [cast(Block, block).cross_attn.register_forward_pre_hook(weigh) for block in dit.blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def guided_in(dit: DiT, early: bool) -> Iterator[None]:
    """Of a window that is guided: only in that phase. In the other both of a session's last rows hear the same, so nothing is led away."""

    def hear(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        level, audio = args[3], kwargs["audio_BTLC"]
        if len(audio) > 1 and (float(level[-1]) > EARLY) != early:
            audio = torch.cat((audio[:-1], audio[-2:-1]))
        return args, kwargs | {"audio_BTLC": audio}

    hook = dit.register_forward_pre_hook(hear, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@torch.inference_mode()
def roll(
    model: SequencePass, vae: ReferenceVAE, quiet: Tensor, clip: Clip, encoded: EncodedClip, config: WindowConfig, anchored: bool
) -> Rolled:  # fmt: skip
    window = RollingWindow(model.dit, config, quiet)
    still = encoded.stills[0].float()
    state = window.open(still, still, encoded.image[0].float(), model.text(encoded.styles(slice(None))[None])[0], seed=0)
    moves, latents = encoded.moves[0], []
    for heard, told in zip(encoded.audio[0].float(), move_tokens(moves), strict=True):
        (latent,), (state,) = window.advance([state], heard[None], told[None])
        state = state if anchored else _without_anchor(state)
        latents.append(latent)
    shown, inside = [], []
    reference = vae.reference(to_picture_tensor(clip.references[:1]))
    canvas = vae.decoder.canvas(reference)
    for latent, part in zip(latents, moves.split(4), strict=True):
        moved = reference.moved(part)
        drawing = vae.decoder(vae.unstack(latent[None]), canvas, part).carried(moved.motion)
        shown.append(compose(moved.layers, drawing).mean(dim=1))
        inside.append(torch.sigmoid(drawing.cover)[(..., *MOUTH_BOX)].mean(dim=(1, 2, 3)))
    return Rolled(torch.stack(latents), torch.cat(shown), torch.cat(inside))


def _without_anchor(state: WindowState) -> WindowState:
    """The oldest context's keys and values where the anchor's are."""
    keys, values = (torch.cat((kept[1:2], kept[1:])) for kept in (state.keys, state.values))
    return replace(state, keys=keys, values=values)


def seam(luma_FHW: Tensor) -> float:
    """Mean step at chunk boundaries over the mean of the others."""
    steps = luma_FHW.diff(dim=0).abs().mean(dim=(1, 2))
    boundary = torch.arange(1, len(luma_FHW)) % 4 == 0
    return float(steps[boundary].mean() / steps[~boundary].mean())


def judge(model: SequencePass, vae: ReferenceVAE, quiet: Tensor, held_out: list[tuple[Clip, EncodedClip]], weight: Tensor,
          config: WindowConfig = PRESENTER_WINDOW, anchored: bool = True) -> dict[str, float]:  # fmt: skip
    errors, seams, drifts = [], [], []
    drawn, true = [], []
    for clip, encoded in held_out:
        rolled = roll(model, vae, quiet, clip, encoded, config, anchored)
        truth, still = encoded.latents[0].float(), encoded.stills[:1].float()
        error = weighted_error(rolled.latents[None], truth[None], weight)[0]
        errors.append(error.mean() / weighted_error(still.expand_as(truth)[None], truth[None], weight).mean())
        third = len(error) // 3
        drifts.append(float(error[-third:].mean() / error[:third].mean()))
        length = len(rolled.inside)
        inside = np.unpackbits(clip.inside[:length], axis=1).reshape(length, 256, 256)[(slice(None), *MOUTH_BOX)]
        drawn.append(rolled.inside.numpy())
        true.append(inside.mean(axis=(1, 2)))
        seams.append(seam(rolled.luma) / seam(to_picture_tensor(clip.frames[:length]).mean(dim=1)))
    x, y = np.concatenate(true), np.concatenate(drawn)
    return {
        "error": float(np.mean(errors)), "mouth_correlation": float(np.corrcoef(x, y)[0, 1]), "mouth_slope": float(np.polyfit(x, y, 1)[0]),
        "seam_over_truth": float(np.mean(seams)), "last_over_first": float(np.median(drifts)),
    }  # fmt: skip


def students(data: Data, teacher: Path, quiet: Tensor, base: Settings, device: str) -> dict[str, SequencePass]:
    made = {}
    for name, changed in VARIANTS.items():
        print(f"{name}:", flush=True)
        given, student = build(), build()
        for each in (given, student):
            each.load_state_dict(load_file(teacher))
        made[name] = distil(given, student, data, quiet, changed(base), device).average.cpu()
    return made


def sampled_teachers(teacher: SequencePass, judged: Callable[[WindowConfig], dict[str, float]]) -> dict[str, dict[str, float]]:
    """Rows of the teacher, sampled in one step and in four, by phases."""
    four = replace(PRESENTER_WINDOW, sigmas=TEACHER_STEPS)
    guided = replace(four, guidance=GUIDANCE)
    rows = {"the teacher, one step": judged(PRESENTER_WINDOW), "the teacher, four steps": judged(four)}
    with phase_aware(teacher.dit):
        rows["four steps, phase-aware weights (PhDA)"] = judged(four)
    rows["four steps, guided from silence"] = judged(guided)
    for phase, early in (("early", True), ("late", False)):
        with guided_in(teacher.dit, early):
            rows[f"four steps, guided in the {phase} phase (PNG)"] = judged(guided)
    return rows


def main() -> None:
    example = "example: livemimic train ablate --data clips/ --eval eval/ --vae runs/vae.safetensors ... --minutes 4 --out rows.json"
    parser = argparse.ArgumentParser(description=__doc__, epilog=example)
    add_sequence_arguments(parser)
    parser.add_argument("--teacher", type=Path, required=True)
    args = parser.parse_args()
    begin(args.seed)
    data, vae = load_data(args), load_vae(args.vae)
    quiet = quiet_tokens(AudioEncoder.load(args.audio))
    base = Settings(args.minutes, args.batch, args.rate, args.seed)
    made = students(data, args.teacher, quiet, base, args.device)
    held_out = [(load_clip(path), encoded) for path, encoded in zip(clip_paths(args.eval), data.held_out, strict=True)]
    weight = data.weight.cpu()
    rows = {name: judge(model, vae, quiet, held_out, weight) for name, model in tqdm(made.items(), desc="judging", unit="variant")}
    rows[NO_ANCHOR] = judge(made["all"], vae, quiet, held_out, weight, anchored=False)
    given = build()
    given.load_state_dict(load_file(args.teacher))
    rows |= sampled_teachers(given, partial(judge, given, vae, quiet, held_out, weight))
    columns = list(rows["all"])
    print(f"{'':46}" + "".join(f"{name:>19}" for name in columns))
    for name, row in rows.items():
        print(f"{name:46}" + "".join(f"{row[column]:19.3f}" for column in columns))
    args.out.write_text(json.dumps({"minutes": args.minutes, "batch": args.batch, "rate": args.rate, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
