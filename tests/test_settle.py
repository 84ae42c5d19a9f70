"""The settle logic, with a clock passed in."""

from hypothesis import given
from hypothesis import strategies as st

from maskdrop.inbox.settle import LEAST_WAIT_S, SettleTracker
from maskdrop.ticket import Identity


def state(size: int, mtime: int = 0) -> Identity:
    return Identity(1, 1, size, mtime)


def settled(tracker: SettleTracker, now: float) -> list[str]:
    return [watched.path for watched in tracker.settled(now, 1000)]


def test_a_file_settles_when_nothing_changed_for_the_whole_time() -> None:
    tracker = SettleTracker(0.5)
    tracker.observe("a", state(10), 100.0)
    assert settled(tracker, 100.49) == []
    assert settled(tracker, 100.5) == ["a"]


def test_growth_and_touch_start_the_wait_anew() -> None:
    tracker = SettleTracker(0.5)
    tracker.observe("a", state(10), 100.0)
    tracker.observe("a", state(11), 100.4)
    assert settled(tracker, 100.8) == []
    tracker.observe("a", state(11, mtime=5), 100.8)
    assert settled(tracker, 101.2) == []
    assert settled(tracker, 101.3) == ["a"]


def test_seeing_the_same_state_again_does_not_start_the_wait_anew() -> None:
    tracker = SettleTracker(0.5)
    for moment in range(10):
        tracker.observe("a", state(10), 100.0 + moment / 10)
    assert settled(tracker, 100.5) == ["a"]


def test_a_postponed_file_waits_the_whole_time_again_and_keeps_its_age() -> None:
    tracker = SettleTracker(0.5)
    tracker.observe("a", state(10), 100.0, writing=True)
    tracker.postpone(tracker.settled(100.5, 10)[0], 100.5)
    assert settled(tracker, 100.9) == []
    (watched,) = tracker.settled(101.0, 10)
    assert (watched.since, watched.writing) == (100.0, True)


def test_without_a_settle_time_a_postponed_file_waits_all_the_same() -> None:
    """Or the loop would ask again and again who has it open; where it is told, it goes on at once."""
    tracker = SettleTracker(0)
    tracker.observe("a", state(10), 100.0, writing=True)
    tracker.observe("b", state(10), 100.0, writing=True)
    for watched in tracker.settled(100.0, 10):
        tracker.postpone(watched, 100.0)
    assert (settled(tracker, 100.09), tracker.next_at()) == ([], 100.0 + LEAST_WAIT_S)
    tracker.observe("b", state(10), 100.05, writing=False)
    assert (settled(tracker, 100.05), tracker.next_at()) == (["b"], 100.0)
    tracker.observe("c", state(1), 100.06)
    assert settled(tracker, 100.06) == ["b", "c"]
    assert settled(tracker, 100.1) == ["a", "b", "c"]
    assert (len(tracker), "a" in tracker, "d" in tracker) == (3, True, False)
    tracker.observe("a", state(11), 100.2)
    tracker.forget_newer(state(1).age)
    assert settled(tracker, 100.2) == ["b", "c", "a"]


def test_the_next_moment_is_the_oldest_files() -> None:
    tracker = SettleTracker(0.5)
    assert tracker.next_at() is None
    tracker.observe("a", state(1), 100.0)
    tracker.observe("b", state(1), 100.2)
    assert tracker.next_at() == 100.5
    tracker.observe("a", state(2), 100.3)
    assert tracker.next_at() == 100.7
    tracker.forget("b")
    assert tracker.next_at() == 100.8


def test_an_event_tells_whether_somebody_writes() -> None:
    tracker = SettleTracker(0.1)
    tracker.observe("a", state(1), 100.0, writing=True)
    tracker.observe("a", state(1), 100.1, writing=None)
    assert tracker.settled(100.1, 1)[0].writing
    tracker.observe("a", state(1), 100.1, writing=False)
    assert not tracker.settled(100.1, 1)[0].writing


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(0, 3), st.floats(0, 1, allow_nan=False)), max_size=40
    )
)
def test_it_agrees_with_a_plain_reference(steps: list[tuple[str, int, float]]) -> None:
    tracker = SettleTracker(0.5)
    reference: dict[str, tuple[int, float]] = {}
    now = 0.0
    for path, size, wait in steps:
        now += wait
        tracker.observe(path, state(size), now)
        if path not in reference or reference[path][0] != size:
            reference[path] = (size, now)
        expected = {path for path, (_, since) in reference.items() if now >= since + 0.5}
        assert set(settled(tracker, now)) == expected
