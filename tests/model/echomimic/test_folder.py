"""Published weights: both layouts load; what is missing, damaged or foreign is named before anything is allocated."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers", reason="needs the echomimic extra: pip install livemimic[echomimic]")

from model.echomimic.clip import clip_pixels  # noqa: E402
from model.echomimic.folder import BASE, DIT_FILE, WeightsFolder  # noqa: E402
from model.errors import CheckpointError  # noqa: E402
from tests.model.echomimic.miniature import DIT_PLACE, write_miniature  # noqa: E402

CPU = torch.device("cpu")
DIT = f"transformer/{DIT_FILE}"
VAE = f"{BASE}/Wan2.1_VAE.pth"


@pytest.fixture(scope="module", params=["preview", "flash"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return write_miniature(tmp_path_factory.mktemp("weights"), request.param), request.param


@pytest.fixture
def preview(tmp_path: Path) -> Path:
    return write_miniature(tmp_path / "weights", "preview")


def test_every_part_loads_and_runs(folder: tuple[Path, str]) -> None:
    """Values are the files', in the wanted precision; the time embedding alone stays float32."""
    path, variant = folder
    weights = WeightsFolder(path, variant)
    weights.check()
    dit = weights.load_dit(CPU, torch.bfloat16)
    stored = load_file(path / DIT_PLACE[variant] / DIT_FILE)
    assert all(torch.equal(value, stored[name].to(value.dtype)) for name, value in dit.state_dict().items())
    assert dit.patch_embedding.weight.dtype == torch.bfloat16 and dit.time_projection[1].weight.dtype == torch.float32
    vae, clip = weights.load_vae(CPU, torch.float32), weights.load_clip(CPU, torch.float32)
    video = vae.decode(torch.randn(1, 16, 2, 2, 2))
    image = clip(clip_pixels(video[:, :, 0], clip.config.image_size))
    audio = torch.randn(1, 10, 32) if variant == "preview" else torch.randn(1, 5, 5, 2, 32)
    tokens = weights.load_tokenizer()("hello")["input_ids"]
    text = weights.load_text(CPU, torch.float32)(input_ids=torch.tensor([tokens])).last_hidden_state[0]
    out = dit(
        torch.randn(1, 16, 2, 4, 4).bfloat16(), torch.randn(1, 20, 2, 4, 4).bfloat16(), torch.tensor([500]), text=[text.bfloat16()],
        image_BLC=image.bfloat16(), audio=audio.bfloat16(), face_mask_BN=torch.ones(1, 4) if variant == "preview" else None,
    )  # fmt: skip
    assert out.shape == (1, 16, 2, 4, 4) and out.isfinite().all() and out.dtype == torch.bfloat16
    assert weights.load_wav2vec()(torch.randn(1, 3200)).last_hidden_state.shape == (1, 9, 32)


def test_the_other_published_layout_loads(tmp_path: Path) -> None:
    """flash/transformer and the speech encoder beside it."""
    write_miniature(tmp_path, "flash")
    (tmp_path / "flash").mkdir()
    (tmp_path / DIT_PLACE["flash"]).rename(tmp_path / "flash" / "transformer")
    (tmp_path / "chinese-wav2vec2-base").rename(tmp_path / "flash" / "chinese-wav2vec2-base")
    WeightsFolder(tmp_path, "flash").check()


@pytest.mark.parametrize(
    ("part", "origin"),
    [
        (VAE, "alibaba-pai"), (DIT, "BadToBest"), ("wav2vec2-base-960h", "facebook"), (f"{BASE}/google/umt5-xxl", "alibaba-pai"),
        (f"{BASE}/config.json", "alibaba-pai"),
    ],
)  # fmt: skip
def test_a_missing_part_is_named_with_its_origin(preview: Path, part: str, origin: str) -> None:
    """The message holds the path, the hint where to fetch it."""
    missing = preview / part
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    with pytest.raises(CheckpointError, match="is missing") as error:
        WeightsFolder(preview, "preview")
    assert str(missing) in error.value.message and origin in error.value.hint


def rename_key(path: Path) -> None:
    tensors = load_file(path)
    tensors["blocks.0.self_attn.query.weight"] = tensors.pop("blocks.0.self_attn.q.weight")
    save_file(tensors, path)


def wrong_shape(path: Path) -> None:
    save_file(load_file(path) | {"head.modulation": torch.zeros(1, 3, 48)}, path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("place", "damage", "says"),
    [
        pytest.param(DIT, rename_key, r"blocks\.0\.self_attn\.q\.weight is missing .and 1 more", id="key"),
        pytest.param(DIT, wrong_shape, r"head\.modulation is \(1, 3, 48\), needs \(1, 2, 48\)", id="shape"),
        pytest.param(DIT, truncate, "diffusion_pytorch_model.safetensors: ", id="truncated safetensors"),
        pytest.param(VAE, truncate, "Wan2.1_VAE.pth: ", id="truncated pickle"),
        pytest.param(VAE, lambda path: torch.save([1, 2], path), "something else than named tensors", id="other content"),
        pytest.param(VAE, lambda path: torch.save({"a": torch.zeros(1)}, path), "(is missing|is not known) .and", id="other model"),
        pytest.param(f"{BASE}/config.json", lambda path: path.write_text('{"dim": 50}'), "50 must split", id="config"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_clear_error(preview: Path, place: str, damage: Callable[[Path], object], says: str) -> None:
    """Raised by the check, which loads nothing."""
    damage(preview / place)
    with pytest.raises(CheckpointError, match=says) as error:
        WeightsFolder(preview, "preview").check()
    assert str(preview / place) in error.value.message


def test_code_in_a_pickle_is_not_run(preview: Path) -> None:
    """Pickles are read with weights only."""
    torch.save({"a": Path("x")}, preview / VAE)
    with pytest.raises(CheckpointError, match=r"Wan2\.1_VAE\.pth"):
        WeightsFolder(preview, "preview").check()


def test_the_other_variants_weights_are_refused(tmp_path: Path) -> None:
    """A flash file in preview's place names the first tensor that differs."""
    write_miniature(tmp_path, "flash")
    (tmp_path / DIT_PLACE["flash"]).rename(tmp_path / "transformer")
    (tmp_path / "chinese-wav2vec2-base").rename(tmp_path / "wav2vec2-base-960h")
    with pytest.raises(CheckpointError, match="audio"):
        WeightsFolder(tmp_path, "preview").check()
