"""Which check covers which golden file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from model.golden.case import Check
from model.golden.encoders import check_clip, check_t5, check_wav2vec
from model.golden.fullwidth import check_fullwidth
from model.golden.manifests import SHAPES
from model.golden.pipelines import check_pipeline
from model.golden.sampling import (
    check_colour_transfer,
    check_geometry,
    check_guidance_combine,
    check_guidance_schedule,
    check_scheduler,
)
from model.golden.transformer import (
    check_audio_interpolation,
    check_audio_projection,
    check_preview_mapping,
    check_transformer,
)
from model.golden.vae import check_vae
from model.golden.windows import check_sliding

CHECKS: dict[str, Check] = {
    "vae": check_vae,
    "preview_transformer": partial(check_transformer, variant="preview"),
    "flash_transformer": partial(check_transformer, variant="flash"),
    "audio_projection": check_audio_projection,
    "audio_interpolation": check_audio_interpolation,
    "audio_preview_mapping": check_preview_mapping,
    "t5": check_t5,
    "clip": check_clip,
    "audio_wav2vec": check_wav2vec,
    "pipeline_preview": partial(check_pipeline, variant="preview"),
    "pipeline_flash": partial(check_pipeline, variant="flash"),
    "sliding_preview": check_sliding,
    "fullwidth": check_fullwidth,
    "scheduler": check_scheduler,
    "guidance_schedule": check_guidance_schedule,
    "guidance_combine": check_guidance_combine,
    "geometry": check_geometry,
    "color_transfer": check_colour_transfer,
}


ENDINGS = (".json", ".safetensors", ".weights.safetensors", ".cases.safetensors")


def names_in(folder: Path) -> list[str]:
    """Names of the data files in a folder, without their endings; manifests are not among them."""
    names = {path.name.split(".")[0] for path in folder.iterdir() if path.suffix in (".json", ".safetensors")}
    return sorted(name for name in names if not name.startswith("manifest_"))


def manifests_for(folder: Path) -> list[Path]:
    """Manifests in the folder, or else beside it."""
    return sorted(folder.glob("manifest_*.json")) or sorted(folder.parent.glob("manifest_*.json"))


def uncovered(folder: Path) -> list[Path]:
    """Files that no check reads, notes (`.md`) aside."""
    covered = {name + ending for name in CHECKS for ending in ENDINGS} | {f"{name}.json" for name in SHAPES}
    files = {path for path in folder.iterdir() if path.suffix != ".md"} | set(manifests_for(folder))
    return sorted(path for path in files if path.name not in covered)
