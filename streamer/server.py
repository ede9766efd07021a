"""`livemimic serve`: uvicorn on uvloop, a worker in its own process, an end within 3 s.

The port answers before anything heavy is imported: the socket listens first, early requests wait in its queue for
some tenths of a second, and `/readyz` says when the model is there. The first SIGINT or SIGTERM drains, the second
one forces.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import webbrowser
from types import FrameType
from typing import TYPE_CHECKING

from model.errors import ModelError
from streamer.config import ServeConfig, has_desktop, version

if TYPE_CHECKING:
    from streamer.portrait_store import PortraitStore

logger = logging.getLogger(__name__)

EXIT_FAILURE = 1
EXIT_FORCED = 130
_BACKLOG = 512


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError, whose errno says why."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def address(listener: socket.socket, host: str) -> str:
    """What to type into a browser."""
    port = listener.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def run(config: ServeConfig, portraits: PortraitStore | None = None) -> int:
    """Serves until a signal; returns the exit status."""
    try:
        listener = listen(config.host, config.port)
    except OSError as error:
        hint = "is another livemimic running? choose a port with --port" if config.port else "check --host"
        print(f"livemimic: cannot listen on {config.host} port {config.port}: {error.strerror}; {hint}", file=sys.stderr)
        return EXIT_FAILURE
    url = address(listener, config.host)
    print(f"livemimic {version()}: {url}  (loading the model ... Ctrl-C ends)", flush=True)
    with listener:
        return _serve(config, listener, url, portraits)


def _serve(config: ServeConfig, listener: socket.socket, url: str, portraits: PortraitStore | None) -> int:
    from streamer.worker_client import launch

    worker = launch(config.worker)  # first: it loads the model while this process imports the rest
    import uvicorn
    import uvloop

    from streamer.api import create_app
    from streamer.portrait_store import PortraitStore
    from streamer.runtime import Runtime

    logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # uvicorn logs the address of a WebSocket, and with it the session's token; aioice every candidate pair.
    for noisy in ("uvicorn.error", "aioice", "aiortc"):
        logging.getLogger(noisy).setLevel(logging.WARNING)

    class Server(uvicorn.Server):
        """Adds our own order of shutting down, and a second signal that does not wait."""

        runtime: Runtime

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.should_exit:
                # The worker notices the closed pipe; nothing else outlives this process.
                os._exit(EXIT_FORCED)
            self.should_exit = True

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            for server in self.servers:
                server.close()
            await self.runtime.stop()
            await super().shutdown(sockets)

    async def main() -> int:
        runtime = Runtime(config, portraits if portraits is not None else PortraitStore.from_model(config.worker.portrait_side))
        server = Server(
            uvicorn.Config(
                create_app(runtime), http="h11", ws="websockets-sansio", lifespan="off", log_config=None,
                access_log=False, server_header=False, ws_max_size=2 << 20, ws_ping_interval=3.0, ws_ping_timeout=6.0,
                timeout_graceful_shutdown=1,
            )
        )  # fmt: skip
        server.runtime = runtime
        status = 0

        def unusable(reason: str) -> None:
            nonlocal status
            status = EXIT_FAILURE
            print(
                f"livemimic: the model cannot be loaded: {reason}\n  'livemimic doctor' says what is missing",
                file=sys.stderr,
            )
            server.should_exit = True

        runtime.dispatcher.on_unusable = unusable
        runtime.dispatcher.on_ready = lambda: print(f"livemimic: ready, open {url}", flush=True)
        try:
            runtime.start(worker)
        except (ValueError, OSError) as error:
            text = f"--portrait {config.portrait}: {error}\n  {error.hint}" if isinstance(error, ModelError) else str(error)
            print(f"livemimic: {text}", file=sys.stderr)
            await runtime.stop()
            return EXIT_FAILURE
        if config.open_browser and has_desktop():
            webbrowser.open(url)
        await server.serve(sockets=[listener])
        return status

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until uvicorn installs its own
    try:
        return uvloop.run(main())
    except KeyboardInterrupt:
        return EXIT_FORCED
