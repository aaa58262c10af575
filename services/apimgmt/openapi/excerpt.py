"""Cutting a refused body down to what is needed to say why: an engine's errors grow with the body, times alternatives.

Without this a megabyte of wrong content parts takes minutes to describe; whether a body is valid is told in
milliseconds. So long arrays are cut, as long as what is left is still refused.
"""

from collections.abc import Callable, Mapping
from typing import Any

MAX_ITEMS = 8
"""Arrays up to this length stay as they are."""
MAX_KEPT = 256
"""Longest array that is kept whole where the whole is what is wrong, e.g. longer than it may be."""
MAX_TRIALS = 200
"""Most checks of a body; one of 1 MB takes up to 5 ms."""
MAX_LISTS = 64
"""Most arrays that are cut."""

Path = tuple[str | int, ...]


class Excerpt:
    """A copy of a body with long arrays cut, that is refused like the body. `complete` tells whether all were cut."""

    def __init__(self, body: Mapping[str, Any], is_valid: Callable[[Any], bool]) -> None:
        self.body = dict(body)
        self.complete = False
        self._is_valid = is_valid
        self._trials = MAX_TRIALS
        self._kept: dict[Path, list[int]] = {}
        self._cut()

    def original(self, path: list[str | int]) -> list[str | int]:
        """Return a path in the excerpt as one in the body."""
        found: list[str | int] = []
        here: Any = self.body
        for index, part in enumerate(path):
            if isinstance(here, list) and isinstance(part, int):
                kept = self._kept.get(tuple(path[:index]))
                found.append(kept[part] if kept else part)
                here = here[part]
            else:
                found.append(str(part))  # the engine takes a field named "5" for an index
                here = here.get(str(part)) if isinstance(here, dict) else None
        return found

    def _cut(self) -> None:
        """Cut from the outside in: what was cut away need not be looked at."""
        pending: list[tuple[Path, Any]] = [((), self.body)]
        lists = 0
        for path, value in pending:
            if isinstance(value, list) and len(value) > MAX_ITEMS:
                lists += 1
                if lists > MAX_LISTS or self._trials < 2 or not self._shorten(path, value):
                    return
            children = value.items() if isinstance(value, dict) else enumerate(value)
            for key, child in children:
                if isinstance(child, (dict, list)) and child:
                    copy = child.copy()
                    value[key] = copy
                    pending.append(((*path, key), copy))
        self.complete = True

    def _shorten(self, path: Path, value: list[Any]) -> bool:
        """Cut one array (a copy of the client's) in place; return False if what is wrong needs all of it."""
        whole = value.copy()
        if self._refused(value, whole[:MAX_ITEMS]):
            return True
        low, high = MAX_ITEMS, len(whole)  # whole[:low] is accepted, whole[:high] is not
        while high - low > 1:
            middle = (low + high) // 2
            if self._refused(value, whole[:middle]):
                high = middle
            else:
                low = middle
        for beside in (0, MAX_ITEMS - 1):  # wrong by itself, or beside others: a text among token ids
            kept = [*range(beside), high - 1]
            if self._refused(value, [whole[index] for index in kept]):
                self._kept[path] = kept
                return True
        value[:] = whole
        return len(whole) <= MAX_KEPT

    def _refused(self, value: list[Any], items: list[Any]) -> bool:
        value[:] = items
        self._trials -= 1
        return not self._is_valid(self.body)
