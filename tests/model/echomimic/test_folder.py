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
from model.echomimic.offline import OfflineRenderer  # noqa: E402
from model.echomimic.tensor_file import TensorFile  # noqa: E402
from model.errors import CheckpointError  # noqa: E402
from tests.model.echomimic.miniature import DIT_PLACE, write_miniature  # noqa: E402

CPU = torch.device("cpu")
DIT = f"transformer/{DIT_FILE}"
VAE = f"{BASE}/Wan2.1_VAE.pth"
TEXT = f"{BASE}/models_t5_umt5-xxl-enc-bf16.pth"
CLIP = f"{BASE}/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
SPEECH = "wav2vec2-base-960h/model.safetensors"


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


def rename_key(path: Path, key: str = "blocks.0.self_attn.q.weight") -> None:
    tensors = load_file(path)
    tensors["another." + key] = tensors.pop(key)
    save_file(tensors, path, {"format": "pt"})


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
        pytest.param(TEXT, lambda path: torch.save({"a": torch.zeros(1)}, path), "(is missing|is not known) .and", id="other text"),
        pytest.param(CLIP, truncate, "models_clip", id="truncated clip"),
        pytest.param(SPEECH, truncate, "model.safetensors: ", id="truncated speech"),
        pytest.param(SPEECH, Path.unlink, "model.safetensors is missing", id="no speech"),
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
    """A flash file in preview's place, and the other way round, is told by its name."""
    write_miniature(tmp_path, "flash")
    (tmp_path / DIT_PLACE["flash"]).rename(tmp_path / "transformer")
    shutil.copytree(tmp_path / "chinese-wav2vec2-base", tmp_path / "wav2vec2-base-960h")
    with pytest.raises(CheckpointError, match="is the transformer of echomimic-v3-flash, not of echomimic-v3-preview"):
        WeightsFolder(tmp_path, "preview").check()
    WeightsFolder(tmp_path, "flash").check()  # `--weights flash`: the variant's own folder


def test_the_base_models_transformer_is_told(preview: Path) -> None:
    """It lies in the same download and has the same file name."""
    heard = load_file(preview / DIT)
    save_file({name: value for name, value in heard.items() if "audio" not in name}, preview / DIT)
    with pytest.raises(CheckpointError, match="is the transformer of the base model"):
        WeightsFolder(preview, "preview").check()


def test_everything_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    """Downloads are large: nobody wants to learn of them one by one."""
    with pytest.raises(CheckpointError) as error:
        WeightsFolder(tmp_path, "flash")
    for word in ("config.json", "Wan2.1_VAE.pth", "models_t5", "models_clip", "umt5-xxl", "flash-pro", "chinese-wav2vec2-base"):
        assert word in error.value.message
    assert all(origin in error.value.hint for origin in ("alibaba-pai", "BadToBest", "TencentGameMate"))


def test_nothing_is_allocated_before_a_wrong_file_is_refused(preview: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check reads headers: no value is asked for, though the wrong file is the last one looked at."""
    monkeypatch.setattr(TensorFile, "values", lambda *arguments: pytest.fail("values were read"))
    rename_key(preview / SPEECH, "encoder.layer_norm.weight")
    with pytest.raises(CheckpointError, match=r"tensor encoder\.layer_norm\.weight is missing"):
        OfflineRenderer(WeightsFolder(preview, "preview"), CPU, torch.float32)


def test_old_and_prefixed_names_of_the_speech_encoder_load(preview: Path) -> None:
    """The published files are of a model with a head on top, written by older versions."""
    stored = load_file(preview / SPEECH)
    old = {"original0": "weight_g", "original1": "weight_v"}
    renamed = {f"wav2vec2.{name.replace('parametrizations.weight.', '')}": value for name, value in stored.items()}
    for new, before in old.items():
        renamed = {name.replace(new, before): value for name, value in renamed.items()}
    (preview / SPEECH).unlink()
    torch.save(renamed | {"lm_head.weight": torch.zeros(3, 32)}, (preview / SPEECH).with_name("pytorch_model.bin"))
    folder = WeightsFolder(preview, "preview")
    folder.check()
    own = folder.load_wav2vec().state_dict()
    assert all(torch.equal(own[name], value) for name, value in stored.items())
