"""The published presets' live path from the command line: served to a real WebRTC client, and rendered to a film."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer.cli import build_parser, main, serve_config
from tests.model.echomimic.miniature import write_miniature
from tests.streamer.live import Client, LiveServer
from tests.streamer.test_render import read
from tests.streamer.test_render_published import arguments

SIDE = 96


class PublishedServer(LiveServer):
    module = ("streamer.cli", "serve", "--port", "0", "--no-browser", "--preset", "echomimic-v3-flash")
    start_timeout_s = 120.0  # transformers is imported, and every part is loaded


async def test_a_viewer_sees_the_published_model(tmp_path: Path) -> None:
    """The session has the size that was asked for, and what is shown is generated chunk by chunk."""
    pytest.importorskip("transformers", reason="needs the echomimic extra: pip install livemimic[echomimic]")
    weights = write_miniature(tmp_path / "weights", "flash")
    options = ("--weights", str(weights), "--device", "cpu", "--steps", "1", "--text-guidance", "1", "--new", "1", "--size", str(SIDE))
    server = PublishedServer(*options, HOME=str(tmp_path))
    try:
        server.wait_ready()
        client = Client(server.url)
        await client.connect()
        warmed = server.metric("livemimic_step_seconds_count")
        await client.until_frames(40, timeout_s=20.0)
        status = await client.status()
        assert status["geometry"] == {"width": SIDE, "height": SIDE, "fps": 25}
        assert server.metric("livemimic_step_seconds_count") > warmed
        await client.close()
    finally:
        output = server.stop()
    assert "Traceback" not in output, output


def test_serve_takes_the_live_options() -> None:
    """They reach the worker; what a session is opened with has the video's size; few slots, since chunks are large."""
    words = ["serve", "--preset", "echomimic-v3-flash", "--weights", "w", "--size", "256"]
    config = serve_config(build_parser().parse_args([*words, "--adapter", "a", "--prompt", "Hi.", "--compile", "on"])).worker
    live = config.live
    assert (live.width, live.height, live.adapter, live.prompt, live.compile) == (256, 256, Path("a"), "Hi.", "on")
    assert live.is_causal and config.portrait_side == 256 and config.num_slots == 16
    assert serve_config(build_parser().parse_args(["serve"])).worker.portrait_side == 256
    with pytest.raises(ValueError, match="width = 250 must be 64 to 2048 and a multiple of 16"):
        serve_config(build_parser().parse_args([*words, "--size", "250"]))


def test_the_rolling_window_makes_a_film_as_long_as_the_voice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's path: any length, at the size of the published rule."""
    pytest.importorskip("transformers", reason="needs the echomimic extra: pip install livemimic[echomimic]")
    monkeypatch.setenv("HOME", str(tmp_path))
    weights = write_miniature(tmp_path / "weights", "flash")
    more = ("--weights", str(weights), "--steps", "1", "--device", "cpu", "--long-video", "rolling", "--size", "100", "--new", "2")
    assert main(arguments(tmp_path, "echomimic-v3-flash", *more)) == 0
    count, sound_s, frames = read(tmp_path / "o.mp4")
    assert count == 13 and frames[0].shape == (96, 96)
    assert sound_s == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--adapter", "a"], "--adapter belongs to --long-video rolling"),
        (["--long-video", "rolling", "--window", "81"], "--window has no part in --long-video rolling"),
        (["--long-video", "rolling", "--task", "i2v"], "has no rolling window"),
        (["--long-video", "rolling", "--new", "9"], "new = 9 is out of range: 1 to 8"),
    ],
)
def test_options_of_another_path_are_refused(tmp_path: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An option that would be ignored is an error."""
    assert main(arguments(tmp_path, "echomimic-v3-flash", "--weights", str(tmp_path), *options)) == 1
    assert says in capsys.readouterr().err


def test_the_embedded_preset_has_none_of_the_published_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--tiny-decoder", "taew2_1.pth"]) == 2
    assert "--tiny-decoder belongs to the presets echomimic-v3-*" in capsys.readouterr().err
