"""Frames that are read, worked on and written at the same time: order, bounds, errors and stops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from pipeline.live.overlap import frames_at_once, worked_on, written_behind

WAIT_S = 20.0


def never() -> bool:
    return False


def collect(given: list[int], items: Iterator[int], work: Callable[[int], int]) -> None:
    """Adds the results to a list, up to the first error."""
    with worked_on(items, work, workers=2, in_progress=3, stop=never) as results:
        given.extend(result for _, result in results)


def put_many(first: Callable[[], None], done: list[int]) -> None:
    """Puts a task and then others, counting those that were accepted."""
    with written_behind() as later:
        later(first)
        for number in range(9):
            later(lambda: None)
            done.append(number)


def test_results_come_in_order_although_later_ones_are_done_first() -> None:
    second = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert second.wait(WAIT_S)  # two are worked on at the same time
        if number == 1:
            second.set()
        return number * number

    with worked_on(iter(range(6)), work, workers=2, in_progress=3, stop=never) as results:
        assert list(results) == [(number, number * number) for number in range(6)]


@pytest.mark.parametrize("in_progress", [1, 2, 4])
def test_no_more_is_taken_than_may_be_in_progress(in_progress: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    with worked_on(items(), lambda number: number, workers=2, in_progress=in_progress, stop=never) as results:
        for given, (number, _) in enumerate(results):
            assert number == given
            assert len(taken) <= given + 1 + in_progress
    assert taken == list(range(20))


def test_of_a_camera_the_next_frame_is_taken_when_the_one_before_is_given() -> None:
    working, may_end, taken = threading.Event(), threading.Event(), []

    def items() -> Iterator[int]:
        for number in range(2):
            taken.append(number)
            yield number

    def work(number: int) -> int:
        working.set()
        assert may_end.wait(WAIT_S)
        return number

    with worked_on(items(), work, workers=1, in_progress=1, stop=never) as results:
        assert working.wait(WAIT_S)
        assert taken == [0]
        may_end.set()
        assert [number for number, _ in results] == [0, 1]


def test_what_fails_while_reading_is_raised_after_what_came_before() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    given: list[int] = []
    with pytest.raises(ValueError, match="no more"):
        collect(given, items(), abs)
    assert given == [1]


def test_what_fails_while_working_is_raised_in_its_place() -> None:
    given: list[int] = []
    with pytest.raises(ZeroDivisionError):
        collect(given, iter([2, 1, 0, 5]), lambda number: 10 // number)
    assert given == [5, 10]


def test_a_stop_ends_the_results_even_if_nothing_comes() -> None:
    asked, gone = threading.Event(), threading.Event()

    def silent() -> Iterator[int]:
        yield 0
        assert gone.wait(WAIT_S)  # a camera that sends nothing

    threading.Timer(0.05, asked.set).start()
    with worked_on(silent(), abs, workers=1, in_progress=1, stop=asked.is_set) as results:
        assert [number for number, _ in results] == [0]
        gone.set()


def test_the_threads_end_with_the_block() -> None:
    before = threading.active_count()
    with worked_on(iter(range(99)), abs, workers=3, in_progress=4, stop=never) as results:
        assert next(results) == (0, 0)
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_tasks_are_done_in_order_and_all_of_them_at_the_end() -> None:
    done: list[int] = []
    with written_behind() as later:
        for number in range(9):
            later(lambda number=number: done.append(number))
    assert done == list(range(9))


def test_a_task_that_fails_is_raised_where_tasks_are_put_or_at_the_end() -> None:
    def fail() -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"), written_behind() as later:
        later(fail)
    done: list[int] = []
    with pytest.raises(OSError, match="the disk is full"):
        put_many(fail, done)
    assert len(done) <= 3


@pytest.mark.parametrize(("cores", "paced", "frames"), [(1, False, 1), (2, False, 2), (64, False, 8), (64, True, 1)])
def test_a_file_is_worked_on_by_all_cores_and_a_camera_frame_by_frame(cores: int, paced: bool, frames: int) -> None:
    assert frames_at_once(cores, paced=paced) == frames
