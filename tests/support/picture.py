"""The picture of the reference architecture in `docs/`. Run as a module, draws it anew as `penstock diagram` does."""

from pathlib import Path

from cli.diagram.layout import draw
from cli.diagram.topology import topology
from tests.support.recordings import recorded

ROOT = Path(__file__).parents[2]
ENVIRONMENT = "prod"
PICTURE = ROOT / "docs" / f"{ENVIRONMENT}.svg"


def text() -> str:
    """The picture as SVG."""
    return draw(topology(recorded(ENVIRONMENT)))


if __name__ == "__main__":
    PICTURE.write_text(text(), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
