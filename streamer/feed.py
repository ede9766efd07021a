"""From a session's input sound to its media units: time line, turns, chunks at the worker, playout. Knows no peer.

Runs on the event loop. Implements `ChunkConsumer`. Nothing is generated but the idle first chunk until `begin` gives
the schedule; from then on one chunk is at the worker and the next one waits in the scheduler.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from model.geometry import FRAME_SAMPLES_48K, MEDIA_RATE
from streamer import worker_messages as msg
from streamer.activity import Activity, AvatarActivity, Mode
from streamer.chunk_plan import ChunkPlan
from streamer.dispatch import Dispatcher, StepInput
from streamer.errors import BadInput, LivemimicError, WorkerLost
from streamer.mic_clock import MicClock
from streamer.pcm_input import PcmInput
from streamer.playout import Playout
from streamer.schedule import Schedule
from streamer.scheduler import ChunkRequest
from streamer.session_stats import SessionStats
from streamer.timeline import AudioTimeline
from streamer.turns import TurnDetector

MAX_FAILURES = 3  # failed steps in a row before the session is given up
MAX_QUEUED_SAMPLES = 660 * MEDIA_RATE  # one file of the longest kind and some more


class Feed:
    """One session's generator side. `on_error(error, fatal)` reports what the client should know."""

    def __init__(
        self,
        *,
        session_id: str,
        mode: Mode,
        portrait: np.ndarray,
        seed: int,
        dispatcher: Dispatcher,
        stats: SessionStats,
        on_error: Callable[[LivemimicError, bool], None],
    ) -> None:
        self.session_id = session_id
        self.portrait = portrait
        self.seed = seed
        self.geometry = dispatcher.client.geometry
        self.timeline = AudioTimeline()
        self.playout = Playout(self.timeline, self.geometry.chunk_frames)
        self.pcm = PcmInput()
        self.prepared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.first_frames = asyncio.Event()
        self._mode: Mode = mode
        self._dispatcher = dispatcher
        self._stats = stats
        self._on_error = on_error
        self._plan = ChunkPlan()
        self._activity = AvatarActivity(mode, TurnDetector(), TurnDetector())
        self._mic_clock = MicClock()
        self._schedule: Schedule | None = None
        self._activities: dict[int, Activity] = {}
        self._submitted_s: dict[int, float] = {}
        self._speech_end = 0  # sample after the last pushed one
        self._num_failures = 0

    @property
    def epoch(self) -> int:
        return self._plan.epoch

    def _start_sample(self, chunk_index: int) -> int:
        return chunk_index * self.geometry.chunk_frames * FRAME_SAMPLES_48K

    @property
    def has_queued_speech(self) -> bool:
        """Pushed speech that has not been generated yet."""
        return self._speech_end > self._start_sample(self._plan.next_chunk)

    def begin(self, schedule: Schedule) -> None:
        """The peer is there: generate in real time from now on."""
        self._schedule = schedule
        self._offer_next(schedule)

    def activity_at(self, chunk_index: int) -> Activity | None:
        """What the avatar does in the chunk on screen; forgets the ones before."""
        for old in [index for index in self._activities if index < chunk_index]:
            del self._activities[old]
        return self._activities.get(chunk_index)

    def interrupt(self, played_frame: int) -> int:
        """Silence after the played frame, frames anew after the chunk on screen. Returns the new epoch."""
        silent_from = (played_frame + 1) * FRAME_SAMPLES_48K
        self.timeline.clear_after(silent_from)
        self._speech_end = min(self._speech_end, silent_from)
        self.pcm.interrupt()
        self._activity.interrupted()
        if self._schedule is not None:
            chunk = max(0, played_frame) // self.geometry.chunk_frames
            epoch = self._plan.interrupt(chunk)
            self.playout.interrupt(epoch, chunk)
            self._dispatcher.interrupt(self.session_id, epoch)
            self._offer_next(self._schedule)
        return self.epoch

    def push_speech(self, samples: np.ndarray) -> None:
        """Queues int16 at 48 kHz: after what is queued, else from the next chunk that has not been generated."""
        if not len(samples):
            return
        next_sample = self._start_sample(self._plan.next_chunk)
        start = max(self._speech_end, next_sample)
        if start + len(samples) - next_sample > MAX_QUEUED_SAMPLES:
            raise BadInput("speech_queue_full", "more than 11 minutes of speech are queued", "push it later, or interrupt")
        self.timeline.write(start, samples)
        self._speech_end = start + len(samples)

    def hear(self, mic_index: int, samples: np.ndarray, shown: Activity) -> bool:
        """A microphone packet, int16 at 48 kHz. True when the user has just barged in."""
        if self._schedule is None:
            return False
        if self._mode == "agent":
            # A mean of three is filter enough for a voice detector, and costs 10 us a packet.
            user_16k = samples[: len(samples) // 3 * 3].reshape(-1, 3).mean(axis=1).astype(np.int16)
            return self._activity.hear_user(user_16k, avatar_speaking=shown == "speaking" or self.has_queued_speech)
        now_s = time.monotonic()
        arrival = self._schedule.sample_at(now_s)
        start = self._mic_clock.place(mic_index, len(samples), arrival, may_move=shown == "idle")
        if start < self._speech_end:
            return False  # pushed speech has the floor
        self.timeline.write(start, samples)
        waiting = self._plan.next_chunk
        if self.timeline.complete_until() >= self._schedule.samples_needed(waiting):
            self._dispatcher.expedite(self.session_id, waiting, now_s)
        return False

    def opened(self) -> None:
        self._num_failures = 0
        if not self.prepared.done():
            self.prepared.set_result(None)
        if self._schedule is None and not self.first_frames.is_set():
            now_s = time.monotonic()
            self._dispatcher.offer(ChunkRequest(self.session_id, self.epoch, 0, now_s, now_s, float("inf")))

    def step_input(self, request: ChunkRequest) -> StepInput:
        index = request.chunk_index
        if self._schedule is not None:
            self.timeline.conceal_until(self._schedule.samples_needed(index))
        start_16k = index * self.geometry.chunk_samples_16k
        audio = self.timeline.read_model(start_16k, start_16k + self.geometry.step_samples_16k)
        has_speech = self._start_sample(index) < self._speech_end
        activity = self._activity.of_chunk(audio[: self.geometry.chunk_samples_16k], has_pushed_speech=has_speech)
        base = self._plan.base_for(index)
        self._plan.taken(index)
        self._activities[index] = activity
        self._submitted_s[index] = time.monotonic()
        if self._schedule is not None:
            self._offer_next(self._schedule)
        return StepInput(base, audio, activity)

    def chunk_expired(self, request: ChunkRequest) -> None:
        self._plan.taken(request.chunk_index)
        if self._schedule is not None:
            # What is on screen now would be over before it is ready, so go on with the chunk after it.
            on_screen = self._schedule.unit_at(time.monotonic()) // self.geometry.chunk_frames
            self._plan.taken(on_screen)
            self._offer_next(self._schedule)

    def chunk_arrived(self, reply: msg.Frames, frames: np.ndarray) -> None:
        submitted_s = self._submitted_s.pop(reply.chunk_index, None)
        if not self._plan.arrived(reply.epoch, reply.chunk_index):
            return
        self._num_failures = 0
        if submitted_s is not None:
            self._stats.chunk((time.monotonic() - submitted_s) * 1000, reply.step_ms)
        self.playout.put_frames(reply.chunk_index, reply.epoch, frames)
        self.first_frames.set()

    def chunk_failed(self, error: str) -> None:
        self._num_failures += 1
        if not self.prepared.done():
            self.prepared.set_exception(BadInput("portrait_refused", f"the model refused the portrait: {error}", "use another portrait"))
            return
        fatal = self._num_failures >= MAX_FAILURES
        self._on_error(WorkerLost("step_failed", f"the model failed: {error}", "the avatar starts over from its portrait"), fatal)
        if not fatal:
            self._plan.restart()
            self._dispatcher.reopen(self.session_id)

    def worker_lost(self, reason: str) -> None:
        self._submitted_s.clear()
        self._plan.restart()
        self._on_error(WorkerLost("worker_lost", reason, "a new worker starts; the avatar stands still meanwhile"), False)

    def close(self) -> None:
        self.prepared.cancel()
        self._dispatcher.remove(self.session_id)

    def _offer_next(self, schedule: Schedule) -> None:
        index = self._plan.next_chunk
        times = schedule.ready_s(index), schedule.deadline_s(index), schedule.deadline_s(index + 1)
        self._dispatcher.offer(ChunkRequest(self.session_id, self.epoch, index, *times))
