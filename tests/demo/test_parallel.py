"""Jobs on processes come back in order, and a process that dies is said."""

import os
import time

from monai_ext.demo.parallel import in_order


def slow_square(number: int) -> int:
    time.sleep(0.2 if number == 0 else 0)
    return number * number


def die(number: int) -> int:
    os._exit(9)


def test_results_come_in_the_order_of_the_jobs() -> None:
    assert in_order(slow_square, [0, 3, 2, 5], "Squares", workers=0) == [0, 9, 4, 25]
