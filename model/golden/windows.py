"""Golden cases of the pixel windows: what each window is given, and how their videos are stitched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from model.echomimic.conditioning import resized
from model.echomimic.framing import FPS, FaceBox, face_mask, output_size
from model.echomimic.long_video import Span, pixel_spans, slide
from model.golden.case import Result, compare, exact, read_json, read_tensors, under

FILE = "sliding_preview"


def check_sliding(folder: Path) -> Iterator[Result]:
    tensors = read_tensors(folder, FILE)
    for i, notes in enumerate(read_json(folder, FILE)["cases"]):
        yield from _windows(i, under(tensors, f"case{i}."), notes)


def _windows(i: int, case: dict[str, Tensor], notes: dict[str, Any]) -> Iterator[Result]:
    total, window, overlap = int(notes["duration"] * FPS), notes["partial_video_length"], notes["overlap"]
    spans = pixel_spans(total, window, overlap)
    tokens = [range(notes["total_tokens"])[span.audio] for span in spans]
    own = [(span.length, part[0], part[-1]) for span, part in zip(spans, tokens, strict=True)]
    yield exact(FILE, f"{i} windows", own, [(w["num_frames"], w["audio_first"], w["audio_last"]) for w in notes["windows"]])

    width, height = notes["image_size_wh"]
    video = output_size(width, height, notes["sample_size"][0] * notes["sample_size"][1])
    mask = face_mask(FaceBox(*notes["face_coords_y1y2x1x2hw"][:4]), (width, height), video)
    yield compare(FILE, f"{i} face mask", mask, case["ip_mask"], 0.0)
    still = torch.from_numpy(resized(Image.fromarray(case["image"].numpy()), *video))
    yield compare(FILE, f"{i} picture", still, case["clip_image"], 0.0)

    known: list[Tensor] = []

    def generate(span: Span, frames: Tensor | None) -> Tensor:
        known.append(still.permute(2, 0, 1)[:, None] if frames is None else frames)
        return case[f"win{len(known) - 1}.generated_u8"][0].float() / 255

    final = slide(generate, spans, overlap)[:, :total]
    for k, frames in enumerate(known):
        yield compare(FILE, f"{i} window {k} known", frames, case[f"win{k}.known_u8"], 0.0)
    yield compare(FILE, f"{i} final", final, case["final"][0], 1e-6)
