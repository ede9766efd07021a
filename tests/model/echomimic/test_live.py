"""The published presets live, with a miniature weights folder: what the streamer may rely on, in every way of running them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("transformers", reason="needs the echomimic extra: pip install livemimic[echomimic]")

from model.echomimic.causal import CausalState  # noqa: E402
from model.echomimic.live import LivePipeline, LiveState  # noqa: E402
from model.errors import CheckpointError, ConfigError  # noqa: E402
from model.presets import LiveOptions, load_pipeline  # noqa: E402
from tests.model.echomimic.miniature import write_miniature  # noqa: E402
from tests.model.echomimic.test_tiny_decoder import random_weights  # noqa: E402

SMALL = LiveOptions(width=64, height=80)
PORTRAIT = np.random.default_rng(0).integers(0, 256, (80, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Both variants in one folder, a student's adapter and a tiny decoder beside them."""
    path = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(path))  # where embeddings are kept
        for variant in ("preview", "flash"):
            write_miniature(path / variant, variant)
        torch.manual_seed(0)
        lora = {"blocks.0.self_attn.q.lora_A.weight": torch.randn(4, 48), "blocks.0.self_attn.q.lora_B.weight": torch.randn(48, 4)}
        save_file(lora, path / "student.safetensors")
        torch.save(random_weights(), path / "taew2_1.pth")
        yield path


@cache
def loaded(folder: Path, variant: str, options: LiveOptions = SMALL, steps: int = 2) -> LivePipeline:
    pipeline = load_pipeline(preset=f"echomimic-v3-{variant}", weights=folder / variant, device="cpu", steps=steps, live=options)
    assert isinstance(pipeline, LivePipeline)
    return pipeline


def voice(pipeline: LivePipeline, chunk: int, seed: int = 1) -> np.ndarray:
    geometry = pipeline.geometry
    samples = np.random.default_rng(seed).normal(0, 3000, 10 * geometry.step_samples_16k).astype(np.int16)
    return samples[chunk * geometry.chunk_samples_16k :][: geometry.step_samples_16k]


def latents_after(pipeline: LivePipeline, state: LiveState, samples: np.ndarray) -> torch.Tensor:
    """What the window keeps of a chunk: the miniature's latents move its pictures by less than a level."""
    _, (after,) = pipeline.step([state], [samples], ["speaking"])
    return after.window.window.last.latent if isinstance(after.window, CausalState) else after.window.known


def run(pipeline: LivePipeline, num_chunks: int, seed: int = 3) -> np.ndarray:
    state, out = pipeline.open(PORTRAIT, seed=seed), []
    for chunk in range(num_chunks):
        (frames,), (state,) = pipeline.step([state], [voice(pipeline, chunk)], ["speaking"])
        out.append(frames)
    return np.concatenate(out)


WAYS = [
    pytest.param("flash", SMALL, 12, id="flash"),
    pytest.param("preview", replace(SMALL, new=1), 4, id="preview"),
    pytest.param("flash", replace(SMALL, attention="causal"), 4, id="causal flash"),
    pytest.param("preview", replace(SMALL, attention="causal", audio_guidance=2.0), 4, id="causal preview, guided"),
]


@pytest.mark.parametrize(("variant", "options", "chunk_frames"), WAYS)
def test_chunks_are_what_the_streamer_was_told(folder: Path, variant: str, options: LiveOptions, chunk_frames: int) -> None:
    """Geometry from the pipeline; same seed, same bits; sessions in a batch, and one that is rewound, are what each is alone."""
    pipeline = loaded(folder, variant, options)
    geometry = pipeline.geometry
    assert (geometry.width, geometry.height, geometry.fps, geometry.chunk_frames, geometry.lookahead_ms) == (64, 80, 25, chunk_frames, 160)
    first = run(pipeline, 2)
    assert first.shape == (2 * chunk_frames, 120, 64) and first.dtype == np.uint8 and first.std() > 1
    assert np.array_equal(first, run(pipeline, 2)) and not np.array_equal(first[:chunk_frames], run(pipeline, 1, seed=4))

    states = [pipeline.open(PORTRAIT, seed=seed) for seed in (3, 4)]
    sounds = [voice(pipeline, 0)] * 2
    together, moved = pipeline.step(states, sounds, ["speaking"] * 2)
    assert np.abs(together[0].astype(int) - first[:chunk_frames]).max() <= 1
    (again,), _ = pipeline.step(moved[:1], [voice(pipeline, 1)], ["idle"])
    pipeline.step(moved[:1], [voice(pipeline, 5)], ["idle"])
    (rewound,), _ = pipeline.step(moved[:1], [voice(pipeline, 1)], ["idle"])
    assert np.array_equal(again, rewound)


def test_the_voice_and_the_prompt_matter(folder: Path) -> None:
    """Other sound, or other words, other latents."""
    pipeline = loaded(folder, "flash")
    state = pipeline.open(PORTRAIT)
    plain = latents_after(pipeline, state, voice(pipeline, 0))
    assert torch.equal(plain, latents_after(pipeline, state, voice(pipeline, 0)))
    assert not torch.equal(plain, latents_after(pipeline, state, voice(pipeline, 0, seed=2)))
    assert not torch.equal(plain, latents_after(pipeline, pipeline.open(PORTRAIT, prompt="a cat"), voice(pipeline, 0)))


def test_state_does_not_grow(folder: Path) -> None:
    """Sound, window and decoder hold as much after six chunks as after one."""
    pipeline = loaded(folder, "flash", replace(SMALL, attention="causal"), steps=1)
    state = pipeline.open(PORTRAIT)
    sizes = []
    for chunk in range(6):
        _, (state,) = pipeline.step([state], [voice(pipeline, chunk)], ["speaking"])
        window = state.window.window
        sizes.append((state.sound.size, window.keys.numel(), sum(kept.numel() for kept in state.history.values())))
    assert len(set(sizes)) == 1


def test_an_adapter_makes_a_causal_student_and_changes_it(folder: Path) -> None:
    """One latent frame a chunk; what is not for this transformer is refused before it is loaded."""
    student = loaded(folder, "flash", replace(SMALL, adapter=folder / "student.safetensors"), steps=1)
    assert student.geometry.chunk_frames == 4
    plain = loaded(folder, "flash", replace(SMALL, attention="causal"), steps=1)
    made = [latents_after(own, own.open(PORTRAIT), voice(own, 0)) for own in (student, plain)]
    assert made[0].shape == (16, 10, 8) and (made[0] - made[1]).abs().max() > 1e-4
    save_file({"blocks.9.self_attn.q.lora_A.weight": torch.zeros(4, 48)}, folder / "wrong.safetensors")
    with pytest.raises(CheckpointError, match=r"blocks\.9\.self_attn\.q\.lora_A\.weight"):
        loaded(folder, "flash", replace(SMALL, adapter=folder / "wrong.safetensors"))


def test_the_tiny_decoder_takes_the_full_ones_place(folder: Path) -> None:
    pipeline = loaded(folder, "flash", replace(SMALL, new=1, tiny_decoder=folder / "taew2_1.pth"), steps=1)
    full = loaded(folder, "flash", replace(SMALL, new=1), steps=1)
    assert run(pipeline, 1).shape == (4, 120, 64) and not np.array_equal(run(pipeline, 1), run(full, 1))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"preset": "nonesuch"}, "nonesuch"), ({"weights": None}, "needs --weights DIR"), ({"steps": 0}, "at least 1, got 0"),
        ({"live": replace(SMALL, compile="graphs")}, "needs a CUDA device"), ({"preset": "presenter"}, "given to preset presenter"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_said(folder: Path, wrong: dict[str, object], says: str) -> None:
    arguments = {"preset": "echomimic-v3-flash", "weights": folder / "flash", "device": "cpu", "steps": 1, "live": SMALL} | wrong
    with pytest.raises(ConfigError, match=says):
        load_pipeline(**arguments)


@pytest.mark.parametrize(("options", "says"), [({"width": 100}, "width = 100"), ({"new": 99}, "new = 99 is out of range: 1 to 8")])
def test_options_out_of_range_are_named(options: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        LiveOptions(**options)


def test_a_portrait_or_a_sound_of_another_size_is_refused(folder: Path) -> None:
    pipeline = loaded(folder, "flash")
    with pytest.raises(ValueError, match="portrait must be uint8"):
        pipeline.open(PORTRAIT[:64])
    with pytest.raises(ValueError, match="audio must be int16"):
        pipeline.step([pipeline.open(PORTRAIT)], [np.zeros(5, np.int16)], ["idle"])
