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


@given(st.integers(0, 10**7))
def test_of_however_many_names_the_next_one_is_found_by_few_questions(count: int) -> None:
    asked, tried = [], []

    def is_taken(name: str) -> bool:
        asked.append(name)
        return int(name.removeprefix("a~").removesuffix(".jpg")) <= count

    for name in numbered("a.jpg", is_taken=is_taken):
        tried.append(name)
        if name == "a.jpg" and count >= 1:
            continue
        if name == "a.jpg" or int(name.removeprefix("a~").removesuffix(".jpg")) > count:
            break
    assert tried[-1] == ("a.jpg" if count == 0 else f"a~{count + 1}.jpg")
    assert len(asked) + len(tried) <= 70


@given(st.sets(st.integers(2, 200)))
def test_whatever_names_are_taken_a_free_one_is_found(taken: set[int]) -> None:
    used = {"a.jpg", *(f"a~{number}.jpg" for number in taken)}
    found = next(name for name in numbered("a.jpg", is_taken=used.__contains__) if name not in used)
    assert int(found.removeprefix("a~").removesuffix(".jpg")) <= 201


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
