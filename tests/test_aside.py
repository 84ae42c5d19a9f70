"""When a file that can't be read or moved is tried again, with a clock passed in."""

from dataclasses import replace

from maskdrop.inbox.aside import MOST_ASIDE_S, Aside
from maskdrop.ticket import Identity

FILE = Identity(1, 2, 3, 4)


def test_each_try_comes_after_twice_as_long_up_to_ten_minutes() -> None:
    aside, now = Aside(30), 0.0
    for waits in (30, 60, 120, 240, 480, MOST_ASIDE_S, MOST_ASIDE_S):
        aside.add("a.jpg", FILE, now)
        assert aside.holds("a.jpg", FILE, now + waits - 1)
        assert not aside.holds("a.jpg", FILE, now + waits)
        now += waits + 1


def test_a_rescan_that_comes_more_seldom_than_that_is_what_is_waited_for() -> None:
    aside = Aside(7200)
    for now in (0.0, 7200.0):
        aside.add("a.jpg", FILE, now)
        assert aside.holds("a.jpg", FILE, now + 7199)
        assert not aside.holds("a.jpg", FILE, now + 7200)


def test_a_changed_file_is_tried_at_once_and_begins_anew() -> None:
    aside, changed = Aside(30), replace(FILE, mtime_ns=5)
    aside.add("a.jpg", FILE, 0)
    aside.add("a.jpg", FILE, 30)
    assert aside.holds("a.jpg", FILE, 89)
    assert not aside.holds("a.jpg", changed, 31)
    aside.add("a.jpg", changed, 31)
    assert not aside.holds("a.jpg", changed, 61)
    assert not aside.holds("b.jpg", FILE, 31)


def test_what_does_not_come_back_is_forgotten_and_what_may_is_not() -> None:
    aside = Aside(30)
    aside.add("gone.jpg", FILE, 0)
    aside.add("stays.jpg", FILE, 0)
    aside.forget_old(59)
    aside.add("stays.jpg", FILE, 59)
    assert not aside.holds("stays.jpg", FILE, 119)
    assert aside.holds("stays.jpg", FILE, 118)
    aside.forget_old(60)
    aside.add("gone.jpg", FILE, 100)
    assert not aside.holds("gone.jpg", FILE, 130)
