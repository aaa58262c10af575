"""Garbage collection of a process that serves: rare, and only of what requests made.

What a request leaves is freed by counting references; the collector only looks for cycles. By default it looks after
every 700 objects more, and from time to time at all objects of the process: modules, models of pydantic, config. That
was 8 % of API management's CPU per request.
"""

import gc

THRESHOLDS = (10_000, 20, 50)
"""Objects more until the youngest are looked at; how many such looks until the next older ones are (`gc`'s docs)."""


def keep_heap() -> None:
    """Never look again at what is there now. Called when everything has started, once per process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
