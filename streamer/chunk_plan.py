"""Which chunk a session generates next, from which state, in which epoch.

Sans-I/O. Chunks that were skipped or dropped leave no state, so a chunk goes on from the newest generated one before
it; an interrupt forgets everything after the chunk on screen and raises the epoch.
"""

from __future__ import annotations

from streamer.worker_messages import INITIAL

_KEPT = 8  # as many states as the worker keeps


class ChunkPlan:
    """Lineage of one session."""

    def __init__(self) -> None:
        self.epoch = 0
        self.next_chunk = 0
        self._generated: list[int] = [INITIAL]

    def base_for(self, chunk_index: int) -> int:
        """The chunk whose state this one goes on from."""
        return max(index for index in self._generated if index < chunk_index)

    def taken(self, chunk_index: int) -> None:
        """The chunk is on its way, or was given up."""
        self.next_chunk = max(self.next_chunk, chunk_index + 1)

    def arrived(self, epoch: int, chunk_index: int) -> bool:
        """Frames are here; False when an interrupt has made them obsolete."""
        if epoch != self.epoch:
            return False
        self._generated = [*self._generated, chunk_index][-_KEPT:]
        return True

    def interrupt(self, chunk_on_screen: int) -> int:
        """The new epoch; generation goes on right after the chunk on screen."""
        self.epoch += 1
        self._generated = [index for index in self._generated if index <= chunk_on_screen] or [INITIAL]
        self.next_chunk = chunk_on_screen + 1
        return self.epoch

    def restart(self) -> None:
        """The worker has lost every state."""
        self._generated = [INITIAL]
