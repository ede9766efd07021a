"""Which way of running the embedded preset's networks is the fastest on a CPU: torch as it is, torch.compile, bfloat16, ONNX Runtime in
float32 and in 8 bits, side by side in one run, one thread each.

Measured are the decoder's convolutions and one pass of the transformer, for one chunk of one session: together nine tenths of a step.
Medians of rounds that take turns, the largest error beside float32 over its standard deviation, and ratios to torch as it is.
ONNX Runtime is no dependency of the project: pip install onnxruntime onnx onnxscript.

    python tests/benchmarks/cpu_backends.py --json tests/benchmarks/results/cpu_backends.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from model.attention import StaticKeys  # noqa: E402
from model.checkpoints import load_presenter  # noqa: E402
from model.config import PRESENTER_DIT, PRESENTER_VAE, PRESENTER_WINDOW  # noqa: E402
from model.dit import DiT  # noqa: E402
from model.i420_decoder import I420Decoder  # noqa: E402
from model.vae import FrameDecoder, _widened  # noqa: E402

Run = Callable[[], np.ndarray]


class Decoder(nn.Module):
    """The decoder's convolutions: latents of four frames and the moved portrait's shares to motion, cover and colours."""

    def __init__(self, decoder: I420Decoder) -> None:
        super().__init__()
        self.trunk: FrameDecoder = decoder.trunk
        self.last = decoder.last

    def forward(self, latents: Tensor, fine: Tensor, middle: Tensor, coarse: Tensor) -> Tensor:
        t, silu = self.trunk, torch.nn.functional.silu
        x = t.coarse(coarse + t.stem(latents))
        x = t.middle(middle + t.join2(silu(_widened(silu(x), t.up2))))
        return self.last(silu(t.fine(fine + t.join1(silu(_widened(silu(x), t.up1))))))


class Pass(nn.Module):
    """A pass of the transformer over a finished frame and a new one, with the keys and values of earlier ones."""

    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.dit = dit

    def forward(self, x: Tensor, mask: Tensor, y: Tensor, t: Tensor, audio: Tensor, control: Tensor, keys: Tensor, values: Tensor,
                text_k: Tensor, text_v: Tensor, image_k: Tensor, image_v: Tensor) -> Tensor:  # fmt: skip
        def context(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            return torch.cat((keys[:, layer], k), dim=1), torch.cat((values[:, layer], v), dim=1)

        return self.dit(
            x, mask, y, t, static=StaticKeys(text_k, text_v, image_k, image_v), audio_BTLC=audio, control_BTC=control, context=context,
            context_frames=1 + PRESENTER_WINDOW.context,
        )  # fmt: skip


def decoder_inputs() -> tuple[Tensor, ...]:
    fine, middle, coarse = PRESENTER_VAE.widths
    return (torch.randn(4, PRESENTER_VAE.frame_channels, 16, 16), torch.randn(4, fine, 64, 64), torch.randn(4, middle, 32, 32),
            torch.randn(4, coarse, 16, 16))  # fmt: skip


def pass_inputs() -> tuple[Tensor, ...]:
    c = PRESENTER_DIT
    latent, tokens = (2, 1, c.latent_channels, c.grid, c.grid), (c.grid // c.patch) ** 2
    kept = (2, c.num_layers, (1 + PRESENTER_WINDOW.context) * tokens, c.dim)
    static = [torch.randn(1, c.num_layers, n, c.dim) for n in (4, 4, c.image_tokens, c.image_tokens)]
    return (torch.randn(latent), torch.zeros(2, 1, c.mask_channels, c.grid, c.grid), torch.randn(latent), torch.ones(2, 1),
            torch.randn(2, 1, c.audio_tokens, c.audio_dim), torch.randn(2, 1, c.control_dim), torch.randn(kept), torch.randn(kept),
            *static)  # fmt: skip


def onnx_session(network: nn.Module, inputs: tuple[Tensor, ...], folder: Path, calibrate: bool | None) -> Run:
    """calibrate: None = float32, False = 8-bit weights and activations scaled as they come, True = scaled beforehand."""
    import onnxruntime as ort
    from onnxruntime import quantization as q

    path = folder / "network.onnx"
    torch.onnx.export(network, inputs, path, dynamo=True, external_data=False, verbose=False)
    names = [i.name for i in ort.InferenceSession(path, providers=["CPUExecutionProvider"]).get_inputs()]
    if calibrate is False:
        q.quantize_dynamic(path, folder / "int8.onnx", weight_type=q.QuantType.QInt8)
        path = folder / "int8.onnx"
    elif calibrate:
        feeds = iter([{n: torch.randn_like(t).numpy() for n, t in zip(names, inputs, strict=True)} for _ in range(8)])

        class Reader(q.CalibrationDataReader):
            def get_next(self) -> dict[str, np.ndarray] | None:
                return next(feeds, None)

        q.quantize_static(path, folder / "int8.onnx", Reader(), per_channel=True, weight_type=q.QuantType.QInt8)
        path = folder / "int8.onnx"
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return lambda: session.run(None, feed)[0]


def in_torch(network: nn.Module, inputs: tuple[Tensor, ...]) -> Run:
    def run() -> np.ndarray:
        with torch.inference_mode():
            return network(*inputs).float().numpy()

    return run


def ways(build: Callable[[], nn.Module], inputs: tuple[Tensor, ...], rounds_folder: Path) -> dict[str, Callable[[], Run]]:
    """How to make each; what fails to be made is reported, not left out."""

    def low() -> Run:
        return in_torch(build().to(torch.bfloat16), tuple(t.to(torch.bfloat16) for t in inputs))

    def fresh(name: str) -> Path:
        folder = rounds_folder / name
        folder.mkdir(parents=True)
        return folder

    return {
        "torch float32": lambda: in_torch(build(), inputs),
        "torch.compile float32": lambda: in_torch(torch.compile(build()), inputs),  # type: ignore[arg-type]
        "torch bfloat16": low,
        "onnxruntime float32": lambda: onnx_session(build(), inputs, fresh("float32"), None),
        "onnxruntime int8, dynamic": lambda: onnx_session(build(), inputs, fresh("dynamic"), False),
        "onnxruntime int8, static": lambda: onnx_session(build(), inputs, fresh("static"), True),
    }


def compare(makers: dict[str, Callable[[], Run]], rounds: int) -> dict[str, dict[str, float | str]]:
    runs: dict[str, Run] = {}
    rows: dict[str, dict[str, float | str]] = {}
    for name, make in makers.items():
        try:
            runs[name] = make()
            for _ in range(3):
                runs[name]()
        except Exception as error:  # noqa: BLE001  every backend fails in its own way
            runs.pop(name, None)
            rows[name] = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
    exact = runs["torch float32"]()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            taken[name].append((time.perf_counter() - start) * 1e3)
    base = statistics.median(taken["torch float32"])
    for name, times in taken.items():
        median = statistics.median(times)
        error = float(np.abs(runs[name]() - exact).max() / exact.std())
        rows[name] = {"median_ms": median, "ratio": median / base, "largest_error": error}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    parts = load_presenter()
    decoder, transformer = decoder_inputs(), pass_inputs()
    result: dict[str, dict[str, dict[str, float | str]]] = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for name, build, inputs in (
            ("decoder", lambda: Decoder(I420Decoder(parts.vae.decoder, torch.device("cpu"), torch.float32)).eval(), decoder),
            ("transformer", lambda: Pass(load_presenter().dit).eval(), transformer),
        ):
            result[name] = compare(ways(build, inputs, Path(folder) / name), args.rounds)
            print(name)
            for way, row in result[name].items():
                print(f"  {way:28}" + "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k}: {v}" for k, v in row.items()))
    if args.json:
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
        args.json.write_text(json.dumps({"machine": machine} | result, indent=1) + "\n")


if __name__ == "__main__":
    main()
