"""Places a topology on a canvas: from consumers on the left to replicas on the right, nodes and networks below."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cli.diagram.svg import Canvas
from cli.diagram.topology import Card, Topology

MARGIN = 20
GAP = 16
_TOP = 100
"""Where the columns begin, below the frame's title."""
_SECTION = 56
"""Room above a row of cards for its heading."""
_CLIENTS = (Card("Clients", ("OpenAI SDK, any language",)),)


@dataclass(frozen=True, slots=True)
class Box:
    """A card at its place, in pixels from the upper left corner."""

    card: Card
    x: float
    y: float
    width: float

    @property
    def height(self) -> float:
        return 34 + 15 * max(1, len(self.card.lines))

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def left(self) -> tuple[float, float]:
        return self.x, self.y + 28

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.width, self.y + 28


def draw(topology: Topology) -> str:
    """Return the diagram as an SVG document."""
    canvas = Canvas()
    frame_x = MARGIN + (480 if topology.attachment else 250)
    columns = _columns(topology, frame_x)
    right = max(box.x + box.width for box in _boxes(columns)) + MARGIN
    bottom = max(box.bottom for box in _boxes(columns))
    below = {}
    for title, kind, cards, width in (
        ("Nodes", "node", topology.nodes, 230),
        ("Networks", "plain", topology.networks, 230),
    ):
        if cards:
            canvas.text(frame_x + MARGIN, bottom + _SECTION - 14, "head", title)
            below[title, kind] = _grid(cards, frame_x + MARGIN, bottom + _SECTION, right - MARGIN, width)
            bottom = max(box.bottom for box in below[title, kind])

    canvas.text(MARGIN, 32, "title", f"{topology.environment}: the way of a request")
    canvas.frame(frame_x, 60, right - frame_x, bottom + MARGIN - 60, "Load balancer, cluster and networks")
    for start, end, label in _arrows(topology, columns):
        canvas.arrow(start.right, end.left, label)
    for (_, kind), boxes in (columns | below).items():
        for box in boxes:
            canvas.card(box.x, box.y, box.width, box.height, kind, box.card)
    for number, box in enumerate(columns["chain", "call"], 1):
        canvas.step(box.x, box.y, number)
    label = f"Networks, gateway, pools and the way of a request in the environment {topology.environment}"
    return canvas.render(right + MARGIN, bottom + 2 * MARGIN, label)


Columns = Mapping[tuple[str, str], Sequence[Box]]
"""(What they show, CSS class) -> boxes."""


def _columns(topology: Topology, frame_x: float) -> dict[tuple[str, str], list[Box]]:
    entry, routes, pools = (frame_x + offset for offset in (MARGIN, MARGIN + 270, MARGIN + 520))
    gateway = _stack([topology.gateway] if topology.gateway else [], entry, _TOP, 220)
    chain_y = gateway[-1].bottom + 34 if gateway else _TOP
    return {
        ("consumers", "plain"): _stack(topology.endpoints or _CLIENTS, MARGIN, _TOP, 210),
        ("attachment", "gate"): _stack([topology.attachment] if topology.attachment else [], MARGIN + 250, _TOP, 200),
        ("gateway", "gate"): gateway,
        ("chain", "call"): _stack(topology.chain, entry, chain_y, 220),
        ("routes", "plain"): _stack(topology.routes, routes, _TOP, 190),
        ("pools", "pool"): _stack(topology.pools, pools, _TOP, 270),
    }


def _boxes(columns: Columns) -> Iterator[Box]:
    for boxes in columns.values():
        yield from boxes


def _stack(cards: Sequence[Card], x: float, y: float, width: float) -> list[Box]:
    boxes: list[Box] = []
    for card in cards:
        boxes.append(Box(card, x, boxes[-1].bottom + GAP if boxes else y, width))
    return boxes


def _grid(cards: Sequence[Card], left: float, y: float, right: float, width: float) -> list[Box]:
    boxes: list[Box] = []
    per_row = max(1, int((right - left + GAP) // (width + GAP)))
    for start in range(0, len(cards), per_row):
        row = cards[start : start + per_row]
        boxes += [Box(card, left + number * (width + GAP), y, width) for number, card in enumerate(row)]
        y = max(box.bottom for box in boxes) + GAP
    return boxes


def _arrows(topology: Topology, columns: Columns) -> Iterator[tuple[Box, Box, str]]:
    """Yield the way of a request as pairs of boxes with a label."""
    gateway, routes, pools = columns["gateway", "gate"], columns["routes", "plain"], columns["pools", "pool"]
    entry = [*columns["attachment", "gate"], *gateway]
    yield from ((box, entry[0], "") for box in columns["consumers", "plain"] if entry)
    yield from ((source, target, "") for source, target in pairwise(entry))
    yield from ((box, route, "") for box in gateway for route in routes)
    sources, targets = ({box.card.title: box for box in boxes} for boxes in (routes, pools))
    for link in topology.links:
        if link.source in sources and link.target in targets:
            yield sources[link.source], targets[link.target], link.label
