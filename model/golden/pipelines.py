"""Golden cases of both whole pipelines, from pictures and text to clean latents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from model.echomimic.clip import ClipVision, clip_pixels
from model.echomimic.conditioning import known_video, masked_conditioning, resized, to_unit
from model.echomimic.config import Variant
from model.echomimic.denoise import Conditions, FlashPredict, Guidance, Predict, PreviewPredict, denoise
from model.echomimic.dit import EchoMimicDiT
from model.echomimic.long_video import denoise_in_windows
from model.echomimic.samplers import FlowEuler, make_sampler
from model.echomimic.teacache import TeaCache
from model.echomimic.umt5 import encode_text, library_names, make_text_encoder
from model.echomimic.vae import WanVAE
from model.golden.case import STATISTICS, Result, compare, exact, loaded, read_json, read_tensors, under
from model.golden.encoders import clip_config, text_config, used_by
from model.golden.transformer import dit_config
from model.golden.vae import vae_config

FINAL = 2e-4  # tolerance of latents after all steps
CALL_SHIFT = 5.0
TEXT_LENGTH = 512


@dataclass(slots=True)
class Parts:
    dit: EchoMimicDiT
    vae: WanVAE
    clip: ClipVision
    text: nn.Module


def build_parts(variant: Variant, settings: dict[str, Any], weights: dict[str, Tensor]) -> Parts:
    parts = Parts(
        EchoMimicDiT(dit_config(variant, settings["transformer_config"], settings["reduced_dims"])),
        WanVAE(vae_config(settings["vae_config"])),
        ClipVision(clip_config(settings["clip_config"], settings["clip_config"]["vision_layers"] - 1)),
        make_text_encoder(text_config(settings["t5_config"])),
    )
    loaded(parts.dit, under(weights, "transformer."))
    loaded(parts.vae, under(weights, "vae."))
    loaded(parts.clip, used_by(parts.clip, under(weights, "clip.visual.")))
    loaded(parts.text, library_names(under(weights, "t5.")))
    return parts


def encode_ids(parts: Parts, ids: list[int]) -> Tensor:
    padded, mask = torch.zeros(2, 1, TEXT_LENGTH, dtype=torch.int64)
    padded[0, : len(ids)], mask[0, : len(ids)] = torch.tensor(ids), 1
    return encode_text(parts.text, padded, mask)[0]


def picture(case: dict[str, Tensor], number: int, hw: list[int]) -> Tensor:
    image = Image.fromarray(case[f"image.{number}"].numpy())
    return to_unit(resized(image, hw[1], hw[0])[None])


def known(case: dict[str, Tensor], notes: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Video, mask and the picture that CLIP sees."""
    kind, hw, frames = notes["cond"], notes["hw"], notes["frames"]
    numbers, index, seen = {
        "image": ([0], [0], 0), "frames8": (list(range(8)), list(range(8)), 8), "flf": ([0, 1], [0, frames - 1], 0), "none": ([], [], None),
    }[kind]  # fmt: skip
    pictures = [picture(case, number, hw) for number in numbers]
    given = torch.cat(pictures, dim=2) if pictures else torch.zeros(1, 3, 0, *hw)
    video, mask = known_video(given, index, frames)
    return video, mask, None if seen is None else picture(case, seen, hw)


def make_conditions(parts: Parts, settings: dict[str, Any], case: dict[str, Tensor], notes: dict[str, Any]) -> Conditions:
    video, mask, seen = known(case, notes)
    clip = parts.clip
    image = torch.zeros(1, clip.config.num_tokens, clip.config.dim)
    if seen is not None:
        image = clip(clip_pixels(seen[:, :, 0], clip.config.image_size))
    return Conditions(
        y=masked_conditioning(parts.vae, video, mask), prompt=encode_ids(parts, settings["prompt_ids"]),
        negative=encode_ids(parts, settings["negative_ids"]), image=image, audio=case["audio"], face_mask=case.get("ip_mask"),
    )  # fmt: skip


def make_predict(variant: Variant, dit: EchoMimicDiT, notes: dict[str, Any], cache: TeaCache | None) -> Predict:
    guidance = Guidance(text_scale=notes["g"], audio_scale=notes["a"])
    if variant == "flash":
        return FlashPredict(dit, guidance, notes["steps"], cache, cache)
    guidance = replace(guidance, dynamic=notes["dyn"])
    if "long" not in notes:
        guidance = replace(guidance, negative_scale=notes["neg_scale"], negative_steps=notes["neg_steps"], negative_grows=True)
    return PreviewPredict(dit, guidance, notes["steps"], cache)


def check_pipeline(folder: Path, variant: Variant) -> Iterator[Result]:
    file = f"pipeline_{variant}"
    settings, tensors = read_json(folder, file), read_tensors(folder, f"{file}.cases")
    parts = build_parts(variant, settings, read_tensors(folder, f"{file}.weights"))
    for i, notes in enumerate(settings["cases"]):
        case, label = under(tensors, f"case{i}."), f"{i} {notes['cond']} {notes['kind']}"
        conditions = make_conditions(parts, settings, case, notes)
        yield compare(file, f"{label}: prompt", conditions.prompt, case["prompt_embeds"], STATISTICS)
        yield compare(file, f"{label}: negative", conditions.negative, case["negative_prompt_embeds"], STATISTICS)
        first = conditions.y[:, :, : case["y_first_call"].shape[2]]
        yield compare(file, f"{label}: y", first, case["y_first_call"], STATISTICS)
        if "masked_video" in case:
            video, mask, _ = known(case, notes)
            yield compare(file, f"{label}: masked video", video * mask, case["masked_video"], 0.0)
        run = run_long if "long" in notes else run_single
        yield from run(file, label, variant, parts.dit, conditions, case, notes)


def run_single(
    file: str, label: str, variant: Variant, dit: EchoMimicDiT, conditions: Conditions, case: dict[str, Tensor], notes: dict[str, Any]
) -> Iterator[Result]:
    settings = notes.get("teacache")
    cache = TeaCache(settings["thresh"], settings["skip"], notes["steps"]) if settings else None
    sampler = make_sampler(notes["kind"], notes["steps"], constructor_shift=notes["ctor_shift"], call_shift=CALL_SHIFT)
    outputs: list[Tensor] = []
    guided: list[Tensor] = []
    steps: list[Tensor] = []
    predict = make_predict(variant, dit, notes, cache)

    def watched(x: Tensor, timestep: Tensor, step: int, conditions: Conditions) -> Tensor:
        guided.append(predict(x, timestep, step, conditions))
        return guided[-1]

    handle = dit.register_forward_hook(lambda module, args, out: outputs.append(out))
    final = denoise(watched, sampler, case["latents_init"], conditions, lambda step, x: steps.append(x))
    handle.remove()
    yield compare(file, f"{label}: transformer", torch.cat(outputs), case["denoiser_out"], FINAL)
    yield compare(file, f"{label}: guided", torch.cat(guided), case["guided"], FINAL)
    yield compare(file, f"{label}: steps", torch.cat(steps), case["latents_steps"], FINAL)
    yield compare(file, f"{label}: final", final, case["final_latents"], FINAL)
    if cache is not None:
        expected = [call["teacache"] for call in notes["calls"]]
        own = [(call.number, call.computed) for call in cache.calls]
        yield exact(file, f"{label}: TeaCache's choices", own, [(call["cnt"], call["computed"]) for call in expected])
        sums = torch.tensor([call.accumulated for call in cache.calls])
        yield compare(file, f"{label}: TeaCache's sums", sums, torch.tensor([call["accumulated"] for call in expected]), STATISTICS)


def run_long(
    file: str, label: str, variant: Variant, dit: EchoMimicDiT, conditions: Conditions, case: dict[str, Tensor], notes: dict[str, Any]
) -> Iterator[Result]:
    sampler = make_sampler(notes["kind"], notes["steps"], constructor_shift=notes["ctor_shift"], call_shift=CALL_SHIFT)
    assert isinstance(sampler, FlowEuler)
    seen: list[dict[str, Tensor]] = []
    final = denoise_in_windows(
        make_predict(variant, dit, notes, None), sampler, case["latents_init"], conditions, window_frames=notes["long"]["partial"],
        overlap=notes["long"]["overlap"],
        observe=lambda x, audio, v, stepped: seen.append({"x": x, "audio_last": audio, "guided": v, "stepped": stepped}),
    )  # fmt: skip
    yield exact(file, f"{label}: windows", len(seen), len(notes["calls"]))
    for k, window in enumerate(seen):
        for name, value in window.items():
            yield compare(file, f"{label}: window {k} {name}", value, case[f"win{k}.{name}"], FINAL)
    yield compare(file, f"{label}: final", final, case["final_latents"], FINAL)
