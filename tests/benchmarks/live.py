"""The whole live path, measured from outside: the real server, headless Chromium, a recording as its microphone.

Mirror session: frames a second, freezes, microphone to photon (bar code in the picture), skew between lips and voice, CPU seconds of the
server a second. Agent session: time from an interrupt to silence at the listener. Everything is measured in the browser, on one clock.

    python tests/benchmarks/live.py --speech talk.wav --seconds 60 --json tests/benchmarks/results/live.json

Without --speech a synthesised voice speaks (flite).

How microphone to photon is found: the server's trace holds the sound of every unit; its envelope is matched with the envelope the page
records from its own microphone, which tells when each unit's sound was spoken; the bar code tells when its frame was shown.
Skew is picture against returned sound, both as the page receives them (before the audio device's own output latency). Web Audio, through
which the page listens, hears a stream late by a buffer of its own; clicks sent through such a stream say by how much, and it is taken off.
"""

from __future__ import annotations

import argparse
import json
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import wave
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import Page, sync_playwright

from model.geometry import FPS, MEDIA_RATE
from streamer.speech_file import decode_speech

HERE = Path(__file__).parent
ENVELOPE_S = 0.01
FAKE_MIC = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
SILENT = 0.004  # RMS under which the listener hears nothing


class Server:
    """`livemimic serve` as its own process; `cpu_s` sums it and its worker."""

    def __init__(self, folder: Path, extra: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "streamer.cli", "serve", "--port", str(self.port), "--no-browser", "--barcode"]
        self._log = (folder / "server.log").open("w")
        started = time.monotonic()
        self.process = subprocess.Popen([*command, "--trace", str(folder), *extra], stdout=self._log, stderr=self._log)
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() - started > 60:
                raise SystemExit(f"the server did not start: {(folder / 'server.log').read_text()}")
            time.sleep(0.05)
        self.start_s = time.monotonic() - started

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def cpu_s(self) -> float:
        parent = psutil.Process(self.process.pid)
        return sum(sum(p.cpu_times()[:2]) for p in (parent, *parent.children(recursive=True)))

    def stop(self) -> float:
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(10)
        return time.monotonic() - began


def percentiles(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    p50, p95 = np.percentile(values, (50, 95))
    return {"p50": float(p50), "p95": float(p95), "max": float(np.max(values)), "n": len(values)}


def resample(pairs: list[list[float]], start_s: float, stop_s: float) -> np.ndarray:
    """Envelope on a regular 10 ms grid of the audio clock."""
    times, values = np.array(pairs).T
    return np.interp(np.arange(start_s, stop_s, ENVELOPE_S), times, values, left=0.0, right=0.0)


def best_lag_s(reference: np.ndarray, delayed: np.ndarray, max_s: float) -> tuple[float, float]:
    """Lag in s (positive: `delayed` is later) of the highest normalised correlation, and that correlation."""
    reference, delayed = reference - reference.mean(), delayed - delayed.mean()
    limit = min(int(max_s / ENVELOPE_S), len(reference) - 1)
    full = np.correlate(delayed, reference, mode="full")[len(reference) - 1 - limit : len(reference) + limit]
    scores = full / (np.linalg.norm(reference) * np.linalg.norm(delayed) + 1e-12)
    best = int(np.argmax(scores))
    offset = 0.0
    if 0 < best < len(scores) - 1:
        left, middle, right = scores[best - 1 : best + 2]
        offset = 0.5 * (left - right) / (left - 2 * middle + right - 1e-12)
    return (best - limit + offset) * ENVELOPE_S, float(scores[best])


def envelope_of_wav(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float64) / 32768
    step = int(MEDIA_RATE * ENVELOPE_S)
    usable = len(samples) // step * step
    return np.sqrt((samples[:usable].reshape(-1, step) ** 2).mean(axis=1))


def open_page(context: Any, server: Server, mode: str, portrait: str) -> Page:
    page: Page = context.new_page()
    page.add_init_script(path=str(HERE / "live.js"))
    page.goto(f"http://127.0.0.1:{server.port}/?debug=1&auto={mode}&portrait={portrait}")
    page.wait_for_function("window.livemimic && document.body.dataset.phase === 'live'", timeout=20_000)
    page.evaluate("async () => { window.measuring = await window.measure(); }")
    return page


def mirror(browser_type: Any, server: Server, folder: Path, speech: Path, seconds: float, portrait: str) -> dict[str, Any]:
    microphone = folder / "microphone.wav"
    with speech.open("rb") as file:
        samples = decode_speech(file)
    with wave.open(str(microphone), "wb") as out:
        out.setparams((1, 2, MEDIA_RATE, 0, "NONE", "NONE"))
        out.writeframes(samples.tobytes())
    with tempfile.TemporaryDirectory() as profile:
        context = browser_type.launch_persistent_context(
            profile, executable_path="/usr/bin/chromium", args=[*FLAGS, *FAKE_MIC, f"--use-file-for-fake-audio-capture={microphone}"]
        )
        page = open_page(context, server, "mirror", portrait)
        page.wait_for_timeout(3000)  # the browser's jitter buffers settle
        before, began = server.cpu_s(), time.monotonic()
        page.wait_for_timeout(seconds * 1000)
        cpu = (server.cpu_s() - before) / (time.monotonic() - began)
        page.screenshot(path=str(folder / "mirror.png"))
        session = page.evaluate("window.livemimic.session.info.session_id")
        data = page.evaluate("window.measuring.stop()")
        page.evaluate("window.livemimic.session.close()")
        page.wait_for_timeout(500)
        context.close()
    (folder / "mirror.json").write_text(json.dumps(data))
    return analyse_mirror(data, folder / f"{session}.wav", folder / f"{session}.json", seconds) | {"server_cpu_cores": cpu}


def analyse_mirror(data: dict[str, Any], sound: Path, trace: Path, seconds: float) -> dict[str, Any]:
    polls = [p for p in data["polls"] if p["audioTime"]]
    clock_ms = float(np.median([p["audioNow"] - p["audioTime"] * 1000 for p in polls]))  # performance.now() of audio time 0
    # Sound is heard by Web Audio this much later than by the page itself.
    tap_s = float(np.median(data["loopbackMs"])) / 1000
    data = data | {key: [[t - tap_s, level] for t, level in data[key]] for key in ("microphone", "returned")}
    end_s = data["returned"][-1][0]
    start_s = max(end_s - seconds, data["returned"][0][0], data["microphone"][0][0])
    spoken, heard = (resample(data[k], start_s, end_s) for k in ("microphone", "returned"))
    window = int(4 / ENVELOPE_S)
    ear = []
    for i in range(0, len(spoken) - 2 * window, window // 2):
        lag, score = best_lag_s(spoken[i : i + window], heard[i : i + window], 1.5)
        if score > 0.8:
            ear.append((start_s + (i + window / 2) * ENVELOPE_S, lag))
    ear_times, ear_lags = np.array(ear).T
    # Where the trace's time 0 lies on the audio clock: its envelope is the microphone's, shifted.
    sent = envelope_of_wav(sound)
    full_spoken = resample(data["microphone"], data["microphone"][0][0], end_s)
    lag, score = best_lag_s(sent[: len(full_spoken)], full_spoken[: len(sent)], 20.0)
    origin_s = data["microphone"][0][0] + lag
    units = [u["index"] for u in json.loads(trace.read_text())["units"]]
    first = units[0]
    shown: dict[int, float] = {}
    for code, expected, _ in data["frames"]:
        if code is not None and (expected - clock_ms) / 1000 > start_s:
            shown.setdefault(code, expected)
    photon, skew = [], []
    for index, shown_ms in shown.items():
        spoken_ms = clock_ms + (origin_s + (index - first) / FPS) * 1000
        photon.append(shown_ms - spoken_ms)
        heard_ms = spoken_ms + 1000 * np.interp((spoken_ms - clock_ms) / 1000, ear_times, ear_lags)
        skew.append(shown_ms - heard_ms)
    inside = [p for p in data["polls"] if (p["now"] - clock_ms) / 1000 > start_s]
    span_s = (inside[-1]["now"] - inside[0]["now"]) / 1000
    gaps = np.diff(sorted(shown.values()))
    chrome = np.array([p["skewMs"] for p in inside if p["skewMs"] is not None])
    return {
        "fps": (inside[-1]["framesDecoded"] - inside[0]["framesDecoded"]) / span_s,
        "freezes": inside[-1]["freezeCount"] - inside[0]["freezeCount"],
        "frames_dropped_by_browser": inside[-1]["framesDropped"] - inside[0]["framesDropped"],
        "keyframes": inside[-1]["keyFrames"],
        "inter_frame_ms": {"mean": float(gaps.mean()), "sd": float(gaps.std()), "max": float(gaps.max())},
        "mic_to_photon_ms": percentiles(np.array(photon)),
        "mic_to_ear_ms": percentiles(ear_lags * 1000),
        "skew_ms": percentiles(np.abs(skew)) | {"median_signed": float(np.median(skew))},
        "chrome_skew_ms": percentiles(np.abs(chrome)) | {"median_signed": float(np.median(chrome)) if len(chrome) else None},
        "tap_ms": tap_s * 1000, "trace_match": score,
        "units_repeated": inside[-1]["server"]["repeated"], "server_stats": inside[-1]["server"],
    }  # fmt: skip


def interrupts(browser_type: Any, server: Server, folder: Path, speech: Path, count: int, portrait: str) -> dict[str, Any]:
    """A browser without a microphone listens to pushed speech and interrupts it `count` times."""
    delays = []
    with tempfile.TemporaryDirectory() as profile:
        context = browser_type.launch_persistent_context(profile, executable_path="/usr/bin/chromium", args=FLAGS)
        page = open_page(context, server, "agent", portrait)
        page.set_input_files("#sound", str(speech))
        for _ in range(count):
            page.click("#speak")
            page.wait_for_timeout(2500)
            called = page.evaluate("(async () => { const t = performance.now(); await window.livemimic.session.interrupt(); return t; })()")
            page.wait_for_timeout(1500)
            delays.append(called)
        data = page.evaluate("window.measuring.stop()")
        page.screenshot(path=str(folder / "agent.png"))
        page.evaluate("window.livemimic.session.close()")
        context.close()
    polls = [p for p in data["polls"] if p["audioTime"]]
    clock_ms = float(np.median([p["audioNow"] - p["audioTime"] * 1000 for p in polls]))
    times, levels = np.array(data["returned"]).T
    times_ms = times * 1000 + clock_ms - float(np.median(data["loopbackMs"]))
    out = []
    for called in delays:
        before = levels[(times_ms > called - 800) & (times_ms <= called)]
        after = (times_ms > called) & (times_ms < called + 1400)
        if before.max(initial=0.0) < SILENT:
            continue  # a pause: nothing to silence
        loud = times_ms[after][levels[after] > SILENT]
        out.append(float(loud.max() - called) if len(loud) else 0.0)
    return {"interrupt_to_silence_ms": percentiles(np.array(out))}


def synthesised(path: Path) -> Path:
    text = "People speak in phrases. Between them they pause, and then they go on about bread, music, maps and the weather."
    subprocess.run(["flite", "-voice", "slt", "-t", text, "-o", str(path)], check=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, help="recording that plays the microphone, looped (default: a synthesised voice)")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--interrupts", type=int, default=10)
    parser.add_argument("--portrait", default="")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep traces, recordings and screenshots there")
    parser.add_argument("serve", nargs="*", help="more options for 'livemimic serve', after --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        speech = args.speech or synthesised(folder / "flite.wav")
        server = Server(folder, args.serve)
        try:
            with sync_playwright() as playwright:
                result = mirror(playwright.chromium, server, folder, speech, args.seconds, args.portrait)
                result |= interrupts(playwright.chromium, server, folder, speech, args.interrupts, args.portrait)
        finally:
            stop_s = server.stop()
    result |= {
        "server_start_s": server.start_s, "server_stop_s": stop_s, "seconds": args.seconds, "speech": speech.name,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": _cpu_name(), "cores": psutil.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
    }  # fmt: skip
    for key, value in result.items():
        if isinstance(value, dict) and key not in ("server_stats", "machine"):
            value = "  ".join(f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items())
        print(f"{key:28} {value}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def _cpu_name() -> str:
    lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return lines[0].partition(":")[2].strip() if lines else platform.processor()


if __name__ == "__main__":
    main()
