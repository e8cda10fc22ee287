import threading

import pytest

from espnet_spire.utils.ahead import one_ahead


def test_order_and_end():
    assert list(one_ahead([])) == []
    assert list(one_ahead(x * x for x in range(5))) == [0, 1, 4, 9, 16]


def test_one_item_is_made_while_another_is_used():
    made = [threading.Event() for _ in range(3)]

    def items():
        for number, event in enumerate(made):
            event.set()
            yield number

    for number in one_ahead(items()):
        assert number == 2 or made[number + 1].wait(10)
        assert number > 0 or not made[2].is_set()  # one ahead, not all


def test_an_error_comes_in_its_turn():
    def items():
        yield 1
        raise ValueError("second")

    seen = []
    with pytest.raises(ValueError, match="second"):
        for item in one_ahead(items()):
            seen.append(item)
    assert seen == [1]
