"""The worker's logic in this process, then the real process behind its client."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import pytest_asyncio

from model.geometry import Geometry
from streamer import bench
from streamer import worker_messages as msg
from streamer.arena import Arena
from streamer.config import WorkerConfig
from streamer.worker import STATES_KEPT, Worker
from streamer.worker_client import WorkerClient
from tests.streamer.tiny_pipeline import BAD_PORTRAIT, FACTORY, QUIET_LUMA, TinyPipeline

GEOMETRY = Geometry()
PORTRAIT = np.zeros((256, 256, 3), dtype=np.uint8)
SILENCE = np.zeros(GEOMETRY.step_samples_16k, dtype=np.int16)
LOUD = np.full(GEOMETRY.step_samples_16k, 4000, dtype=np.int16)


class Bench:
    """A worker, an arena and everything the worker has answered."""

    def __init__(self) -> None:
        self.pipeline = TinyPipeline(0.0)
        self.replies: list[msg.Reply] = []
        self.arena = Arena(GEOMETRY, 8)
        self.worker = Worker(self.pipeline, 4, self.replies.append)
        self.worker.handle(msg.Attach(self.arena.name, 8))

    def open(self, session: str, portrait: np.ndarray = PORTRAIT, seed: int = 0) -> None:
        slot = self.take()
        self.arena.write_portrait(slot, portrait)
        self.worker.handle(msg.Open(session, slot, seed))

    def step(self, session: str, chunk: int, base: int, *, epoch: int = 0, deadline: float = 0.0, audio: np.ndarray = SILENCE) -> int:
        slot = self.take()
        self.arena.write_audio(slot, audio)
        self.worker.handle(msg.Step(session, epoch, chunk, base, "idle", deadline, slot))
        return slot

    def take(self) -> int:
        slot = self.arena.take()
        assert slot is not None
        return slot

    def answers(self, kind: type[msg.Reply]) -> list[msg.Reply]:
        return [reply for reply in self.replies if isinstance(reply, kind)]

    def run(self) -> None:
        while self.worker.has_work:
            self.worker.run_batch()

    def num_chunks_shown(self, slot: int) -> int:
        return int(self.arena.read_frames(slot)[0, 130, 2])


@pytest.fixture(name="bench")
def worker_bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.worker.close()
    bench.arena.close()


def test_frames_follow_the_audio(bench: Bench) -> None:
    """The frames of a step land in its slot, made from the audio that was in it."""
    bench.open("a")
    quiet = bench.step("a", 0, msg.INITIAL)
    bench.run()
    loud = bench.step("a", 1, 0, audio=LOUD)
    bench.run()
    assert bench.arena.read_frames(quiet)[0, 0, 0] == QUIET_LUMA
    assert bench.arena.read_frames(loud)[3, 0, 0] == QUIET_LUMA + 100
    assert bench.num_chunks_shown(loud) == 1


def test_rewind_is_a_step_with_an_older_base(bench: Bench) -> None:
    """A step that names an older chunk goes on from the state after that chunk."""
    bench.open("a")
    for chunk in range(4):
        bench.step("a", chunk, chunk - 1)
        bench.run()
    slot = bench.step("a", 2, 1, epoch=1)
    bench.run()
    assert bench.num_chunks_shown(slot) == 2


def test_only_the_last_states_are_kept(bench: Bench) -> None:
    """A base that is too old is an answered failure."""
    bench.open("a")
    for chunk in range(STATES_KEPT + 1):
        slot = bench.step("a", chunk, chunk - 1)
        bench.run()
        bench.arena.give_back(slot)
    bench.step("a", 1, 0)
    bench.run()
    assert len(bench.answers(msg.Failed)) == 1


def test_a_closed_pipe_ends_the_worker_and_fails_no_step(bench: Bench) -> None:
    """An answer that cannot be sent is the parent's end, not a failure of the step."""

    def broken(reply: msg.Reply) -> None:
        raise BrokenPipeError

    worker = Worker(bench.pipeline, 4, broken)
    worker.handle(msg.Attach(bench.arena.name, 8))
    worker._sessions = bench.worker._sessions
    bench.open("a")
    slot = bench.take()
    bench.arena.write_audio(slot, SILENCE)
    worker.handle(msg.Step("a", 0, 0, msg.INITIAL, "idle", 0.0, slot))
    with pytest.raises(BrokenPipeError):
        worker.run_batch()
    worker.close()


def test_steps_of_several_sessions_share_a_batch_in_deadline_order(bench: Bench) -> None:
    """One step of each session runs together; the second one of a session comes in the next batch."""
    for name in "abc":
        bench.open(name)
    bench.step("a", 0, msg.INITIAL, deadline=3.0)
    bench.step("b", 0, msg.INITIAL, deadline=1.0)
    bench.step("a", 0, msg.INITIAL, deadline=4.0)
    bench.step("c", 0, msg.INITIAL, deadline=2.0)
    bench.run()
    assert bench.pipeline.batches == [3, 1]
    frames = bench.answers(msg.Frames)
    assert [reply.session for reply in frames if isinstance(reply, msg.Frames)] == ["b", "c", "a", "a"]


def test_interrupt_drops_what_has_not_started(bench: Bench) -> None:
    """Waiting steps of an older epoch are answered as dropped, at once; other sessions' steps run."""
    bench.open("a")
    bench.open("b")
    bench.step("a", 0, msg.INITIAL)
    bench.step("b", 0, msg.INITIAL)
    bench.worker.handle(msg.Interrupt("a", 1))
    assert [reply.session for reply in bench.replies if isinstance(reply, msg.Dropped)] == ["a"]
    bench.run()
    assert [reply.session for reply in bench.replies if isinstance(reply, msg.Frames)] == ["b"]


def test_late_step_of_an_old_epoch_is_dropped(bench: Bench) -> None:
    """A step that was sent before an interrupt but arrives after it does not run."""
    bench.open("a")
    bench.worker.handle(msg.Interrupt("a", 2))
    bench.step("a", 0, msg.INITIAL, epoch=1)
    bench.run()
    assert bench.pipeline.batches == []
    assert len(bench.answers(msg.Dropped)) == 1


def test_every_slot_is_answered_once(bench: Bench) -> None:
    """Opened, failed, dropped, run: whatever happens to a request, its slot comes back exactly once."""
    bench.open("a")
    bench.open("bad", np.full_like(PORTRAIT, BAD_PORTRAIT))
    bench.step("a", 0, msg.INITIAL)
    bench.step("unknown", 0, msg.INITIAL)
    bench.step("a", 7, 5)
    bench.worker.handle(msg.Close("a"))
    bench.step("a", 1, 0)
    bench.run()
    slots = sorted(reply.slot for reply in bench.replies if not isinstance(reply, (msg.Loaded, msg.Warmed, msg.LoadFailed)))
    assert slots == sorted(set(range(8)) - set(bench.arena._free))
    assert len(slots) == 6


def test_one_failing_session_does_not_take_the_batch_with_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a batch raises, its sessions run one by one and only the culprit fails."""
    step = bench.pipeline.step

    def poisoned(states, audio, activity):  # type: ignore[no-untyped-def]
        if any(state.seed == 66 for state in states):
            raise ValueError("poison")
        return step(states, audio, activity)

    monkeypatch.setattr(bench.pipeline, "step", poisoned)
    bench.open("a")
    bench.open("evil", seed=66)
    bench.step("a", 0, msg.INITIAL)
    bench.step("evil", 0, msg.INITIAL)
    bench.run()
    assert [reply.session for reply in bench.replies if isinstance(reply, msg.Frames)] == ["a"]
    assert [reply.session for reply in bench.replies if isinstance(reply, msg.Failed)] == ["evil"]


def test_warm_up_measures_growing_batches(bench: Bench) -> None:
    """Batch sizes double up to the limit."""
    bench.worker.handle(msg.Warmup(3, 4))
    (warmed,) = bench.answers(msg.Warmed)
    assert isinstance(warmed, msg.Warmed)
    assert list(warmed.step_ms) == [1, 2, 4]


@dataclass
class Listener:
    """Collects what the client reports; `wait` returns when a report of that name is there."""

    reports: list[tuple[str, object]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    frames: list[np.ndarray] = field(default_factory=list)

    def _add(self, name: str, value: object = None) -> None:
        self.reports.append((name, value))
        self.changed.set()

    def worker_ready(self) -> None:
        self._add("ready")

    def worker_lost(self, reason: str) -> None:
        self._add("lost", reason)

    def worker_unusable(self, reason: str) -> None:
        self._add("unusable", reason)

    def session_opened(self, session: str) -> None:
        self._add("opened", session)

    def frames_ready(self, reply: msg.Frames, frames: np.ndarray) -> None:
        self.frames.append(frames)
        self._add("frames", reply)

    def step_dropped(self, reply: msg.Dropped) -> None:
        self._add("dropped", reply)

    def request_failed(self, reply: msg.Failed) -> None:
        self._add("failed", reply)

    async def wait(self, name: str, timeout_s: float = 10.0) -> object:
        async with asyncio.timeout(timeout_s):
            while True:
                for index, (known, value) in enumerate(self.reports):
                    if known == name:
                        del self.reports[index]
                        return value
                self.changed.clear()
                await self.changed.wait()


Start = Callable[..., WorkerClient]


@pytest_asyncio.fixture
async def start_client() -> AsyncIterator[Start]:
    clients: list[WorkerClient] = []

    def start(listener: Listener, **options: object) -> WorkerClient:
        client = WorkerClient(WorkerConfig(pipeline_factory=FACTORY, num_slots=4, **options), listener)  # type: ignore[arg-type]
        clients.append(client)
        client.start()
        return client

    yield start
    for client in clients:
        await client.stop()


async def test_client_runs_steps_and_frees_slots(start_client: Start) -> None:
    """A real process loads, warms up, opens a session and returns frames; all slots are free afterwards."""
    listener = Listener()
    client = start_client(listener)
    assert not client.open("a", PORTRAIT, 3), "nothing is accepted before the warm-up"
    await listener.wait("ready")
    assert client.step_times.p50_ms >= 10
    assert client.open("a", PORTRAIT, 3)
    await listener.wait("opened")
    assert client.step("a", 0, 0, msg.INITIAL, LOUD, "speaking", 0.0)
    await listener.wait("frames")
    assert listener.frames[0].shape == (4, 384, 256)
    assert listener.frames[0][0, 130, 10] == 3
    assert client.num_free_slots == 4


async def test_client_starts_a_new_worker_when_one_dies(start_client: Start) -> None:
    """A killed worker is reported as lost, its slots are free, and a new process gets ready."""
    listener = Listener()
    client = start_client(listener)
    await listener.wait("ready")
    client.open("a", PORTRAIT, 0)
    await listener.wait("opened")
    client.step("a", 0, 0, msg.INITIAL, SILENCE, "idle", 0.0)
    assert client.pid is not None
    first = client.pid
    os.kill(first, signal.SIGKILL)
    assert "exit code -9" in str(await listener.wait("lost"))
    await listener.wait("ready")
    assert client.pid != first
    assert client.num_restarts == 1
    assert client.num_free_slots == 4


async def test_client_kills_a_worker_that_hangs(start_client: Start) -> None:
    """A worker that does not answer within the limit is replaced."""
    listener = Listener()
    client = start_client(listener, answer_timeout_s=0.2)
    await listener.wait("ready")
    assert client.pid is not None
    os.kill(client.pid, signal.SIGSTOP)
    client.open("a", PORTRAIT, 0)
    await listener.wait("lost")
    await listener.wait("ready")


async def test_client_reports_a_model_that_cannot_be_loaded(start_client: Start) -> None:
    """The reason reaches the parent and the process is not started again and again."""
    listener = Listener()
    client = start_client(listener, weights="missing")
    assert "no weights" in str(await listener.wait("unusable"))
    await asyncio.sleep(0.05)
    assert client.num_restarts == 0


async def test_bench_measures_through_the_real_process() -> None:
    """The numbers of `livemimic bench` for a pipeline whose speed is known; the table names them."""
    result = await bench.measure(WorkerConfig(pipeline_factory=FACTORY), seconds=0.2)
    assert 10 <= result["step_ms"]["p50"] <= result["round_trip_ms"]["p50"] < 60
    assert 0.06 < result["real_time_factor"] < 0.4
    assert result["sessions"] > 8
    assert "sessions that fit" in bench.table(result)


async def test_worker_survives_ctrl_c_and_ends_with_the_pipe(start_client: Start) -> None:
    """SIGINT of a terminal reaches the whole group: the worker leaves the decision to its parent."""
    listener = Listener()
    client = start_client(listener)
    await listener.wait("ready")
    assert client.pid is not None
    os.kill(client.pid, signal.SIGINT)
    client.open("a", PORTRAIT, 0)
    await listener.wait("opened")
    async with asyncio.timeout(1.0):
        await client.stop()
