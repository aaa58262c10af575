"""Which replica has which prompt prefix in its KV cache, as far as this picker's own picks tell.

A prompt is cut into blocks; the hash of a block is chained to the one before, so that equal hashes mean equal prefixes.
The scheme is upstream's (xxh64, seeded by model and cache salt, LRU per replica); the previous hash enters as the seed
of the next, which spares a copy of each block. Hashes are compared within this process only.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from xxhash import xxh64_intdigest

MAX_ENTRIES = 2_000_000
"""Most entries of all replicas together. With more than 64 replicas each gets an equal share of it, which is less than
upstream's 31,250. An entry takes about 120 bytes (measured: `tests/unit/picker/test_prefix.py`)."""


def block_hashes(prompt: bytes, seed: bytes, block_bytes: int, max_blocks: int = 0) -> list[int]:
    """Return the chained hashes of the blocks of `prompt`; the last block may be short. `max_blocks` 0 means all."""
    hashes: list[int] = []
    append, digest = hashes.append, xxh64_intdigest
    end = len(prompt)
    if max_blocks:
        end = min(end, max_blocks * block_bytes)
    previous = digest(seed)
    for start in range(0, end, block_bytes):
        previous = digest(prompt[start : start + block_bytes], previous)
        append(previous)
    return hashes


def slots_of(mask: int) -> Iterator[int]:
    """Yield the positions of the bits that are set in `mask`."""
    digits = bin(mask)[:1:-1]
    position = digits.find("1")
    while position >= 0:
        yield position
        position = digits.find("1", position + 1)


class PrefixIndex:
    """Block hashes by replica (an LRU each), and by hash the replicas that hold it, as a bit mask of slots.

    Masks make a lookup independent of the number of replicas: one `and` per block.
    """

    def __init__(self, capacity: int, max_entries: int = MAX_ENTRIES) -> None:
        self._capacity, self._max_entries = capacity, max_entries
        self._share = capacity
        self._holders: dict[int, int] = {}
        self._lru: dict[int, dict[int, None]] = {}
        self._limits: dict[int, int] = {}
        self._bits: dict[int, int] = {}
        """Slot -> its bit. Blocks that one replica holds, which are most, share this object as their mask."""

    def __len__(self) -> int:
        """Return the number of distinct blocks."""
        return len(self._holders)

    def size(self, slot: int) -> int:
        """Return the number of blocks remembered for a replica."""
        return len(self._lru[slot])

    def open(self, slot: int) -> None:
        """A replica came."""
        self._lru[slot], self._bits[slot], self._limits[slot] = {}, 1 << slot, self._capacity
        self._reshare()

    def drop(self, slot: int) -> None:
        """A replica went: forget what it held."""
        self._unhold(slot, self._lru.pop(slot))
        del self._bits[slot], self._limits[slot]
        self._reshare()

    def clear(self, slot: int) -> None:
        """A replica lost its cache, as it does when it restarts."""
        self._unhold(slot, self._lru[slot])
        self._lru[slot] = {}

    def limit(self, slot: int, entries: int) -> None:
        """Lower a replica's capacity to what its KV cache holds; never above the configured capacity."""
        self._limits[slot] = max(1, min(self._capacity, entries))
        self._trim(slot)

    def match(self, hashes: Sequence[int]) -> list[tuple[int, int]]:
        """Return (mask of slots, number of leading blocks held): each slot once, none with 0, shortest match first."""
        holders = self._holders
        found: list[tuple[int, int]] = []
        mask = last = holders.get(hashes[0], 0) if hashes else 0
        if not mask:
            return found
        for position, block in enumerate(hashes):
            held = holders.get(block, 0)
            if held is last:
                continue
            last = held
            common = mask & held
            if common != mask:
                found.append((mask ^ common, position))
                mask = common
                if not mask:
                    return found
        found.append((mask, len(hashes)))
        return found

    def record(self, slot: int, hashes: Sequence[int]) -> list[int]:
        """Remember that a replica has these blocks now; return those that it had not. An unknown slot is ignored.

        Blocks are taken from the last to the first, so that the end of a prefix is forgotten before its beginning.
        """
        lru = self._lru.get(slot)
        if lru is None:
            return []
        holders, bit = self._holders, self._bits[slot]
        added: list[int] = []
        before = after = 0
        for block in reversed(hashes):
            if block in lru:
                del lru[block]
                lru[block] = None
                continue
            lru[block] = None
            added.append(block)
            held = holders.get(block)
            if held is None:
                holders[block] = bit
            elif held is before:  # neighbours have the same holders: share one mask object
                holders[block] = after
            else:
                before, after = held, held | bit
                holders[block] = after
        self._trim(slot)
        return added

    def forget(self, slot: int, hashes: Iterable[int]) -> None:
        """Take back what `record` added: the request went elsewhere."""
        lru = self._lru.get(slot)
        if lru is not None:
            held = [block for block in hashes if block in lru]
            for block in held:
                del lru[block]
            self._unhold(slot, held)

    def _trim(self, slot: int) -> None:
        """Evict the oldest blocks above the limit, a few more at a time: a dict's oldest keys are costly one by one."""
        lru = self._lru[slot]
        limit = min(self._limits[slot], self._share)
        if len(lru) > limit:
            oldest = list(islice(lru, len(lru) - limit + limit // 32))
            for block in oldest:
                del lru[block]
            self._unhold(slot, oldest)

    def _unhold(self, slot: int, hashes: Iterable[int]) -> None:
        holders, bit = self._holders, self._bits[slot]
        for block in hashes:
            mask = holders[block] ^ bit
            if mask:
                holders[block] = mask
            else:
                del holders[block]

    def _reshare(self) -> None:
        self._share = max(1, self._max_entries // max(1, len(self._lru)))
        for slot in self._lru:
            self._trim(slot)
