"""The city's streets, what stands and moves in them, and the flow of what moves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datasets.benchmarks.occ3d_nuscenes import TAXONOMY
from datasets.geometry.transforms import Transform, from_yaw
from datasets.sources.synthetic.export.labels import CityLabeler
from datasets.sources.synthetic.objects import buildings, cars, furniture, people, plants, vehicles
from datasets.sources.synthetic.objects import roadworks as works
from datasets.sources.synthetic.objects.shapes import Finish, Mesh, box
from datasets.sources.synthetic.sensors.lidar import lidar_mount, take_sweep
from datasets.sources.synthetic.sensors.ray_tracing import Stage
from datasets.sources.synthetic.sensors.weather import WEATHERS, Light, draw_light
from datasets.sources.synthetic.world.builder import Actor, World, actor_poses
from datasets.sources.synthetic.world.curves import Curve, curve
from datasets.sources.synthetic.world.districts import DISTRICTS
from datasets.sources.synthetic.world.layout import ROAD, TERRAIN, Layout, Street
from datasets.sources.synthetic.world.planning import draw_layout

CAR = TAXONOMY.id_of("car")


def flat_layout(line: Curve) -> Layout:
    """One level street of two lanes along ``line``, grass beside it."""
    street = Street(curve=line, lanes=1, parking=False, median_m=0.0, ends=False, joins_m=())
    return Layout(
        district=DISTRICTS[0],
        streets=(street,),
        route=line,
        route_d_m=0.0,
        turns=False,
        hand=1,
        median_class=TERRAIN,
        verge_m=0.0,
        walk_m=2.0,
        path_m=0.0,
        lots=np.full((1, 2, 64), TERRAIN, np.uint8),
        hills=np.zeros((5, 4)),
        rise=0.0,
    )


def straight() -> Curve:
    return curve(-200.0, 0.0, 0.0, [(400.0, 0.0)], s_m=-200.0)


def car_at(line: Curve, s: float, d: float, speed: float, *, yaw: float = 0.0) -> Actor:
    mesh = cars.car(np.random.default_rng(3), lit=False)
    lo, hi = mesh.vertices.min(0), mesh.vertices.max(0)
    return Actor(
        mesh=mesh,
        category="vehicle.car",
        attribute="",
        size_m=tuple(hi - lo),
        center_m=tuple((hi + lo) / 2),
        curve=line,
        s_m=s,
        d_m=d,
        speed_mps=speed,
        accel_mps2=0.0,
        drift_mps=0.0,
        yaw_rad=yaw,
    )


def world_of(line: Curve, actors: Sequence[Actor], static: Mesh | None = None) -> World:
    far = box((1, 1, 1), (0, 55, 0.5), "manmade", (0.5, 0.5, 0.5))
    return World(
        layout=flat_layout(line),
        static=static if static is not None else far,
        actors=tuple(actors),
        lamps_m=np.zeros((0, 3)),
        ego_speed_mps=5.0,
        ego_accel_mps2=0.0,
        ego_length_m=20.0,
    )


def flow_of(world: World, ego: Transform, time_s: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    truth = CityLabeler(Stage(world))
    semantics = truth.semantics(ego, time_s)
    return semantics, truth.flow(semantics, ego, time_s)


@pytest.mark.parametrize(
    ("heading_deg", "expected"),
    [(0, (6.0, 0.0)), (90, (0.0, -6.0)), (180, (-6.0, 0.0)), (30, (5.196152, -3.0))],
)
def test_flow_is_the_velocity_over_the_ground_along_the_axes_of_the_ego_frame(
    heading_deg: float, expected: tuple[float, float]
) -> None:
    line = straight()
    world = world_of(line, [car_at(line, 10.0, 3.0, 6.0)])
    semantics, flow = flow_of(world, from_yaw(np.radians(heading_deg), (0, 0, 0)))
    of_car = semantics == CAR
    assert of_car.sum() > 60
    np.testing.assert_allclose(flow[of_car], np.tile(expected, (of_car.sum(), 1)), atol=1e-4)
    assert not flow[~of_car].any()


def test_flow_of_each_of_two_vehicles_is_its_own_and_what_stands_has_none() -> None:
    line = straight()
    actors = [
        car_at(line, 12.0, 3.0, 4.0),
        car_at(line, 12.0, -3.0, -7.0, yaw=np.pi),
        car_at(line, 25.0, 0.0, 0.0),
    ]
    semantics, flow = flow_of(world_of(line, actors), np.eye(4))
    of_car = semantics == CAR
    left, right = of_car[:, 100:] & (flow[:, 100:, :, 0] != 0), of_car[:, :100]
    np.testing.assert_allclose(flow[:, 100:][left], np.tile((4.0, 0.0), (left.sum(), 1)), atol=1e-4)
    right &= flow[:, :100, :, 0] != 0
    moving = np.tile((-7.0, 0.0), (right.sum(), 1))
    np.testing.assert_allclose(flow[:, :100][right], moving, atol=1e-4)
    assert left.sum() > 60 and right.sum() > 60
    parked = of_car[155:170, 94:106]
    assert parked.sum() > 60 and not flow[155:170, 94:106][parked].any()


def test_flow_on_a_bend_points_along_the_bend() -> None:
    bend = curve(0.0, -20.0, 0.0, [(100.0, 1 / 20)])  # a circle of 20 m about the origin
    half = 20 * np.pi / 2  # a quarter of it: at (20, 0), heading along +y
    semantics, flow = flow_of(world_of(bend, [car_at(bend, half, 2.0, 5.0)]), np.eye(4))
    of_car = semantics == CAR
    # 2 m inside of the bend it is slower by a tenth
    np.testing.assert_allclose(flow[of_car].mean(axis=0), (0.0, 4.5), atol=1e-3)


def test_flow_follows_the_object_through_time() -> None:
    line = straight()
    world = world_of(line, [car_at(line, 0.0, 3.0, 8.0)])
    before, after = (flow_of(world, np.eye(4), t)[1][..., 0] != 0 for t in (0.0, 2.0))
    moved = np.argwhere(after).mean(0) - np.argwhere(before).mean(0)
    assert moved[0] * 0.4 == pytest.approx(16.0, abs=0.3)


@given(
    pieces=st.lists(st.tuples(st.floats(1, 60), st.floats(-0.06, 0.06)), min_size=1, max_size=4),
    s=st.floats(0, 100),
    d=st.floats(-3, 3),
)
@example(pieces=[(2.0, 0.017578125), (1.0, 0.03125)], s=2.0, d=0.017578125)  # where arcs meet
@example(pieces=[(55.0, 0.05859375)], s=54.0, d=0.0)  # beyond half a turn
def test_point_placed_on_a_street_is_found_there_again(
    pieces: list[tuple[float, float]], s: float, d: float
) -> None:
    line = curve(3.0, -2.0, 0.7, [(100.0, 0.0), *pieces, (100.0, 0.0)], s_m=-100.0)
    x, y, _ = line.place(np.array([s]), np.array([d]))
    g = flat_layout(line).ground(x, y)
    # a street that crosses itself may be nearer with another part
    assert g.edge_m[0] <= abs(d) - 3.9 + 1e-6
    assert g.classes[0] == ROAD
    px, py, _ = line.place(g.s_m, g.d_m)
    np.testing.assert_allclose((px[0], py[0]), (x[0], y[0]), atol=1e-6)


def test_curve_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="positive length"):
        curve(0, 0, 0, [(0.0, 0.1)])


def test_ego_vehicle_keeps_to_the_road_and_often_turns() -> None:
    swung, hands = 0, set()
    for seed in range(60):
        turning = seed % 3 == 0
        layout = draw_layout(np.random.default_rng(seed), 25.0, turning=turning)
        s = np.linspace(0, 25, 30)
        x, y, yaw = layout.route.place(s, np.full(30, layout.route_d_m))
        g = layout.ground(x, y)
        assert (g.classes == ROAD).all(), seed
        # edges are rounded off where streets meet, so that the middle of a mouth can be near one
        assert (g.edge_m[g.cross_m > 8] < -1.0).all(), seed
        swung += np.ptp(np.unwrap(yaw)) > np.radians(20)
        hands.add(layout.hand)
    assert swung > 15 and hands == {-1, 1}


def test_every_kind_of_weather_and_district_occurs() -> None:
    lights = [draw_light(np.random.default_rng(i)) for i in range(120)]
    assert {light.weather for light in lights} == set(WEATHERS)
    assert all((light.lamps > 0) == (light.weather in ("dusk", "night")) for light in lights)
    layouts = [draw_layout(np.random.default_rng(i), 20.0, turning=False) for i in range(80)]
    assert {layout.district.name for layout in layouts} == {d.name for d in DISTRICTS}


def clear_day() -> Light:
    seeds = (draw_light(np.random.default_rng(i)) for i in range(100))
    return next(light for light in seeds if light.weather == "sun")


def returns_from(finish: Finish, colour: tuple[float, float, float], away_m: float) -> np.ndarray:
    """Intensities of the returns of a wide wall ahead of the car."""
    wall = box((1, 30, 8), (away_m + 0.5, 0, 4), "manmade", colour, finish)
    world = world_of(straight(), [], wall)
    T = from_yaw(0.0, (0, 0, 0)) @ lidar_mount()
    sweep = take_sweep(Stage(world).at(0.0), T, clear_day(), np.random.default_rng(0))
    forward, right = sweep.points[:, 1], sweep.points[:, 0]
    on_wall = (np.abs(forward - away_m + 0.944) < 0.2) & (np.abs(right) < 4)
    return sweep.points[on_wall, 3]


def test_lidar_loses_returns_on_glass_and_far_dark_paint_and_signs_shine() -> None:
    plain = returns_from(Finish.PLAIN, (0.5, 0.5, 0.5), 20)
    glass = returns_from(Finish.GLASS, (0.1, 0.1, 0.1), 20)
    dark = returns_from(Finish.PAINT, (0.03, 0.03, 0.03), 20)
    sign = returns_from(Finish.SIGN, (0.8, 0.8, 0.8), 20)
    far = returns_from(Finish.PLAIN, (0.5, 0.5, 0.5), 45)
    assert len(glass) < 0.6 * len(plain) and len(dark) < 0.75 * len(plain)
    assert sign.mean() > 4 * plain.mean() > 8 * glass.mean()
    assert len(far) < 0.5 * len(plain)  # fewer beams meet it, and more of them are lost


MAKERS = {
    "car": lambda rng: cars.car(rng, lit=True),
    "bicycle": lambda rng: cars.bicycle(rng, rider=True),
    "motorcycle": lambda rng: cars.motorcycle(rng, rider=True),
    "bus": lambda rng: vehicles.bus(rng, lit=True),
    "truck": lambda rng: vehicles.truck(rng, lit=False),
    "trailer": vehicles.trailer,
    "construction_vehicle": vehicles.machine,
    "pedestrian": people.pedestrian,
    "traffic_cone": works.cone,
    "barrier": lambda rng: works.barrier(rng, int(rng.integers(4))),
    "others": lambda rng: works.clutter(rng)[0],
    "vegetation": plants.tree,
    "manmade": furniture.sign,
}


@pytest.mark.parametrize("name", MAKERS)
def test_things_are_of_one_class_stand_on_the_ground_and_come_in_many_shapes(name: str) -> None:
    meshes = [MAKERS[name](np.random.default_rng(i)) for i in range(24)]
    for mesh in meshes:
        assert (mesh.classes == TAXONOMY.id_of(name)).all()
        assert np.isfinite(mesh.vertices).all()
        assert -0.9 < mesh.vertices[:, 2].min() < 0.35
        assert len(mesh.faces) > 12  # no bare box
        assert (mesh.colours >= 0).all() and (mesh.colours <= 1.2).all()
    sizes = {tuple(np.round(np.ptp(m.vertices, axis=0), 2)) for m in meshes}
    assert len(sizes) > 3


@pytest.mark.parametrize("kind", buildings.MAKERS)
def test_houses_reach_into_the_ground_and_up_to_their_height(kind: str) -> None:
    for seed in range(6):
        mesh = buildings.MAKERS[kind](np.random.default_rng(seed), 14.0, 10.0, 9.0)
        assert mesh.vertices[:, 2].min() < -1 and mesh.vertices[:, 2].max() >= 9
        assert (mesh.classes == TAXONOMY.id_of("manmade")).all()


def test_crossing_pedestrian_moves_sideways() -> None:
    line = straight()
    walker = Actor(
        mesh=people.pedestrian(np.random.default_rng(0)),
        category="human.pedestrian.adult",
        attribute="pedestrian.moving",
        size_m=(0.6, 0.6, 1.7),
        center_m=(0.0, 0.0, 0.85),
        curve=line,
        s_m=5.0,
        d_m=-4.0,
        speed_mps=0.0,
        accel_mps2=0.0,
        drift_mps=1.5,
        yaw_rad=np.pi / 2,
    )
    (pose,) = actor_poses([walker], flat_layout(line), 2.0)
    np.testing.assert_allclose(pose[:2, 3], (5.0, -1.0), atol=1e-9)
    assert walker.moves
