"""What can be measured in a picture: edges that cross or run over nodes, nodes that overlap."""

import re
from itertools import combinations
from xml.etree import ElementTree

import numpy as np

SVG = "{http://www.w3.org/2000/svg}"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class Picture:
    """Boxes of the nodes and lines of the edges, by id, in the SVG's own units."""

    def __init__(self, svg):
        self.boxes, self.lines, self.ends = {}, {}, {}
        for group in ElementTree.fromstring(svg).iter(SVG + "g"):
            kinds = (group.get("class") or "").split()
            if "node" in kinds:
                self.boxes[group.get("id")] = box(outline(group))
            elif "edge" in kinds:
                path = group.find(f".//{SVG}path")
                self.lines[group.get("id")] = curve(points(path.get("d")))
                title = group.find(SVG + "title").text
                self.ends[group.get("id")] = re.split("->", title)

    def crossings(self):
        """Pairs of edges that cross, other than where they begin or end at the same node."""
        return [
            (a, b)
            for a, b in combinations(self.lines, 2)
            if cross(self.lines[a], self.lines[b], self.shared(a, b))
        ]

    def shared(self, a, b):
        return [self.boxes[n] for n in set(self.ends[a]) & set(self.ends[b]) if n in self.boxes]

    def overruns(self):
        """Edges that run over a node that they do not belong to."""
        return [
            (edge, node)
            for edge, line in self.lines.items()
            for node, (low, high) in self.boxes.items()
            if node not in self.ends[edge]
            and ((line > low + 1) & (line < high - 1)).all(axis=1).any()
        ]

    def overlaps(self):
        """Pairs of nodes that lie over each other."""
        return [
            (a, b)
            for (a, (p, q)), (b, (r, s)) in combinations(self.boxes.items(), 2)
            if (p + 0.5 < s).all() and (r + 0.5 < q).all()
        ]


def outline(group):
    shape = next(e for e in group.iter() if e.tag in (SVG + "polygon", SVG + "path"))
    return points(shape.get("points") or shape.get("d"))


def points(text):
    return np.array(NUMBER.findall(text), float).reshape(-1, 2)


def box(corners):
    return corners.min(axis=0), corners.max(axis=0)


def curve(p):
    """Many points on a chain of cubic Bézier curves."""
    t = np.linspace(0, 1, 25)[:, None]
    pieces = [
        (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d
        for a, b, c, d in (p[i : i + 4] for i in range(0, len(p) - 3, 3))
    ]
    return np.concatenate(pieces)


def cross(p, q, shared):
    """Whether two lines cross outside the surroundings of nodes that both belong to."""
    a, b, c, d = p[:-1, None], p[1:, None], q[None, :-1], q[None, 1:]

    def side(o, u, v):
        return (u - o)[..., 0] * (v - o)[..., 1] - (u - o)[..., 1] * (v - o)[..., 0]

    hit = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
    where = ((a + b) / 2 + 0 * c)[hit]
    near = [((where > low - 12) & (where < high + 12)).all(axis=1) for low, high in shared]
    return bool((~np.any(near, axis=0)).any()) if near else bool(hit.any())
