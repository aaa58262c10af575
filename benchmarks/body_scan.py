"""What reading `model` from a body costs: `python -m benchmarks.body_scan`. Best of several runs, one core."""

import time
from collections.abc import Callable

import orjson

from benchmarks.table import print_table
from services.bodyrouter.scan import Refused, read_model

MIB = 1024 * 1024


def chat(size: int) -> bytes:
    """Return a chat request of about `size` bytes, in messages of about 1 KB with brackets and line ends."""
    turns = max(1, size // 1024)
    content = "Explain [this] {code}: x = a[i];\n" * max(1, (size // turns - 40) // 34)
    messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i in range(turns)]
    return orjson.dumps({"model": "gemma-3-12b", "stream": True, "messages": messages})


def bodies() -> dict[str, bytes]:
    """Return ordinary bodies of three sizes, bodies on the exact path, and hostile ones of 10 MiB."""
    tool = b'{"model":"m","tools":[{"parameters":{"properties":{"model":{"type":"string"}}}}],"prompt":"'
    fill = b"a fine prompt\\n"
    head, big = b'{"model":"m","x":[', 10 * MIB
    return {
        "chat 1 KB": chat(1024),
        "chat 16 KB": chat(16 * 1024),
        "chat 220 KB": chat(220 * 1024),
        "token ids 220 KB": orjson.dumps({"model": "m", "input": [[12345] * 200] * 180}),
        "nested model key 16 KB": tool + fill * (16 * 1024 // len(fill)) + b'"}',
        "nested model key 220 KB": tool + fill * (220 * 1024 // len(fill)) + b'"}',
        "one string 10 MiB": head + b'"' + b"x" * big + b'"]}',
        "escapes 10 MiB": head + b'"' + b'\\"' * (big // 2) + b'"]}',
        "open brackets 10 MiB": b"[" * big,
        "unclosed string, brackets 10 MiB": b"[" * 100_001 + b'"' + b'\\"' * (big // 2),
        "empty objects 10 MiB": head + b"{}," * (big // 3) + b"1]}",
        "99,000 objects, empty strings 10 MiB": head + b"{}," * 99_000 + b'"[",' * (big // 4) + b"1]}",
        "numbers 10 MiB": head + b"0," * (big // 2) + b"1]}",
        "keys, exact path 10 MiB": b'{"model":"m","x":{"model":1},'
        + b"".join(b'"%07d":1,' % i for i in range(big // 12))
        + b'"z":1}',
        "nested model keys 10 MiB": b'{"model":"m","x":{' + b'"model":1,' * (big // 10) + b'"z":1}}',
        "model values 10 MiB": head + b'"model",' * (big // 8) + b"1]}",
    }


def measure(body: bytes) -> tuple[float, float, str]:
    """Return the best times of scan and of orjson alone, in us, and the verdict."""
    verdict = ""

    def scan() -> None:
        nonlocal verdict
        try:
            read_model(body, lambda: orjson.loads(body))
            verdict = "routed"
        except Refused as refused:
            verdict = refused.code

    def parse() -> None:
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError:
            pass

    runs = 3 if len(body) > MIB else 50
    return best(scan, runs), best(parse, runs), verdict


def best(call: Callable[[], None], runs: int) -> float:
    """Return the shortest of `runs` times of `call`, us."""
    shortest = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        call()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest * 1e6


def main() -> None:
    """Print the table."""
    rows = []
    for name, body in bodies().items():
        scan, parse, verdict = measure(body)
        rows.append([name, str(len(body)), f"{scan:.1f}", f"{parse:.1f}", verdict])
    print_table("Reading `model` from a body", ["body", "bytes", "scan us", "orjson us", "verdict"], rows)


if __name__ == "__main__":
    main()
