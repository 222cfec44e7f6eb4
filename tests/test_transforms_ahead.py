import threading
import time

import pytest

from transforms.ahead import Ahead, single


def test_values_leave_in_order_although_later_tasks_end_first():
    ahead = Ahead(
        lambda n: [lambda: time.sleep(0.02 * (3 - n)), lambda: n],
        lambda n, results: (n, results[1]),
        threads=4,
        depth=3,
    )
    out = [value for n in range(3) for value in ahead.put(n)] + list(ahead.drain())
    ahead.close()
    assert out == [(0, 0), (1, 1), (2, 2)]


def test_never_more_values_in_hand_than_the_depth():
    in_hand, most = set(), []

    def start(n):
        in_hand.add(n)
        most.append(len(in_hand))
        return [lambda: n]

    ahead = Ahead(start, lambda n, _: n, threads=2, depth=2)
    for n in range(20):
        for left in ahead.put(n):
            in_hand.discard(left)
    in_hand.difference_update(ahead.drain())
    assert max(most) == 3
    assert not in_hand


def test_what_is_ready_leaves_in_order_and_nothing_is_waited_for():
    gates = [threading.Event() for _ in range(3)]
    ahead = Ahead(lambda n: [gates[n].wait], lambda n, _: n, threads=3, depth=3)
    assert [left for n in range(3) for left in ahead.put(n)] == []
    gates[1].set()
    assert list(ahead.ready()) == []
    gates[0].set()
    end = time.monotonic() + 5
    out = []
    while len(out) < 2 and time.monotonic() < end:
        out += ahead.ready()
    assert out == [0, 1]
    gates[2].set()
    assert list(ahead.drain()) == [2]
    ahead.close()


def test_an_error_of_a_task_comes_out_where_its_value_would():
    def work(n):
        if n == 1:
            raise OSError("disk full")
        return n

    ahead = single(work, depth=5)
    for n in range(3):
        assert list(ahead.put(n)) == []
    leaving = ahead.drain()
    assert next(leaving) == 0
    with pytest.raises(OSError, match="disk full"):
        next(leaving)
    ahead.close()


def test_close_drops_what_waits():
    gate, ran = threading.Event(), []
    ahead = single(lambda n: (gate.wait(5), ran.append(n)), depth=10)
    for n in range(5):
        list(ahead.put(n))
    gate.set()
    ahead.close()
    assert len(ran) <= 5
    assert list(ahead.drain()) == []
