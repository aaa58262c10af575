"""`make bench`: every benchmark that the README names, one after the other."""

from benchmarks import body_scan, path, picker_decision, routing

for benchmark in (path, picker_decision, body_scan, routing):
    print(f"\n== {benchmark.__name__.removeprefix('benchmarks.')}", flush=True)
    benchmark.main()
