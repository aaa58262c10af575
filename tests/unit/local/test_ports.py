import socket
from pathlib import Path

import pytest

from cli.local.model import PlanError
from cli.local.ports import BLOCK, PortAllocator


def test_two_allocators_never_share_a_block(tmp_path: Path) -> None:
    first, second = PortAllocator(tmp_path / "locks"), PortAllocator(tmp_path / "locks")
    assert first.take() // BLOCK != second.take() // BLOCK
    first.close()
    second.close()


def test_ports_in_use_are_passed_over(tmp_path: Path) -> None:
    probe = PortAllocator(tmp_path / "locks")
    with socket.socket() as busy:
        port = _bind_one_of(busy, probe)
        probe.close()
        again = PortAllocator(tmp_path / "locks")
        assert again.take() != port
        again.close()


def _bind_one_of(busy: socket.socket, ports: PortAllocator) -> int:
    """Take ports until one can be bound: other processes use ports of the same range."""
    for _ in range(20):
        port = ports.take()
        try:
            busy.bind(("127.0.0.1", port))
        except OSError:
            continue
        busy.listen()
        return port
    raise AssertionError("none of 20 ports was free")


def test_a_span_is_consecutive_and_not_handed_out_again(tmp_path: Path) -> None:
    ports = PortAllocator(tmp_path / "locks")
    first = ports.take(4)
    assert ports.take() >= first + 4
    with pytest.raises(PlanError):
        ports.take(BLOCK + 1)
    ports.close()
