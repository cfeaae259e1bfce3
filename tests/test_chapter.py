"""What chapters share: running, describing, and finding committed records."""

from superpos import chapter
from superpos.experiments import calibration
from superpos.ledger import Verdict
from superpos.provenance import provenance
from superpos.store import Store


def record(tmp_path, seconds):
    settings = calibration.Settings(neurons=4, samples=500, seeds=2)
    condition = calibration.conditions(settings)[0]
    return Store(tmp_path).write(
        calibration.SECTION, 1, condition, [{"k": 4}], provenance(seconds=seconds)
    )


def test_records_are_described_by_device_date_and_time(tmp_path):
    line = chapter.described([record(tmp_path, 7200.0)])
    assert line.startswith("cpu")
    assert line.endswith("2.0 h of computing.")


def test_a_profile_without_committed_records_gives_none():
    assert chapter.committed(calibration, "paper") is None


def test_a_chapter_runs_once_and_is_judged(tmp_path, monkeypatch):
    monkeypatch.setenv("SUPERPOS_RESULTS", str(tmp_path))
    settings = calibration.Settings(
        neurons=4, ratios=(1.0,), directions=("orthogonal",), sparsities=(), samples=800,
        seeds=2, starts=2, architectures=("tied",),
    )  # fmt: skip
    first = chapter.run(calibration, settings)
    second = chapter.run(calibration, settings)
    assert [r.provenance for r in first.records] == [r.provenance for r in second.records]
    assert first.source.section == "calibration" and first.source.count == len(first.records)
    assert str(first.source).startswith("Profile quick, changed: neurons=4")
    text = str(chapter.claims(calibration, settings, first))
    assert "reproduced" in text
    assert (tmp_path / "quick" / "calibration" / "values.json").is_file()


def test_committed_runs_are_judged_under_their_own_profile():
    (run,) = chapter.larger(calibration, calibration.Settings())
    assert run.settings.profile == run.label == "workstation"
    verdicts = {verdict for _, _, verdict in chapter.claims_of(calibration, run).rows}
    assert Verdict.NOT_TESTED not in verdicts
    assert chapter.larger(calibration, calibration.Settings(profile="paper")) == []
