"""File names of any bytes: shown, cut to fit, numbered."""

import os
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from maskdrop.names import NAME_MAX, fit, numbered, printable

file_names = st.binary(min_size=1, max_size=255).filter(
    lambda b: b"/" not in b and b"\0" not in b and b not in (b".", b"..")  # which no file can have
)


@given(file_names)
def test_any_name_is_shown_on_one_line_of_utf8(raw: bytes) -> None:
    shown = printable(os.fsdecode(raw))
    shown.encode("utf-8")
    assert shown.isprintable()
    assert len(shown.splitlines()) == 1


def test_names_that_need_no_escape_are_shown_as_they_are() -> None:
    assert printable("Ünïcode 🙂 name.jpg") == "Ünïcode 🙂 name.jpg"
    assert printable("two\nlines") == "two\\nlines"
    assert printable(os.fsdecode(b"caf\xe9.jpg")) == "caf\\xe9.jpg"


@given(file_names)
def test_numbered_names_are_distinct_and_fit(raw: bytes) -> None:
    names = list(islice(numbered(os.fsdecode(raw)), 12))
    assert len(set(names)) == 12
    assert all(0 < len(os.fsencode(name)) <= NAME_MAX for name in names)


@given(file_names)
def test_a_short_enough_name_is_its_own_first(raw: bytes) -> None:
    assert next(numbered(os.fsdecode(raw))) == os.fsdecode(raw)


def test_the_number_stands_before_the_ending() -> None:
    assert list(islice(numbered("a.tar.jpg"), 3)) == ["a.tar.jpg", "a.tar~2.jpg", "a.tar~3.jpg"]


@given(st.text("aäあ𝄞", min_size=80, max_size=300), st.text("abc.~", max_size=20))
def test_a_name_is_cut_between_two_characters(stem: str, tail: str) -> None:
    name = fit(stem, tail)
    assert len(name.encode()) <= NAME_MAX  # half a character could not be encoded
    kept = name.removesuffix(tail)
    assert stem.startswith(kept)
    assert kept == stem or len(os.fsencode(kept + stem[len(kept)] + tail)) > NAME_MAX


@given(file_names, st.text("abc.~", max_size=20))
def test_fit_keeps_the_tail_whole(raw: bytes, tail: str) -> None:
    name = fit(os.fsdecode(raw), tail)
    assert name.endswith(tail)
    assert len(os.fsencode(name)) <= NAME_MAX
