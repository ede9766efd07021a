"""Scheduler, chunk plan, admission and schedule, with times passed in."""

from __future__ import annotations

import pytest

from model.geometry import Geometry
from streamer.admission import Admission, StepTimes, percentile
from streamer.chunk_plan import ChunkPlan
from streamer.errors import SessionFull
from streamer.schedule import Schedule
from streamer.scheduler import ChunkRequest, Scheduler
from streamer.worker_messages import INITIAL


def request(session: str, chunk: int = 0, *, epoch: int = 0, ready: float = 0.0, deadline: float = 1.0) -> ChunkRequest:
    return ChunkRequest(session, epoch, chunk, ready, deadline, deadline + 0.16)


def test_earliest_deadline_first() -> None:
    """Ready chunks are submitted in the order of their deadlines, as many as there is room for."""
    scheduler = Scheduler()
    for name, deadline in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        scheduler.offer(request(name, deadline=deadline))
    assert [chosen.session for chosen in scheduler.take(0.0, 0.05, room=2).submit] == ["b", "c"]
    assert scheduler.num_waiting == 1


def test_one_chunk_of_a_session_at_the_worker() -> None:
    """The next chunk of a session waits until the worker has answered the one before."""
    scheduler = Scheduler()
    scheduler.offer(request("a", 0))
    assert len(scheduler.take(0.0, 0.05, 9).submit) == 1
    scheduler.offer(request("a", 1))
    assert scheduler.take(0.0, 0.05, 9).submit == []
    assert scheduler.next_wakeup_s() is None
    scheduler.finished("a")
    assert [chosen.chunk_index for chosen in scheduler.take(0.0, 0.05, 9).submit] == [1]


def test_backlog_is_one() -> None:
    """A newer chunk takes the place of the waiting one, which is handed back."""
    scheduler = Scheduler()
    scheduler.offer(request("a", 0))
    replaced = scheduler.offer(request("a", 1))
    assert replaced is not None and replaced.chunk_index == 0
    assert scheduler.num_waiting == 1


def test_not_before_it_is_ready_unless_expedited() -> None:
    """A chunk waits for its audio; complete audio lets it go at once."""
    scheduler = Scheduler()
    scheduler.offer(request("a", ready=0.5))
    assert scheduler.take(0.4, 0.05, 9).submit == []
    assert scheduler.next_wakeup_s() == 0.5
    scheduler.expedite("a", 0, 0.4)
    assert len(scheduler.take(0.4, 0.05, 9).submit) == 1


def test_expired_chunks_are_dropped() -> None:
    """A chunk that would be ready only after its last frame is over is given up."""
    scheduler = Scheduler()
    scheduler.offer(request("a", deadline=1.0))
    assert scheduler.take(1.1, 0.05, 9).expired == []
    scheduler.finished("a")
    scheduler.offer(request("a", deadline=1.0))
    assert len(scheduler.take(1.12, 0.05, 9).expired) == 1
    assert scheduler.num_waiting == 0


def test_interrupt_drops_older_epochs_only() -> None:
    """A waiting chunk survives the interrupt that it belongs to."""
    scheduler = Scheduler()
    scheduler.offer(request("a", epoch=0))
    assert scheduler.interrupt("a", 1) is not None
    scheduler.offer(request("a", epoch=1))
    assert scheduler.interrupt("a", 1) is None
    assert scheduler.num_waiting == 1


def test_plan_goes_on_from_the_newest_generated_chunk() -> None:
    """A skipped chunk leaves no state; the next one goes on from the one before it."""
    plan = ChunkPlan()
    assert plan.base_for(0) == INITIAL
    plan.taken(0)
    assert plan.arrived(0, 0)
    plan.taken(1)  # given up
    assert plan.next_chunk == 2
    assert plan.base_for(2) == 0


def test_plan_rewinds_to_the_chunk_on_screen() -> None:
    """After an interrupt the chunk after the one on screen is made anew, and old frames are refused."""
    plan = ChunkPlan()
    for chunk in range(5):
        plan.taken(chunk)
        plan.arrived(0, chunk)
    assert plan.interrupt(2) == 1
    assert plan.next_chunk == 3
    assert plan.base_for(3) == 2
    assert not plan.arrived(0, 5)
    assert plan.arrived(1, 3)


def test_schedule_of_a_mirror_session() -> None:
    """Playout is chunk, look-ahead, slack and allowance behind the microphone; unit 0 is sent at the start."""
    schedule = Schedule.starting_at(100.0, Geometry(), live_input=True, slack_s=0.04, allowance_s=0.1)
    assert schedule.delay_s == pytest.approx(0.38)
    assert schedule.unit_s(0) == pytest.approx(100.0)
    assert schedule.unit_s(25) == pytest.approx(101.0)
    assert schedule.deadline_s(1) - schedule.ready_s(1) == pytest.approx(0.1)
    assert schedule.samples_needed(0) == 240 * 48
    assert schedule.unit_at(100.081) == 2


def test_schedule_of_an_agent_session_waits_for_the_model_only() -> None:
    """Pushed speech is known in advance: the delay is the compute allowance alone."""
    schedule = Schedule.starting_at(100.0, Geometry(), live_input=False, slack_s=0.04, allowance_s=0.1)
    assert schedule.delay_s == pytest.approx(0.1)
    assert schedule.deadline_s(3) - schedule.ready_s(3) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("measured", "capacity"),
    [
        pytest.param({1: [60.0] * 5, 2: [120.0] * 5}, 2, id="two on a processor"),
        pytest.param({1: [60.0] * 5, 2: [170.0] * 5}, 1, id="second would be late"),
        pytest.param({1: [500.0] * 5}, 1, id="slow machines serve one"),
        pytest.param({1: [20.0] * 3, 2: [22.0] * 3, 4: [26.0] * 3, 8: [34.0] * 3}, 59, id="batching accelerator"),
    ],
)
def test_admission_follows_the_measured_step_time(measured: dict[int, list[float]], capacity: int) -> None:
    """As many sessions as one batched step of all of them stays under 85 % of real time."""
    times = StepTimes()
    times.load(measured)
    admission = Admission(times, 160, None)
    assert admission.capacity() == capacity
    admission.check(capacity - 1)
    with pytest.raises(SessionFull) as refused:
        admission.check(capacity)
    assert refused.value.retry_after_s > 0


def test_admission_respects_the_users_limit() -> None:
    """--max-sessions only ever lowers what the speed allows."""
    times = StepTimes()
    times.load({1: [1.0], 2: [1.0]})
    assert Admission(times, 160, 3).capacity() == 3


def test_percentile_is_nearest_rank() -> None:
    """Empty input gives zero, one value gives itself."""
    assert percentile([], 0.95) == 0.0
    assert percentile([7.0], 0.95) == 7.0
    assert percentile(range(101), 0.95) == 95
