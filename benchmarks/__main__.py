"""`make bench`: every benchmark, one after the other; each also runs alone as `python -m benchmarks.<name>`."""

import runpy

for name in (
    "path",
    "management_session",
    "management",
    "picker_decision",
    "body_scan",
    "session",
    "preview",
    "routing",
):
    print(f"\n== {name}", flush=True)
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
