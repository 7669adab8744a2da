"""The parts of town, each with a look of its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class District:
    """How a part of town is built. Shares and chances are 0..1.

    Attributes:
        chance: relative frequency.
        lots: shares of driveable, other flat, sidewalk and terrain behind the sidewalk.
        lanes: chances of one, two and three lanes per direction.
        parking, verge, median: chances of parking strips, of grass beside the kerb and of a strip
            between the directions.
        walk_m: least and largest width of the sidewalk.
        house: ``tower``, ``row``, ``villa`` or ``hall``.
        built: share of the street fronts that are built upon.
        setback_m, gap_m, length_m, height_m: least and largest, of the houses.
        street_trees: share of the kerb's tree places that are taken.
        hedges, walls: shares of the lots' fronts that a hedge or a wall or fence closes.
        roofs: chance of a covered walk along a sidewalk, and of a canopy on a paved lot.
        bridges: chance of a bridge over the street.
        shrubs: single bushes and trees per 10 m of street and side on terrain.
        woods: share of the green lots that are a thicket from some metres on.
        beds: share of the green lots in front of it that low plants cover.
        people: least and largest number on the sidewalks.
        traffic: vehicles on the lanes, 1 is dense.
        trucks: share of lorries, trailers and buses among them.
        works: mean number of building sites.
    """

    name: str
    chance: float
    lots: tuple[float, float, float, float]
    lanes: tuple[float, float, float]
    parking: float
    verge: float
    median: float
    walk_m: tuple[float, float]
    house: str
    built: float
    setback_m: tuple[float, float]
    gap_m: tuple[float, float]
    length_m: tuple[float, float]
    height_m: tuple[float, float]
    street_trees: float
    hedges: float
    walls: float
    roofs: float
    bridges: float
    shrubs: float
    woods: float
    beds: float
    people: tuple[int, int]
    traffic: float
    trucks: float
    works: float


DISTRICTS = (
    District(
        name="downtown",
        chance=0.22,
        lots=(0.22, 0.03, 0.25, 0.5),
        lanes=(0.05, 0.45, 0.5),
        parking=0.15,
        verge=0.6,
        median=0.45,
        walk_m=(3.5, 7.0),
        house="tower",
        built=0.95,
        setback_m=(5.0, 18.0),
        gap_m=(0.0, 5.0),
        length_m=(14, 30),
        height_m=(9, 40),
        street_trees=0.7,
        hedges=0.08,
        walls=0.4,
        roofs=0.65,
        bridges=0.6,
        shrubs=2.0,
        woods=0.45,
        beds=0.6,
        people=(40, 95),
        traffic=0.32,
        trucks=0.3,
        works=2.0,
    ),
    District(
        name="old town",
        chance=0.17,
        lots=(0.18, 0.03, 0.21, 0.58),
        lanes=(0.4, 0.5, 0.1),
        parking=0.2,
        verge=0.4,
        median=0.1,
        walk_m=(2.6, 5.2),
        house="row",
        built=0.97,
        setback_m=(2.0, 12.0),
        gap_m=(0.0, 0.6),
        length_m=(6, 12),
        height_m=(6, 13),
        street_trees=0.6,
        hedges=0.1,
        walls=0.45,
        roofs=0.5,
        bridges=0.35,
        shrubs=2.5,
        woods=0.45,
        beds=0.6,
        people=(28, 66),
        traffic=0.22,
        trucks=0.2,
        works=1.5,
    ),
    District(
        name="suburb",
        chance=0.24,
        lots=(0.12, 0.02, 0.05, 0.81),
        lanes=(0.35, 0.55, 0.1),
        parking=0.15,
        verge=0.9,
        median=0.15,
        walk_m=(2.2, 4.2),
        house="villa",
        built=0.8,
        setback_m=(9, 20),
        gap_m=(3, 10),
        length_m=(9, 16),
        height_m=(4, 8),
        street_trees=0.8,
        hedges=0.1,
        walls=0.35,
        roofs=0.35,
        bridges=0.4,
        shrubs=3.0,
        woods=0.65,
        beds=0.5,
        people=(12, 36),
        traffic=0.2,
        trucks=0.2,
        works=1.2,
    ),
    District(
        name="park",
        chance=0.14,
        lots=(0.08, 0.02, 0.05, 0.85),
        lanes=(0.3, 0.5, 0.2),
        parking=0.1,
        verge=0.95,
        median=0.3,
        walk_m=(2.6, 5.4),
        house="villa",
        built=0.15,
        setback_m=(10, 20),
        gap_m=(5, 20),
        length_m=(10, 18),
        height_m=(4, 9),
        street_trees=0.9,
        hedges=0.1,
        walls=0.2,
        roofs=0.45,
        bridges=0.55,
        shrubs=4.0,
        woods=0.85,
        beds=0.5,
        people=(16, 52),
        traffic=0.25,
        trucks=0.2,
        works=1.0,
    ),
    District(
        name="industry",
        chance=0.13,
        lots=(0.35, 0.04, 0.06, 0.55),
        lanes=(0.25, 0.55, 0.2),
        parking=0.15,
        verge=0.75,
        median=0.2,
        walk_m=(2.2, 4.4),
        house="hall",
        built=0.75,
        setback_m=(9, 22),
        gap_m=(4, 16),
        length_m=(20, 44),
        height_m=(5, 12),
        street_trees=0.5,
        hedges=0.1,
        walls=0.4,
        roofs=0.6,
        bridges=0.65,
        shrubs=2.0,
        woods=0.5,
        beds=0.6,
        people=(6, 22),
        traffic=0.25,
        trucks=0.55,
        works=2.4,
    ),
    District(
        name="boulevard",
        chance=0.1,
        lots=(0.18, 0.03, 0.14, 0.65),
        lanes=(0.0, 0.45, 0.55),
        parking=0.12,
        verge=0.95,
        median=0.85,
        walk_m=(3.6, 7.0),
        house="tower",
        built=0.8,
        setback_m=(9, 22),
        gap_m=(2, 16),
        length_m=(16, 34),
        height_m=(7, 28),
        street_trees=0.95,
        hedges=0.1,
        walls=0.35,
        roofs=0.65,
        bridges=0.65,
        shrubs=3.0,
        woods=0.65,
        beds=0.6,
        people=(18, 54),
        traffic=0.3,
        trucks=0.35,
        works=1.8,
    ),
)
