"""Whether a store's confidence, and the error bound it was made for, hold on its log.

They hold on scenes drawn as those that they were learned on. On any other log they are unverified:
nothing is known of how often a label with P = 0.9 is right there. What can be asked without truth
is asked of the labeled scenes: whether they are like the calibration scenes (``domain``), and
whether LiDAR sweeps that the teacher did not read contradict them (``lidar_check``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasets.files.bounded_files import parsing
from datasets.labels.domain import ConfidenceDomain, DomainShift, SceneStatistics, domain_shift
from datasets.labels.header import StoreHeader
from datasets.labels.lidar_check import LidarEstimate, LidarEvidence, estimate, evidence_of
from datasets.labels.store import LabelStore

DOMAIN_KEY, LOG_KEY = "confidence_domain", "log"
"""Of a store's provenance: the logs that confidence was learned on, and the name of its own."""
UNVERIFIED = "confidence is not verified on this log"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceValidity:
    """Attributes:
    reasons: why confidence is not verified on the log; none: it is.
    untested: what could not be tested, and why.
    shift: how the scenes differ from the calibration scenes; None: that could not be tested.
    lidar: what held-out sweeps say; None: they could not be asked.
    """

    reasons: tuple[str, ...]
    untested: tuple[str, ...] = ()
    shift: DomainShift | None = None
    lidar: LidarEstimate | None = None

    @property
    def verified(self) -> bool:
        return not self.reasons

    @property
    def contradicted(self) -> bool:
        """Whether held-out sweeps say that confidence does not hold."""
        return self.lidar is not None and self.lidar.invalid

    @property
    def note(self) -> str:
        """One line where confidence is not verified; empty: it is."""
        return f"{UNVERIFIED}: {'; '.join(self.reasons)}" if self.reasons else ""

    def to_text(self, *, bound: bool = False) -> str:
        """Lines for people.

        Args:
            bound: the labels were made for an error bound.
        """
        if self.verified:
            lines = ["confidence: verified on this log"]
        else:
            what = "the error bound does not hold here" if bound else "no error bound holds here"
            lines = [f"confidence: NOT VERIFIED on this log, {what}"]
        lines += [f"  {reason}" for reason in self.reasons]
        if self.shift is not None and self.shift.shifted:
            lines += [f"    {difference}" for difference in self.shift.differences]
        if self.lidar is not None:
            lines.append(f"  LiDAR check: {self.lidar.to_text()}")
        lines += [f"  not tested: {what}" for what in self.untested]
        if self.lidar is not None:
            lines.append(
                "  not tested: classes, of which LiDAR says nothing; review a few frames "
                "(viz/inspect.py) and adapt (scripts/calibrate.py --adapt)"
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        lidar = self.lidar
        return {
            "verified": self.verified,
            "reasons": list(self.reasons),
            "not_tested": list(self.untested),
            "differences": [] if self.shift is None else [str(d) for d in self.shift.differences],
            "domain_p": None if self.shift is None else self.shift.p,
            "lidar": None
            if lidar is None
            else {
                "voxels": lidar.voxels,
                "decided": lidar.judged,
                "seen_through": lidar.contradicted,
                "estimated_free": lidar.wrong,
                "interval": [lidar.low, lidar.high],
                "claimed_free": lidar.claimed,
                "p": lidar.p,
                "by_group": [
                    {"group": g, "ring": r, "voxels": n, "estimated": e, "claimed": c}
                    for (g, r), (n, e, c) in lidar.by_group.items()
                ],
            },
        }


def recorded_reasons(domain: ConfidenceDomain | None, source: str, log: str) -> tuple[str, ...]:
    """Why confidence is not verified on a log, by what the weights say; none: they were calibrated
    there.

    Args:
        domain: of the weights; None: they do not tell.
        source, log: kind and name of the log.
    """
    if domain is None or not domain.logs:
        return ("the weights do not tell what their confidence was learned on",)
    if domain.log(source, log) is None:
        known = ", ".join(d.name for d in domain.logs)
        name = source if log == source else f"{log} ({source})"
        return (f"it was learned on {known}, and this log is {name}",)
    return ()


def stored_domain(header: StoreHeader) -> ConfidenceDomain | None:
    """None where the header holds none. Raises ``ValueError`` where it is damaged."""
    data = header.provenance.get(DOMAIN_KEY)
    if data is None:
        return None
    try:
        with parsing():
            return ConfidenceDomain.from_json(data)
    except (OSError, ValueError) as error:
        raise ValueError(f"{DOMAIN_KEY}: {error}") from error


def validity_of(store: LabelStore) -> ConfidenceValidity:
    """Of all that a store holds. Raises ``ValueError`` where its attributes are damaged, and
    ``UnreadableError`` where they cannot be read."""
    return validity(store.header, store.committed())


def validity(header: StoreHeader, scenes: Mapping[str, Mapping[str, Any]]) -> ConfidenceValidity:
    """The same.

    Args:
        scenes: attributes of the committed ones, by id.
    """
    domain = stored_domain(header)
    source, log = (str(header.provenance.get(key) or "unknown") for key in ("source", LOG_KEY))
    reasons = list(recorded_reasons(domain, source, log))
    untested: list[str] = []
    known = None if domain is None else (domain.log(source, log) or next(iter(domain.logs), None))
    shift = None
    if not scenes:
        untested.append("the log's scenes: none is labeled yet")
    elif known is None or known.reference is None:
        untested.append("whether the log is like the calibration scenes: the weights keep none")
    else:
        statistics = _statistics(scenes)
        try:
            shift = domain_shift(statistics, known.reference)
        except ValueError as error:
            untested.append(f"whether the log is like the calibration scenes: {error}")
        if shift is not None and shift.shifted:
            reasons.append(f"its scenes are not like those of {known.name}")
    lidar, why = _lidar(header, domain, scenes)
    if why:
        untested.append(f"occupancy by held-out LiDAR: {why}")
    if lidar is not None and lidar.invalid:
        reasons.append(
            "held-out LiDAR sweeps contradict it: far more trusted voxels are free than claimed"
        )
    return ConfidenceValidity(
        reasons=tuple(reasons), untested=tuple(untested), shift=shift, lidar=lidar
    )


def _statistics(scenes: Mapping[str, Mapping[str, Any]]) -> list[SceneStatistics]:
    with parsing():
        return [
            SceneStatistics(
                values={str(k): float(v) for k, v in attributes["statistics"].items()},
                frames=int(attributes["counts"]["frames"]),
            )
            for attributes in scenes.values()
            if attributes.get("statistics")
        ]


def _lidar(
    header: StoreHeader,
    domain: ConfidenceDomain | None,
    scenes: Mapping[str, Mapping[str, Any]],
) -> tuple[LidarEstimate | None, str]:
    """The estimate, or why there is none."""
    if not scenes:
        return None, ""
    groups = [name for name in header.taxonomy.class_groups() if name != "free"]
    with parsing():
        evidence = [evidence_of(attributes) for attributes in scenes.values()]
        found = [e for e in evidence if isinstance(e, LidarEvidence)]
        why = list(dict.fromkeys(e for e in evidence if isinstance(e, str)))
        if any(len(e.counts) != len(groups) for e in found):
            raise ValueError(f"a LiDAR check of other than {len(groups)} groups of classes")
        reference = None if domain is None else domain.lidar
        result = estimate(found, reference, groups)
    if result is None:
        return None, why[0] if why else "too few trusted voxels are decided by rays"
    if result.p is None:
        return result, "the weights do not tell how far it may lie off (scripts/calibrate.py)"
    return result, f"{len(why)} reasons, such as: {why[0]}" if why else ""
