"""KV cache blocks of one replica: allocation, reference counts and the prefix cache.

Follows vLLM's V1 block pool: block 0 is reserved, a released block keeps its contents until it is needed again, and
the block that was released longest ago is reused first. Only full blocks are shared, found by a chained hash.
"""

from collections import OrderedDict

import xxhash

BYTES_PER_TOKEN = 4
"""A simulated token is four bytes of UTF-8 text (see `tokens.py`)."""


def chain_hashes(data: bytes, block_size: int, salt: str = "") -> list[int]:
    """Return one hash per full block of `data`; each covers all text before it and `salt` (adapter, cache salt).

    `block_size` is in tokens. Linear in the length of `data`: each block is hashed once, seeded with its parent's hash.
    """
    step = block_size * BYTES_PER_TOKEN
    parent = xxhash.xxh3_64_intdigest(salt.encode())
    hashes = []
    for end in range(step, len(data) + 1, step):
        parent = xxhash.xxh3_64_intdigest(data[end - step : end], parent)
        hashes.append(parent)
    return hashes


class BlockPool:
    """Blocks 1 to `total - 1`; a free block may still hold a cached prefix."""

    def __init__(self, total: int) -> None:
        self.usable = total - 1
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, total))
        self._references = [0] * total
        self._hash_of: list[int | None] = [None] * total
        self._cached: dict[int, int] = {}

    @property
    def free(self) -> int:
        """Blocks that no sequence holds."""
        return len(self._free)

    @property
    def cached(self) -> int:
        """Blocks whose contents can be found by a hash."""
        return len(self._cached)

    @property
    def usage(self) -> float:
        """Share of blocks that sequences hold, 0 to 1; cached blocks without a holder don't count."""
        return 1.0 - len(self._free) / self.usable

    def match(self, hashes: list[int], limit: int) -> list[int]:
        """Return the blocks of the longest cached prefix of `hashes[:limit]`, without taking them."""
        found = []
        for value in hashes[:limit]:
            block = self._cached.get(value)
            if block is None:
                break
            found.append(block)
        return found

    def reserve(self, shared: list[int], new: int) -> list[int] | None:
        """Take the `shared` blocks and `new` fresh ones; return all of them, or None if there are not enough."""
        revived = sum(1 for block in shared if not self._references[block])
        if new + revived > len(self._free):
            return None
        for block in shared:
            if not self._references[block]:
                del self._free[block]
            self._references[block] += 1
        return shared + [self._take_oldest() for _ in range(new)]

    def _take_oldest(self) -> int:
        block, _ = self._free.popitem(last=False)
        old = self._hash_of[block]
        if old is not None:
            del self._cached[old]
            self._hash_of[block] = None
        self._references[block] = 1
        return block

    def release(self, blocks: list[int]) -> None:
        """Give back `blocks` of one sequence; the end of a sequence is forgotten before its beginning."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if not self._references[block]:
                self._free[block] = None

    def remember(self, block: int, value: int) -> None:
        """Make the full `block` findable by `value`; the first block with the same contents stays the one found."""
        if value not in self._cached and self._hash_of[block] is None:
            self._cached[value] = block
            self._hash_of[block] = value

    def forget_all(self) -> bool:
        """Empty the prefix cache; False (and nothing done) while a sequence holds blocks, as vLLM."""
        if len(self._free) != self.usable:
            return False
        self._cached.clear()
        self._hash_of = [None] * len(self._hash_of)
        return True
