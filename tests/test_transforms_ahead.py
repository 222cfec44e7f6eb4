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
