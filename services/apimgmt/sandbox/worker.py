"""The process in which scripts run: `python -I worker.py`, started by `pool.py`, which kills it when it is late.

Knows nothing but its input: no environment, no files of the service, no network. Each call gets a new context of the
engine (QuickJS-ng), so that nothing that a script leaves behind meets another caller's request.

Protocol, over stdin and stdout: frames of a length (4 bytes, big endian) and that many bytes. The first frame is
`{"source", "memoryBytes", "cpuSeconds"}`; each further one the script's argument, as JSON. Every frame is answered by
one that begins with a letter: `R` and the result as JSON (`null` for undefined), or `E` and the kind of failure.
"""

import json
import resource
import struct
import sys
from typing import Any

import quickjs  # type: ignore[import-untyped]

MAX_STACK = 256 * 1024
"""Stack of a script, bytes."""

MAX_RESULT = 1024 * 1024
"""Longest result, characters of JSON."""

ADDRESS_SPACE = 1024 * 1024 * 1024
"""What the process may map, bytes: the engine's own limit is lower, this one holds where it fails."""

CALL = """
(argument) => {
  const result = check(JSON.parse(argument));
  return result === undefined ? "null" : JSON.stringify(result);
}
"""


class Script:
    """A script and its limits."""

    def __init__(self, source: str, memory_bytes: int, cpu_s: float) -> None:
        self._source, self._memory, self._cpu = source, memory_bytes, cpu_s

    def call(self, argument: str | None) -> bytes:
        """Run `check` on `argument` (JSON), or only see whether there is such a function. Returns a frame."""
        context = quickjs.Context()
        context.set_memory_limit(self._memory)
        context.set_max_stack_size(MAX_STACK)
        context.set_time_limit(self._cpu)
        try:
            context.eval(self._source)
            if argument is None:
                return b"R" if context.eval("typeof check === 'function'") else b"Eit has no function check"
            result = context.eval(CALL)(argument)
        except quickjs.JSException as error:
            return b"E" + _reason(str(error), full=argument is None).encode("utf-8", "replace")
        if not isinstance(result, str):
            return b"Ethe result is no JSON"
        if len(result) > MAX_RESULT:
            return b"Ethe result is too large"
        return b"R" + result.encode("utf-8", "replace")


def _reason(text: str, *, full: bool) -> str:
    """Name a failure: what a script throws may quote the request, so only the engine's own words are repeated."""
    first = text.partition("\n")[0]
    if full:
        return " ".join(text.split())[:300]
    for sign, reason in (("interrupted", "it took too long"), ("out of memory", "it took too much memory")):
        if sign in first:
            return reason
    return "it nests too deeply" if "stack" in first else "it threw an exception"


def _read() -> bytes | None:
    header = sys.stdin.buffer.read(4)
    return sys.stdin.buffer.read(struct.unpack(">I", header)[0]) if len(header) == 4 else None


def _write(frame: bytes) -> None:
    sys.stdout.buffer.write(struct.pack(">I", len(frame)) + frame)
    sys.stdout.buffer.flush()


def main() -> None:
    """Serve until stdin ends."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    first = _read()
    if first is None:
        return
    settings: dict[str, Any] = json.loads(first)
    script = Script(settings["source"], settings["memoryBytes"], settings["cpuSeconds"])
    _write(script.call(None))
    while (argument := _read()) is not None:
        _write(script.call(argument.decode()))


if __name__ == "__main__":
    main()
