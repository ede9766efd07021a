"""The worker process: the only place where the model runs.

The model never shares a Python process with the event loop: a busy thread there costs the media clock 100 ms at p99.
The process drains its pipe before every step, so an interrupt overtakes whatever has not started; it orders steps by
deadline, puts at most one step of each session into a batch, and answers every slot it was given exactly once. It
ignores SIGINT (the parent decides) and ends when the pipe closes.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from model.presets import Pipeline
from streamer import worker_messages as msg
from streamer.admission import MAX_LOAD, percentile
from streamer.arena import Arena
from streamer.config import WorkerConfig

logger = logging.getLogger(__name__)

SIGTERM_GRACE_S = 3
UNMEASURED_STEPS = 3
STATES_KEPT = 8  # chunks; an interrupt rewinds at most the playout delay, which is 2 to 3


@dataclass(slots=True)
class _Session:
    epoch: int = 0
    states: dict[int, Any] = field(default_factory=dict)  # by the chunk they come after, in order of computation

    def remember(self, chunk_index: int, state: Any) -> None:
        self.states.pop(chunk_index, None)
        self.states[chunk_index] = state
        while len(self.states) > STATES_KEPT:
            self.states.pop(next(iter(self.states)))


class Worker:
    """The process's logic without the process: requests in through `handle`, replies out through `send`."""

    def __init__(self, pipeline: Pipeline, max_batch: int, send: Callable[[msg.Reply], None]) -> None:
        self._pipeline = pipeline
        self._max_batch = max_batch
        self._send = send
        self._arena: Arena | None = None
        self._sessions: dict[str, _Session] = {}
        self._waiting: list[msg.Step] = []

    @property
    def has_work(self) -> bool:
        return bool(self._waiting)

    def handle(self, request: msg.Request) -> None:
        match request:
            case msg.Step():
                self._waiting.append(request)
            case msg.Interrupt(session, epoch):
                self._raise_epoch(session, epoch)
            case msg.Open():
                self._open(request)
            case msg.Close(session):
                self._sessions.pop(session, None)
                self._drop_where(lambda step: step.session == session)
            case msg.Warmup(repeats, max_batch):
                self._send(msg.Warmed(measure(self._pipeline, repeats, max_batch)))
            case msg.Attach(arena_name, num_slots):
                self._arena = Arena(self._pipeline.geometry, num_slots, arena_name)

    def run_batch(self) -> None:
        """Runs the most urgent waiting steps, one of each session."""
        batch = self._take_batch()
        if len(batch) > 1:
            try:
                replies: list[msg.Reply] = self._run(batch)
            except Exception as error:
                logger.warning("a batch of %d failed (%s); its sessions run one by one", len(batch), error)
                replies = [reply for step in batch for reply in self._run_alone(step)]
        else:
            replies = [reply for step in batch for reply in self._run_alone(step)]
        # Outside of what is caught above: a pipe that closed ends the worker, it fails no step.
        for reply in replies:
            self._send(reply)

    def _run_alone(self, step: msg.Step) -> list[msg.Reply]:
        try:
            return self._run([step])
        except Exception as error:
            logger.exception("session %s: step %d failed", step.session, step.chunk_index)
            return [msg.Failed(step.session, step.chunk_index, step.slot, str(error))]

    def close(self) -> None:
        if self._arena is not None:
            self._arena.close()

    def _raise_epoch(self, session_id: str, epoch: int) -> None:
        session = self._sessions.get(session_id)
        if session is not None:
            session.epoch = max(session.epoch, epoch)
        self._drop_where(lambda step: step.session == session_id and step.epoch < epoch)

    def _drop_where(self, condition: Callable[[msg.Step], bool]) -> None:
        kept = []
        for step in self._waiting:
            if condition(step):
                self._send(msg.Dropped(step.session, step.epoch, step.chunk_index, step.slot))
            else:
                kept.append(step)
        self._waiting = kept

    def _open(self, request: msg.Open) -> None:
        assert self._arena is not None
        try:
            state = self._pipeline.open(self._arena.read_portrait(request.slot), seed=request.seed)
        except Exception as error:
            logger.exception("session %s: the portrait could not be opened", request.session)
            self._send(msg.Failed(request.session, msg.INITIAL, request.slot, str(error)))
            return
        self._sessions[request.session] = _Session(states={msg.INITIAL: state})
        self._send(msg.Opened(request.session, request.slot))

    def _take_batch(self) -> list[msg.Step]:
        """Steps that can run, most urgent first; those that cannot are answered here."""
        batch: list[msg.Step] = []
        later: list[msg.Step] = []
        for step in sorted(self._waiting, key=lambda step: step.deadline_s):
            session = self._sessions.get(step.session)
            if session is None or step.epoch < session.epoch:
                self._send(msg.Dropped(step.session, step.epoch, step.chunk_index, step.slot))
            elif len(batch) == self._max_batch or any(step.session == other.session for other in batch):
                later.append(step)
            elif step.base_chunk not in session.states:
                text = f"the state after chunk {step.base_chunk} is gone, kept are {list(session.states)}"
                self._send(msg.Failed(step.session, step.chunk_index, step.slot, text))
            else:
                batch.append(step)
        self._waiting = later
        return batch

    def _run(self, batch: list[msg.Step]) -> list[msg.Reply]:
        assert self._arena is not None
        states = [self._sessions[step.session].states[step.base_chunk] for step in batch]
        audio = [self._arena.read_audio(step.slot) for step in batch]
        started_s = time.perf_counter()
        frames, next_states = self._pipeline.step(states, audio, [step.activity for step in batch])
        step_ms = (time.perf_counter() - started_s) * 1000
        # Everything that can fail happens before a state changes: a batch is answered as a whole or not at all.
        for step, picture in zip(batch, frames, strict=True):
            self._arena.write_frames(step.slot, picture)
        replies: list[msg.Reply] = []
        for step, state in zip(batch, next_states, strict=True):
            session = self._sessions[step.session]
            session.epoch = max(session.epoch, step.epoch)
            session.remember(step.chunk_index, state)
            replies.append(msg.Frames(step.session, step.epoch, step.chunk_index, step.slot, step_ms, len(batch)))
        return replies


def measure(pipeline: Pipeline, repeats: int, max_batch: int) -> dict[int, list[float]]:
    """Step times in milliseconds for batches of 1, 2, 4 ...; ends after the first size that cannot keep up.

    One session is measured well, since its slowest steps decide how far sessions play behind; batches only for admission.
    """
    geometry = pipeline.geometry
    portrait = np.full((geometry.height, geometry.width, 3), 128, dtype=np.uint8)
    voice = np.random.default_rng(0).integers(-3000, 3000, geometry.step_samples_16k).astype(np.int16)
    opened = pipeline.open(portrait, seed=0)
    step_ms: dict[int, list[float]] = {}
    batch = 1
    while batch <= max_batch:
        states = [opened] * batch
        step_ms[batch] = []
        for _ in range(UNMEASURED_STEPS if batch == 1 else 1):  # the first ones allocate and choose kernels
            _, states = pipeline.step(states, [voice] * batch, ["speaking"] * batch)
        for _ in range(repeats if batch == 1 else (repeats + 3) // 4):
            started_s = time.perf_counter()
            _, states = pipeline.step(states, [voice] * batch, ["speaking"] * batch)
            step_ms[batch].append((time.perf_counter() - started_s) * 1000)
        if percentile(step_ms[batch], 0.5) > MAX_LOAD * geometry.chunk_ms:
            break
        batch *= 2
    return step_ms


def build_pipeline(config: WorkerConfig) -> Pipeline:
    """Calls the factory "module:function" or "module:Class.method"."""
    module_name, _, attribute_path = config.pipeline_factory.partition(":")
    target: Any = importlib.import_module(module_name)
    for attribute in attribute_path.split("."):
        target = getattr(target, attribute)
    pipeline: Pipeline = target(**config.options)
    return pipeline


def _serve(worker: Worker, connection: Connection) -> None:
    while True:
        while not worker.has_work or connection.poll():
            worker.handle(connection.recv())
        worker.run_batch()


def main(connection: Connection, config: WorkerConfig) -> None:
    """Entry point of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A service manager may signal the whole group: give the parent time to say bye, but never outlive it for long.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SIGTERM_GRACE_S))
    # Before torch is imported by the factory; later it has no effect.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(config.num_threads)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: worker: %(message)s")
    started_s = time.perf_counter()
    try:
        pipeline = build_pipeline(config)
    except Exception as error:
        logger.exception("the model could not be loaded")
        connection.send(msg.LoadFailed(f"{type(error).__name__}: {error}"))
        return
    gc.collect()
    gc.freeze()  # the model's objects live as long as the process: spare every later collection from walking them
    worker = Worker(pipeline, config.max_batch, connection.send)
    try:
        connection.send(msg.Loaded(pipeline.geometry, time.perf_counter() - started_s))
        _serve(worker, connection)
    except (EOFError, OSError):
        logger.debug("the pipe closed, the worker ends")
    finally:
        worker.close()
