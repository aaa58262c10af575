"""The few SVG shapes that a diagram needs. Text is escaped and cut to its box; the whole of it is in the tooltip."""

from html import escape

from cli.diagram.topology import Card

CHAR_TITLE = 8.4
CHAR_LINE = 6.5
"""Mean advance of a character of the two text sizes, in pixels, rather too wide than too narrow."""

STYLE = """
text{font-family:system-ui,-apple-system,"Segoe UI",sans-serif;fill:#1f2933}
.title{font-size:13px;font-weight:600}.line{font-size:11px;fill:#52606d}.head{font-size:12px;font-weight:600;fill:#52606d}
.plain{fill:#fff;stroke:#9aa5b1}.gate{fill:#e6f0fa;stroke:#3b7dbf}.call{fill:#fff4e0;stroke:#c77d0a}
.pool{fill:#e9f6ec;stroke:#3f9156}.node{fill:#f3eefb;stroke:#7a5bb5}
.frame{fill:none;stroke:#9aa5b1;stroke-dasharray:6 4}
.share{font-size:11px;fill:#1f2933;paint-order:stroke;stroke:#fbfcfd;stroke-width:5px}
.edge{stroke:#52606d;stroke-width:1.4;fill:none}.step{fill:#1f2933}.count{fill:#fff;font-size:11px;font-weight:600}
""".strip()


class Canvas:
    """Collects shapes; `render` returns the document."""

    def __init__(self) -> None:
        self._shapes: list[str] = []

    def card(self, x: float, y: float, width: float, height: float, kind: str, card: Card) -> None:
        """Draw a box of class `kind` with the card's title and lines from its top."""
        whole = "\n".join(filter(None, [card.title, *card.lines, card.key]))
        self._shapes.append(f"<g><title>{escape(whole)}</title>")
        self._shapes.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7"/>')
        self.text(x + 10, y + 20, "title", cut(card.title, width - 20, CHAR_TITLE))
        for number, line in enumerate(card.lines):
            self.text(x + 10, y + 38 + 15 * number, "line", cut(line, width - 20, CHAR_LINE))
        self._shapes.append("</g>")

    def frame(self, x: float, y: float, width: float, height: float, title: str) -> None:
        """Draw a dashed frame around others."""
        self._shapes.append(f'<rect class="frame" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="10"/>')
        self.text(x + 12, y + 18, "head", cut(title, width - 24, CHAR_TITLE))

    def text(self, x: float, y: float, kind: str, text: str, anchor: str = "start") -> None:
        """Draw one line of text."""
        self._shapes.append(f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>')

    def arrow(self, start: tuple[float, float], end: tuple[float, float], label: str = "") -> None:
        """Draw a curve from `start` to `end`, both horizontal at their ends, and a label near its end."""
        (x1, y1), (x2, y2) = start, end
        middle = (x1 + x2) / 2
        path = f"M{x1:g} {y1:g}C{middle:g} {y1:g} {middle:g} {y2:g} {x2:g} {y2:g}"
        self._shapes.append(f'<path class="edge" d="{path}" marker-end="url(#tip)"/>')
        if label:
            self.text(x2 - 12, y2 - 7, "share", label, "end")

    def step(self, x: float, y: float, number: int) -> None:
        """Draw a numbered dot: a station of the request's way."""
        self._shapes.append(f'<circle class="step" cx="{x:g}" cy="{y:g}" r="9"/>')
        self.text(x, y + 4, "count", str(number), "middle")

    def render(self, width: float, height: float, label: str) -> str:
        """Return the SVG document."""
        tip = '<path d="M0 0L8 4L0 8z" fill="#52606d"/>'
        view = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
        marker = f'<marker id="tip" {view}>{tip}</marker>'
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img" aria-label="{escape(label)}">'
        )
        ground = f'<rect width="{width:g}" height="{height:g}" fill="#fbfcfd"/>'
        return "\n".join(
            [head, f"<style>{STYLE}</style>", f"<defs>{marker}</defs>", ground, *self._shapes, "</svg>", ""]
        )


def cut(text: str, width: float, char: float) -> str:
    """Return `text`, shortened with an ellipsis to about `width` pixels."""
    room = max(1, int(width / char))
    return text if len(text) <= room else f"{text[: room - 1]}…"
