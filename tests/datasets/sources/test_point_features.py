"""What a network reads of a point besides its place: intensity and time lag, or elongation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flat_ground import Ground, label, teacher
from numpy.typing import NDArray

from datasets.errors import SetupError
from datasets.frames import LidarSweep, elongation_source, in_box, points_in_ego
from datasets.model_inputs import InputSpec, prepare_frame
from models.presets import PRESETS, preset

ELONGATED = InputSpec(
    height=32,
    width=64,
    lidar=True,
    past_sweeps=1,
    point_features="tanh_intensity_elongation",
)


class ElongatedGround(Ground):
    """The flat road, whose returns have elongations from 0 to 1.5."""

    def read_points_and_elongation(self, sweep: LidarSweep) -> NDArray[np.float32]:
        points = self.read_points(sweep)
        points[:, 3] = np.linspace(0, 3, len(points))
        return np.c_[points, np.linspace(1.5, 0, len(points))].astype(np.float32)


def test_features_are_the_tangents_of_intensity_and_elongation() -> None:
    source = ElongatedGround()
    frame = source.scene("s1").frames[0]
    plain = points_in_ego(source, frame, past=1, vehicle="kept")
    got = points_in_ego(source, frame, past=1, vehicle="kept", features="tanh_intensity_elongation")
    np.testing.assert_array_equal(got[:, :3], plain[:, :3])
    n = len(plain) // 2  # of each of two sweeps
    for half in (got[:n], got[n:]):
        np.testing.assert_allclose(half[:, 3], np.tanh(np.linspace(0, 3, n)), atol=1e-6)
        np.testing.assert_allclose(half[:, 4], np.tanh(np.linspace(1.5, 0, n)), atol=1e-6)
    np.testing.assert_allclose(np.unique(plain[:, 4]), [0.0, 0.05])


@pytest.mark.parametrize("parity", [False, True])
def test_networks_get_the_features_that_they_ask_for(parity: bool) -> None:
    source = ElongatedGround()
    frame = source.scene("s1").frames[0]
    inputs = prepare_frame(source, frame, replace(ELONGATED, reference_parity=parity))
    assert inputs.points is not None
    assert inputs.points[:, 3].max() == pytest.approx(np.tanh(3.0))
    assert inputs.points[:, 4].max() == pytest.approx(np.tanh(1.5), abs=0.01)


def test_a_log_without_elongation_is_refused_by_its_kind() -> None:
    source = Ground()
    with pytest.raises(SetupError, match=r"elongation .* log of kind 'ground'"):
        prepare_frame(source, source.scene("s1").frames[0], ELONGATED)
    with pytest.raises(SetupError, match="elongation"):
        elongation_source(source, "tanh_intensity_elongation")
    assert elongation_source(source, "intensity_lag") is None


def test_lidar_evidence_does_not_depend_on_the_features() -> None:
    plain, model = teacher(), teacher()
    model = replace(model, preset=replace(model.preset, inputs=ELONGATED))
    expected = label(ElongatedGround(), plain, store_evidence=True)
    got = label(ElongatedGround(), model, store_evidence=True)
    assert expected.hits is not None and got.hits is not None
    assert expected.hits.any()
    np.testing.assert_array_equal(got.hits, expected.hits)
    np.testing.assert_array_equal(got.passes, expected.passes)
    np.testing.assert_array_equal(got.mask, expected.mask)


def test_the_published_waymo_networks_read_elongation_and_no_other_does() -> None:
    reading = {
        name
        for name in PRESETS
        if preset(name).inputs.point_features == "tanh_intensity_elongation"
    }
    assert reading == {"fusion_r18_waymo", "lidar_waymo"}


def test_waymos_recorded_intensity_and_elongation_reach_the_network(tmp_path: Path) -> None:
    needs = "waymo-open-dataset's protos and the extra waymo"
    pytest.importorskip("waymo_open_dataset.dataset_pb2", reason=needs)
    pytest.importorskip("pyarrow", reason=needs)
    import waymo_log

    from datasets.sources.waymo.source import WaymoSource

    written = waymo_log.segment(frames=1)
    waymo_log.write_records(
        tmp_path / "training" / "segment-a_with_camera_labels.tfrecord", written
    )
    waymo_log.write_components(tmp_path / "validation", written)
    for split in ("training", "validation"):
        source = WaymoSource(tmp_path)
        frame = source.scene(source.scene_ids(split)[0]).frames[0]
        spec = preset("lidar_waymo").inputs
        points = prepare_frame(source, frame, spec).points
        assert points is not None and frame.lidar is not None
        # first returns are written with elongation 0.5, second ones with 1.5 and 20000 of intensity
        second = points[:, 4] > np.tanh(1.0)
        np.testing.assert_allclose(points[second, 4], np.tanh(1.5), atol=1e-6)
        np.testing.assert_allclose(points[~second, 4], np.tanh(0.5), atol=1e-6)
        assert (points[second, 3] == 1.0).all() and 0 < second.mean() < 0.5
        recorded = [source.laser_points(sweep) for sweep in frame.moment]
        outside = np.concatenate([~in_box(r.xyz_m, frame.vehicle_m) for r in recorded])
        intensity = np.concatenate([r.intensity for r in recorded])[outside]
        np.testing.assert_allclose(points[:, 3], np.tanh(intensity), atol=1e-6)
