"""What the contenders of `tools/benchmark.py train` have in common.

A contender is a program. It gets a Workload as JSON in its first argument,
makes a model, takes steps until they take their usual time, describes itself
in a line of JSON, and times a step for each line on its standard input. It
imports nothing of official_lrm, so that peers run in environments of their own.
"""

import json
import sys
import time

from peak_memory import peak_memory

WARM_UP_STEPS = 3
# At a turn. Steps of training follow on one another; on a virtual machine the
# first ones after a pause take 1.4, 1.04 and 1.03 times as long as those that
# come two seconds later, as its memory lay idle.
_WARM_UP_SECONDS = 2


class Workload:
    """Sizes of a model and of its segments; attributes as in the JSON.

    `framework_mib` is what the process held before there was a model.
    """

    def __init__(self, **sizes):
        self.__dict__.update(sizes)


def workload() -> Workload:
    """The one on the command line."""
    return Workload(**json.loads(sys.argv[1]), framework_mib=peak_memory())


def serve(step, sizes, **description):
    """Answers with the seconds of a step and the peak of resident memory.

    Args:
        step: a function without arguments that returns when it is done.
        sizes: the Workload.
        **description: of the contender.
    """
    for _ in range(WARM_UP_STEPS):
        step()
    _say({**description, "framework_mib": sizes.framework_mib})
    for _ in sys.stdin:
        turn = time.perf_counter()
        while (start := time.perf_counter()) < turn + _WARM_UP_SECONDS:
            step()
        step()
        seconds = time.perf_counter() - start
        _say({"seconds": seconds, "peak_mib": peak_memory()})


def _say(values):
    print(json.dumps(values), flush=True)
