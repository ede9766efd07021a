"""`livemimic doctor`: what this machine has, what it lacks and what to do about it, in plain words.

Every check is a small function that returns one Finding; nothing is changed and nothing leaves the machine. Heavy
imports (torch, av) happen inside the checks: the command line stays quick, and a broken package is itself a finding.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Status = Literal["ok", "note", "problem"]
MIN_PYTHON = (3, 11)
WEIGHTS = Path(__file__).parents[1] / "model" / "weights"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge", "firefox")
MARKS: dict[Status, str] = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. A note is worth knowing; only a problem keeps the server from working."""

    check: str
    status: Status
    message: str
    advice: str = ""


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 when something keeps the server from working."""
    findings = list(examine())
    if args.json:
        print(json.dumps({"ok": _healthy(findings), "findings": [asdict(finding) for finding in findings]}, indent=2))
        return 0 if _healthy(findings) else 1
    for finding in findings:
        print(f"{MARKS[finding.status]}  {finding.check:<9} {finding.message}")
        if finding.advice:
            print(f"{'':20}-> {finding.advice}")
    print("Everything needed is here." if _healthy(findings) else "Repair what is marked PROBLEM, then run this again.")
    return 0 if _healthy(findings) else 1


def examine() -> Iterator[Finding]:
    checks: dict[str, Callable[[], Finding]] = {
        "python": _python,
        "torch": _torch,
        "codecs": _codecs,
        "nvenc": _nvenc,
        "network": _network,
        "udp": _udp,
        "weights": _weights,
        "browser": _browser,
        "gpu": _gpu,
    }
    for name, check in checks.items():
        try:
            yield check()
        except (ImportError, OSError) as error:
            yield Finding(name, "problem", f"{error}", "Install again: run `make serve`, or pip install livemimic.")


def _healthy(findings: list[Finding]) -> bool:
    return all(finding.status != "problem" for finding in findings)


def _python() -> Finding:
    message = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < MIN_PYTHON:
        return Finding("python", "problem", message, "Python 3.11 or newer is needed.")
    return Finding("python", "ok", message)


def _torch() -> Finding:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fast_bf16 = bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    message = (
        f"torch {torch.__version__}, {torch.get_num_threads()} threads on {cores} cores, "
        f"bfloat16 {'in hardware' if fast_bf16 else 'emulated'} on this CPU"
    )
    if cores < 2:
        return Finding("torch", "note", message, "One core is too few for live video; two carry a session.")
    return Finding("torch", "ok", message)


def _codecs() -> Finding:
    import av

    missing = [name for name in ("libx264", "libvpx", "libopus") if name not in av.codecs_available]
    if missing:
        advice = "Install PyAV from its binary wheel: pip install --force-reinstall --only-binary :all: av"
        return Finding("codecs", "problem", f"PyAV {av.__version__} lacks {', '.join(missing)}", advice)
    return Finding("codecs", "ok", f"PyAV {av.__version__} has H.264 (libx264), VP8 (libvpx) and Opus (libopus)")


def _nvenc() -> Finding:
    import av

    if "h264_nvenc" not in av.codecs_available:
        return Finding("nvenc", "ok", "this PyAV has no NVENC; H.264 is encoded on the CPU")
    try:
        encoder = av.CodecContext.create("h264_nvenc", "w")
        assert isinstance(encoder, av.VideoCodecContext)
        encoder.width, encoder.height, encoder.pix_fmt, encoder.framerate = 256, 256, "yuv420p", 25  # type: ignore[assignment]
        encoder.open()
    except (av.FFmpegError, OSError):
        return Finding("nvenc", "ok", "no NVENC device; H.264 is encoded on the CPU")
    return Finding("nvenc", "ok", "NVENC works")


def _network() -> Finding:
    import ifaddr

    addresses = [
        f"{ip.ip if ip.is_IPv4 else ip.ip[0]} ({adapter.nice_name})"
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
        if not _is_local(str(ip.ip if ip.is_IPv4 else ip.ip[0]))
    ]
    if not addresses:
        advice = (
            "WebRTC needs an address other than 127.0.0.1, even for a browser on this machine. Connect to a network, "
            "or add one: sudo ip link add dummy0 type dummy && sudo ip addr add 10.99.0.1/24 dev dummy0 "
            "&& sudo ip link set dummy0 up"
        )
        return Finding("network", "problem", "only the loopback interface has an address", advice)
    return Finding("network", "ok", ", ".join(addresses))


def _is_local(address: str) -> bool:
    return address.startswith(("127.", "169.254.", "fe80")) or address == "::1"


def _udp() -> Finding:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(1.0)
        try:
            sender.sendto(b"livemimic", receiver.getsockname())
            arrived = receiver.recv(64) == b"livemimic"
        except OSError:
            arrived = False
    if not arrived:
        advice = "A firewall or sandbox stops UDP on this machine; media cannot flow until it is allowed."
        return Finding("udp", "problem", "a UDP packet to 127.0.0.1 did not arrive", advice)
    return Finding("udp", "ok", "packets arrive on 127.0.0.1")


def _weights(folder: Path = WEIGHTS) -> Finding:
    from safetensors import SafetensorError, safe_open

    advice = "Take model/weights from the release again: the file is missing, cut off or not readable by this user."
    files = sorted(folder.glob("*.safetensors"))
    if not [file for file in files if file.name.startswith("presenter")]:
        return Finding("weights", "problem", f"no presenter*.safetensors in {folder}", advice)
    num_tensors = 0
    for file in files:
        try:
            with safe_open(file, framework="numpy") as opened:
                num_tensors += len(opened.keys())
        except (SafetensorError, OSError) as error:
            return Finding("weights", "problem", f"{file.name}: {error}", advice)
    num_portraits = len(list((folder / "portraits").glob("*.png")))
    if not num_portraits:
        return Finding("weights", "problem", f"no portraits in {folder / 'portraits'}", advice)
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    message = f"{num_tensors} tensors in {len(files)} files, {megabytes:.1f} MB, {num_portraits} portraits"
    return Finding("weights", "ok", message)


def _browser() -> Finding:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        advice = "Only needed for `make test` and to look at the page here: apt-get install chromium"
        return Finding("browser", "note", "no browser on this machine", advice)
    return Finding("browser", "ok", found)


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("gpu", "ok", "none; the embedded preset runs on the CPU")
    name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory / 2**30
    if importlib.util.find_spec("triton") is None:
        advice = "pip install 'livemimic[gpu]' brings the fused kernels."
        return Finding("gpu", "note", f"{name}, {memory:.0f} GiB, without triton", advice)
    return Finding("gpu", "ok", f"{name}, {memory:.0f} GiB, CUDA {torch.version.cuda}, triton present")
