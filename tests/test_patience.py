"""Who is late, and how long a successor waits: laws over passed-in times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdrop.death import Death, Ending
from maskdrop.supervisor.child import ChildState
from maskdrop.supervisor.crew import FIRST_WAIT_S, LONGEST_WAIT_S, wait_before_start
from maskdrop.supervisor.patience import OVERSLEPT_S, LostTime, Patience

PATIENCE = Patience(stage_timeout_s=20, start_timeout_s=300)


@pytest.mark.parametrize(
    ("state", "busy", "deadline"),
    [
        (ChildState.STARTING, False, 1300),
        (ChildState.STARTING, True, 1300),
        (ChildState.READY, False, None),
        (ChildState.READY, True, 1020),
    ],
)
def test_only_what_starts_or_holds_a_picture_can_be_late(
    state: ChildState, busy: bool, deadline: float | None
) -> None:
    assert PATIENCE.deadline(state, busy, 1000) == deadline


def test_the_verdict_names_the_time_and_the_key() -> None:
    assert PATIENCE.verdict(ChildState.READY) == "nothing heard for 20 s (workers.stage_timeout_s)"
    assert PATIENCE.verdict(ChildState.STARTING) == "not ready after 300 s (workers.start_timeout_s)"
    death = Death(Ending.HUNG, PATIENCE.verdict(ChildState.READY))
    assert str(death) == "was hung and killed: nothing heard for 20 s (workers.stage_timeout_s)"


def test_a_supervisor_that_was_stopped_itself_knows_it() -> None:
    lost = LostTime()
    assert lost.of(worked=0.0, wanted=3.0, waited=3.0 + OVERSLEPT_S) == 0
    assert lost.of(worked=0.0, wanted=3.0, waited=5.0) == 2
    assert lost.of(worked=0.0, wanted=3.0, waited=0.0) == 0
    assert lost.of(worked=2.0, wanted=3.0, waited=3.0) == 2
    assert lost.of(worked=0.1, wanted=3.0, waited=3.0) == 0
    assert lost.of(worked=2.0, wanted=3.0, waited=5.0) == pytest.approx(3.9)


def test_a_supervisor_that_is_always_slow_does_not_forgive_for_ever() -> None:
    lost = LostTime()
    assert [lost.of(worked=2.0, wanted=0.0, waited=0.0) for _ in range(4)] == [2, 0, 0, 0]
    assert lost.of(worked=2.0, wanted=0.0, waited=5.0) == 5
    assert lost.of(worked=60.0, wanted=0.0, waited=0.0) == 58  # it was stopped, and no slower than before


def test_back_off_doubles_up_to_its_cap() -> None:
    waits = [wait_before_start(failed) for failed in range(10)]
    assert waits == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]


@given(st.integers(1, 10**9))
def test_back_off_keeps_within_its_bounds_and_never_shrinks(failed: int) -> None:
    assert FIRST_WAIT_S <= wait_before_start(failed) <= wait_before_start(failed + 1) <= LONGEST_WAIT_S
