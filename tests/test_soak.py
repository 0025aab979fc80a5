"""A short soak: what a real daemon uses after some cycles is what it used before."""

from __future__ import annotations

from pathlib import Path

from tests.faults.soak import POOL_THREADS, Soak, slope


def test_every_ending_leaves_nothing_behind(tmp_path: Path) -> None:
    """After promoted, rejected, failed, crashed, hung and cancelled cycles: no descriptor, child or zombie more."""
    soak = Soak(tmp_path, cycles=15, seed=5, every=5)
    with soak.daemon:
        first, *samples = soak.run()
    assert set(soak.endings) == {"promoted", "rejected", "failed", "cancelled"}
    assert [sample.cycle for sample in samples] == [5, 10, 15]
    assert [(sample.children, sample.zombies) for sample in samples] == [(0, 0)] * 3
    assert max(sample.descriptors for sample in samples) <= first.descriptors
    assert max(sample.threads for sample in samples) <= first.threads + POOL_THREADS


def test_slope_ignores_warm_up() -> None:
    """A jump in the first fifth is no growth; a steady growth is found; too few cycles say nothing."""
    from tests.faults.soak import Sample

    def samples(figures: list[float], step: int) -> list[Sample]:
        rest = dict.fromkeys(Sample._fields, 0)
        return [Sample(**{**rest, "cycle": n * step, "resident_kib": figure}) for n, figure in enumerate(figures)]

    flat = [0.0, 5000.0, *[9000.0] * 8]
    assert slope(samples(flat, 50), "resident_kib") == 0.0
    growing = [9000.0 + 30 * n for n in range(10)]
    assert round(slope(samples(growing, 50), "resident_kib") or 0) == 60
    assert slope(samples(growing, 5), "resident_kib") is None
