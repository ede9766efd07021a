"""Everything a running server owns, and the order in which it starts and stops."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from streamer.config import ServeConfig
from streamer.dispatch import Dispatcher
from streamer.metrics import Metrics
from streamer.portrait_store import PortraitStore
from streamer.sessions import SessionRegistry
from streamer.tidy import Tidy
from streamer.worker_client import Launched

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 2.3  # peers need up to 2 s; the whole shutdown must fit into 3 s


class Runtime:
    """Create it inside the event loop; `start` returns at once, the worker gets ready in the background."""

    def __init__(self, config: ServeConfig, portraits: PortraitStore) -> None:
        self.config = config
        self.portraits = portraits
        self.metrics = Metrics()
        self.dispatcher = Dispatcher(config.worker, self.metrics, config.max_sessions)
        self.decoders = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._tidy = Tidy(self.decoders)
        self.sessions = SessionRegistry(config, self.dispatcher, portraits, self.metrics, self._tidy.soon)
        self._stopped = False

    @property
    def ready(self) -> bool:
        return self.dispatcher.ready.is_set()

    def start(self, worker: Launched | None = None) -> None:
        if self.config.portrait is not None:
            self.portraits.use_first(self.config.portrait)
        self.dispatcher.client.start(worker)

    async def stop(self) -> None:
        """Says bye, closes the peers, stops the worker; idempotent and bounded."""
        if self._stopped:
            return
        self._stopped = True
        try:
            await asyncio.wait_for(self.sessions.close_all("server_shutdown"), CLOSE_TIMEOUT_S)
        except TimeoutError:
            logger.warning("not every session closed within %.1f s", CLOSE_TIMEOUT_S)
        await self.dispatcher.stop()
        self._tidy.stop()
        self.decoders.shutdown(wait=False, cancel_futures=True)
        self.portraits.close()


def _runtime_of(connection: HTTPConnection) -> Runtime:
    runtime: Runtime = connection.app.state.runtime
    return runtime


Running = Annotated[Runtime, Depends(_runtime_of)]  # what a route asks for
