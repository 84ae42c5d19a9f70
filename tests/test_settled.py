"""Settled files, oldest first."""

from hypothesis import given
from hypothesis import strategies as st

from maskdrop.inbox.settle import Watched
from maskdrop.inbox.settled import Settled
from maskdrop.ticket import Identity

PATHS, TIMES = st.sampled_from("abcde"), st.integers(0, 5)


def watched(path: str, second: int) -> Watched:
    return Watched(path, Identity(1, ord(path), 9, second), 0.0, 0.0, False)


@given(st.lists(st.one_of(st.tuples(PATHS, TIMES), TIMES, PATHS, st.none())))
def test_the_oldest_is_taken_of_those_that_are_there(steps: list[tuple[str, int] | int | str | None]) -> None:
    """Compared with a plain dictionary: added or seen anew, forgotten from an age on, removed, taken."""
    settled, plain = Settled(), dict[str, Watched]()
    for step in steps:
        if isinstance(step, tuple):
            settled.add(watched(*step))
            plain[step[0]] = watched(*step)
        elif isinstance(step, int):
            settled.forget_newer((step, 0))
            plain = {path: w for path, w in plain.items() if w.identity.age <= (step, 0)}
        elif step is None:
            oldest = min(plain.values(), key=lambda w: w.identity.age, default=None)
            assert settled.pop() == (oldest and plain.pop(oldest.path))
        elif step in plain:
            settled.forget(step)
            del plain[step]
        assert len(settled) == len(plain)
        assert all(settled.get(path) == plain.get(path) for path in "abcde")


def test_a_file_that_is_touched_again_and_again_takes_no_more_memory() -> None:
    """While nothing is taken, for want of room on a disk, say."""
    settled = Settled()
    settled.add(watched("b", 10_000))
    for second in range(1000):
        settled.add(watched("a", second))
        settled.forget("a")
        settled.add(watched("a", second))
        assert len(settled._oldest_first) <= 100
    assert settled.pop() == watched("a", 999)
    assert settled.pop() == watched("b", 10_000)
    assert settled.pop() is None
