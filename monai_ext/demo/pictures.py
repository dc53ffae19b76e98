"""Figures as data of a page, so that it needs nothing beside it."""

import base64
import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def png_data(png: bytes) -> str:
    """Return the address of a PNG inside a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def figure_data(figure: Figure) -> str:
    """Draw a figure as PNG and return its address inside a page."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return png_data(buffer.getvalue())
