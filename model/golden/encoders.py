"""Golden cases of the text, image and speech encoders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.echomimic.audio_tokens import flash_selection, to_frame_rate
from model.echomimic.clip import ClipConfig, ClipVision, clip_pixels
from model.echomimic.loudness import loudness_lufs, normalise_loudness
from model.echomimic.speech import (
    RATE_HZ,
    conv_features,
    flash_features,
    flash_input,
    input_values,
    layer_features,
    make_wav2vec,
    preview_features,
)
from model.echomimic.umt5 import TextConfig, encode_text, library_names, make_text_encoder
from model.golden.case import STATISTICS, Result, compare, loaded, read_json, read_tensors, under

LOUDNESS = 1e-5


def text_config(config: dict[str, Any]) -> TextConfig:
    return TextConfig(
        vocabulary=config["vocab"], dim=config["dim"], attention_dim=config["dim_attn"], ffn_dim=config["dim_ffn"],
        num_heads=config["num_heads"], num_layers=config["num_layers"], num_buckets=config["num_buckets"],
    )  # fmt: skip


def clip_config(config: dict[str, Any], layers_used: int) -> ClipConfig:
    return ClipConfig(
        image_size=config["image_size"], patch=config["patch_size"], dim=config["vision_dim"], num_heads=config["vision_heads"],
        num_layers=config["vision_layers"], layers_used=layers_used, mlp_ratio=config.get("mlp_ratio", 4),
    )  # fmt: skip


def used_by(clip: ClipVision, visual: dict[str, Tensor]) -> dict[str, Tensor]:
    """The file's image tower without its unused end."""
    return {name: visual[name] for name in clip.state_dict()}


def check_t5(folder: Path) -> Iterator[Result]:
    settings, tensors = read_json(folder, "t5"), read_tensors(folder, "t5.cases")
    encoder = loaded(make_text_encoder(text_config(settings["config"])), library_names(read_tensors(folder, "t5.weights")))
    for i in range(len(settings["cases"])):
        case = under(tensors, f"case{i}.")
        for row, (tokens, expected) in enumerate(zip(encode_text(encoder, case["ids"], case["mask"]), case["out"], strict=True)):
            yield compare("t5", f"{i} row {row}", tokens, expected[: len(tokens)], STATISTICS)


def check_clip(folder: Path) -> Iterator[Result]:
    settings, tensors = read_json(folder, "clip"), read_tensors(folder, "clip.cases")
    clip = ClipVision(clip_config(settings["config"], settings["blocks_used"]))
    loaded(clip, used_by(clip, under(read_tensors(folder, "clip.weights"), "visual.")))
    for i in range(len(settings["cases"])):
        case = under(tensors, f"case{i}.")
        pixels = clip_pixels(case["image_u8"][None] / 127.5 - 1, clip.config.image_size)
        yield compare("clip", f"{i} pixels", pixels, case["mid.pixel"], STATISTICS)
        yield compare("clip", f"{i} tokens", clip(pixels), case["out"], STATISTICS)


def check_wav2vec(folder: Path) -> Iterator[Result]:
    settings, tensors = read_json(folder, "audio_wav2vec"), read_tensors(folder, "audio_wav2vec.cases")
    wav2vec: Any = loaded(make_wav2vec(**settings["config"]), read_tensors(folder, "audio_wav2vec.weights"))
    for i, notes in enumerate(settings["cases"]):
        case, frames = under(tensors, f"case{i}."), notes["frames"]
        samples = case["audio"].numpy()
        lufs = torch.tensor([loudness_lufs(samples, RATE_HZ)])
        values = flash_input(samples, frames)
        features = conv_features(wav2vec, values)
        resampled = to_frame_rate(features, frames)
        windows = flash_features(wav2vec, samples, frames)
        own = {
            "flash.input_values": values, "flash.conv_features": features, "flash.interpolated": resampled,
            "flash.emb": layer_features(wav2vec, resampled), "flash.windows": windows,
            "flash.first": flash_selection(windows)[0], "flash.latter": flash_selection(windows)[1],
            "preview.input_values": input_values(samples), "preview.tokens": preview_features(wav2vec, samples),
        }  # fmt: skip
        expected = notes["integrated_loudness"]
        level = torch.tensor([-torch.inf if expected is None else expected])
        yield compare("audio_wav2vec", f"{i} loudness", lufs, level, LOUDNESS)
        normalised = torch.from_numpy(normalise_loudness(samples, RATE_HZ))
        yield compare("audio_wav2vec", f"{i} normalised", normalised, case["loudness_normalised"], LOUDNESS)
        for name, value in own.items():
            yield compare("audio_wav2vec", f"{i} {name}", value, case[name], STATISTICS)
