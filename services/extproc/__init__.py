"""The runtime of all callouts.

gRPC reads its settings from the environment when it is first loaded, so they stand here. Measured with
`python -m benchmarks.path`: together they take about a fifth off a callout's CPU for each request.
"""

import os

# gRPC's older pollers wake one thread for an event where its event engine wakes two (experiments of grpcio 1.85;
# an unknown name is a warning, not an error).
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener,-event_engine_client")
# Worker processes are forked before gRPC is started, so the checks for forks on every call are of no use.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
