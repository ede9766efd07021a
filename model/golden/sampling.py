"""Golden cases of samplers, guidance, sizes and colours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from model.echomimic.colour import match_colour
from model.echomimic.framing import TOKEN_PIXELS, FaceBox, face_grid, face_mask, output_size
from model.echomimic.guidance import combine_flash, combine_preview, dynamic_scale, released_negative_factor
from model.echomimic.samplers import make_sampler
from model.golden.case import Result, compare, exact, read_json, read_tensors, under

STEP = 1e-5  # tolerance of one sampler's arithmetic
COMBINED = 1e-6


def check_scheduler(folder: Path) -> Iterator[Result]:
    tensors = read_tensors(folder, "scheduler")
    for i, notes in enumerate(read_json(folder, "scheduler")["cases"]):
        case, label = under(tensors, f"case{i}."), f"{i} {notes['kind']} {notes['steps']} steps"
        sampler = make_sampler(notes["kind"], notes["steps"], constructor_shift=notes["constructor_shift"], call_shift=notes["call_shift"])
        yield compare("scheduler", f"{label}: sigmas", sampler.sigmas, case["sigmas"], STEP)
        yield compare("scheduler", f"{label}: timesteps", sampler.timesteps, case["timesteps"], 1e-6 if notes["kind"] == "flow" else 0.0)
        x, steps = case["x_init"], []
        for step, v in enumerate(case["model_outputs"]):
            x = sampler.step(step, x, v)
            steps.append(x)
        yield compare("scheduler", f"{label}: samples", torch.stack(steps), case["x_steps"], STEP)


def check_guidance_schedule(folder: Path) -> Iterator[Result]:
    for i, row in enumerate(read_json(folder, "guidance_schedule")["rows"]):
        steps = range(row["steps"])
        own = [
            [
                dynamic_scale(row["guidance_scale"], step, row["steps"]), dynamic_scale(row["audio_guidance_scale"], step, row["steps"]),
                released_negative_factor(step, row["neg_scale"], row["neg_steps"]),
            ] for step in steps
        ]  # fmt: skip
        expected = [[row["per_step"][s][name] for name in ("text_scale", "audio_scale", "negative_embedding_factor")] for s in steps]
        yield compare("guidance_schedule", f"{i} {row['steps']} steps", torch.tensor(own), torch.tensor(expected), COMBINED)


def check_guidance_combine(folder: Path) -> Iterator[Result]:
    tensors = read_tensors(folder, "guidance_combine")
    for i in range(sum(name.endswith(".scales") for name in tensors)):
        case = under(tensors, f"case{i}.")
        text_scale, audio_scale = case["scales"].tolist()
        full, silent, negative = case["text_audio"], case["text_noaudio"], case["negtext_noaudio"]
        preview = combine_preview(negative, silent, full, text_scale, audio_scale)
        yield compare("guidance_combine", f"{i} preview", preview, case["preview"], COMBINED)
        yield compare("guidance_combine", f"{i} flash", combine_flash(silent, full, audio_scale), case["flash"], COMBINED)


def check_geometry(folder: Path) -> Iterator[Result]:
    for i, row in enumerate(read_json(folder, "geometry")["rows"]):
        picture, box = (row["width"], row["height"]), FaceBox(*row["box_y1y2x1x2"])
        video = output_size(*picture, row["sample_size"][0] * row["sample_size"][1])
        yield exact("geometry", f"{i} size", video, (row["out_width"], row["out_height"]))
        yield exact("geometry", f"{i} face", list(face_grid(box, picture, video)), row["grid_box"])
        mask = face_mask(box, picture, video)[0]
        ends = mask.nonzero().flatten().tolist()[:: max(1, int(mask.sum()) - 1)] or [-1, -1]
        own = ([side // TOKEN_PIXELS for side in reversed(video)], len(mask), float(mask.sum()), ends[0], ends[-1])
        names = ("grid_hw", "mask_len", "mask_sum", "mask_nonzero_first", "mask_nonzero_last")
        yield exact("geometry", f"{i} mask", own, tuple(row[name] for name in names))


def check_colour_transfer(folder: Path) -> Iterator[Result]:
    """In levels of 255, of which one is allowed."""
    tensors = read_tensors(folder, "color_transfer")
    for i in range(sum(name.endswith(".out") for name in tensors)):
        case = {name: value.numpy() for name, value in under(tensors, f"case{i}.").items()}
        out = match_colour(case["frame"], case["first_frame"])
        levels = np.abs(out.astype(int) - case["out"].astype(int)).max()
        yield Result("color_transfer", f"{i}", float(levels) / 255, 1 / 255)
