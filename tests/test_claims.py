from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from superpos.claims import judged, report
from superpos.ledger import Claim, ClaimError, Estimate, Verdict, judge, load_ledger
from superpos.settings import PROFILES
from superpos.store import Store

ENTRY = {
    "id": "fake.mean",
    "section": "fake",
    "text": "The mean <b> is high.",
    "source": "section 1",
    "paper": {"value": 0.94, "pm": 0.02},
    "region": {"low": 0.9},
    "profile": "quick",
    "why": "It is the rule & law.",
}
SECOND = {**ENTRY, "id": "fake.slope", "region": {"high": 0}, "profile": "workstation"}


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump([ENTRY, SECOND]))
    monkeypatch.setattr(load_ledger, "__defaults__", (path,))
    return path


def told(root, estimates, profile="quick", **options):
    label = options.pop("label", profile)
    return report(
        "fake", estimates, settings_label=label, profile=profile, store_root=root, **options
    )


@given(
    edges=st.tuples(st.none() | st.integers(-5, 5), st.none() | st.integers(-5, 5)),
    interval=st.tuples(st.integers(-6, 6), st.integers(-6, 6)).map(sorted),
)
def test_the_verdict_says_how_many_points_of_the_interval_lie_in_the_region(edges, interval):
    low, high = edges
    claim = Claim("s.q", "s", "t", "s", "p", low, high, "quick", "w")
    points = range(2 * interval[0], 2 * interval[1] + 1)  # every half step
    inside = [
        (low is None or point >= 2 * low) and (high is None or point <= 2 * high)
        for point in points
    ]
    expected = (
        Verdict.REPRODUCED
        if all(inside)
        else Verdict.PARTLY
        if any(inside)
        else Verdict.NOT_REPRODUCED
    )
    if low is None or high is None or low <= high:
        assert judge(claim, Estimate(interval[0], *interval), "quick") is expected


def test_a_claim_is_not_tested_without_a_value_or_below_its_profile():
    claim = Claim("s.q", "s", "t", "s", "p", 0.0, None, "workstation", "w")
    good = Estimate(1.0, 0.5, 1.5)
    assert judge(claim, None, "paper") is Verdict.NOT_TESTED
    assert [judge(claim, good, profile) for profile in PROFILES] == [
        Verdict.NOT_TESTED,
        Verdict.REPRODUCED,
        Verdict.REPRODUCED,
    ]


def test_the_ledger_of_the_package_is_well_formed():
    ledger = load_ledger()
    assert {"toy_models", "adversarial", "calibration"} <= {
        claim.section for claim in ledger.values()
    }
    assert ledger["toy_models.r_sae_activations"].paper == "0.94 ± 0.02"
    assert all(claim.id == name for name, claim in ledger.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "other.mean"}, "id must begin with 'fake.'"),
        ({"color": "red"}, "missing or unknown: color"),
        ({"why": None}, "'why' must be text"),
        ({"profile": "tiny"}, "unknown profile 'tiny'; allowed: quick"),
        ({"region": {}}, "'region' must hold numbers"),
        ({"region": {"low": "a"}}, "'region' must hold numbers"),
        ({"region": {"lower": 1}}, "'region' must hold numbers"),
        ({"region": {"low": 2, "high": 1}}, "low 2 must be below its high 1"),
        ({"paper": {"pm": 1}}, "'paper' must hold text"),
        ({"paper": 3}, "'paper' must hold text"),
    ],
)
def test_a_malformed_entry_is_refused_by_its_name(ledger, change, message):
    ledger.write_text(yaml.safe_dump([ENTRY, {**SECOND, **change}]))
    with pytest.raises(ClaimError, match=rf"entry 2 \('.*'\): .*{message}"):
        load_ledger()


def test_a_missing_part_a_double_id_and_no_list_are_refused(ledger):
    ledger.write_text(yaml.safe_dump([{k: v for k, v in ENTRY.items() if k != "why"}]))
    with pytest.raises(ClaimError, match="missing or unknown: why"):
        load_ledger()
    ledger.write_text(yaml.safe_dump([ENTRY, ENTRY]))
    with pytest.raises(ClaimError, match=r"'fake.mean' stands twice"):
        load_ledger()
    ledger.write_text("a: 1")
    with pytest.raises(ClaimError, match="must be a list"):
        load_ledger()
    ledger.write_text("- text")
    with pytest.raises(ClaimError, match="entry 1: must be a mapping"):
        load_ledger()


def test_a_report_judges_and_keeps_the_values(ledger, tmp_path):
    table = told(tmp_path, {"mean": Estimate(0.95, 0.85, 0.97)}, label="quick, changed: seeds=1")
    assert [verdict for *_, verdict in table.rows] == [Verdict.PARTLY, Verdict.NOT_TESTED]
    assert "partly: The mean" in str(table)
    assert "0.95 [0.85, 0.97]; paper 0.94 ± 0.02" in str(table)
    values = json.loads((tmp_path / "fake" / "values.json").read_text())
    assert values["label"] == "quick, changed: seeds=1"
    assert values["estimates"]["fake.mean"]["low"] == 0.85
    assert values["provenance"]["devices"][0].startswith("cpu")


def test_values_are_judged_as_a_report_judges_them_but_not_kept(ledger, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUPERPOS_RESULTS", str(tmp_path))
    values = {"mean": Estimate(0.95, 0.85, 0.97), "fake.slope": Estimate(-1, -2, -0.5)}
    table = judged("fake", values, settings_label="paper", profile="paper")
    assert [verdict for *_, verdict in table.rows] == [Verdict.PARTLY, Verdict.REPRODUCED]
    assert list(tmp_path.iterdir()) == [ledger]
    assert told(tmp_path, values, profile="paper") == table


def test_a_report_keeps_where_and_when_its_records_were_computed(ledger, tmp_path):
    store = Store(tmp_path)
    about = {"seconds": 2.0, "torch": "2", "commit": None}
    early = {**about, "device": "NVIDIA H200", "date": "2025-01-01T00:00:00+00:00"}
    late = {**about, "device": "cpu", "date": "2025-02-01T00:00:00+00:00"}
    condition = load_ledger()["fake.mean"]  # any dataclass will do
    records = [store.write("fake", 1, condition, [], origin) for origin in (late, early)]
    told(tmp_path, {}, records=records)
    assert json.loads((tmp_path / "fake" / "values.json").read_text())["provenance"] == {
        "devices": ["NVIDIA H200", "cpu"],
        "date": "2025-02-01T00:00:00+00:00",
        "seconds": 4.0,
        "commits": [],
        "torch": ["2"],
    }


@pytest.mark.parametrize(
    ("estimates", "message"),
    [
        ({"median": Estimate(1, 0, 2)}, "'fake.median' is not in the ledger; it has: fake.mean"),
        ({"mean": Estimate(float("nan"), 0, 1)}, "'fake.mean' is not finite"),
        ({"mean": Estimate(3, 0, 2)}, "interval of 'fake.mean' does not hold its value"),
        ({"fake.mean": Estimate(1, 1, 1)}, "'fake.mean' has no interval; say why"),
    ],
)
def test_values_that_do_not_fit_the_ledger_are_refused(ledger, tmp_path, estimates, message):
    with pytest.raises(ClaimError, match=message):
        told(tmp_path, estimates)
    assert not (tmp_path / "fake").exists()


def test_a_value_without_interval_passes_with_a_reason(ledger, tmp_path):
    table = told(tmp_path, {"mean": Estimate(0.95, 0.95, 0.95, "one model")})
    assert table.rows[0][2] is Verdict.REPRODUCED
    assert "one model" in table._repr_html_()


class Balance(HTMLParser):
    """Collects text and checks that every tag is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_table_is_whole_html_with_escaped_text_and_verdicts_in_words(ledger, tmp_path):
    page = told(tmp_path, {"mean": Estimate(0.95, 0.92, 0.97)})._repr_html_()
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert "The mean <b> is high." in parser.text
    assert "reproduced" in parser.text
    assert "not tested at this scale" in parser.text
    assert "background" not in page  # colors come from the page, light or dark
