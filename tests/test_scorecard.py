from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from superpos.claims import report
from superpos.ledger import ClaimError, Estimate, Verdict, load_ledger
from superpos.scorecard import scorecard
from superpos.settings import PROFILES


def entry(name, region, profile="quick"):
    return {
        "id": name,
        "section": name.split(".")[0],
        "text": "The mean <b> is high.",
        "source": "section 1",
        "paper": {"value": 0.94},
        "region": region,
        "profile": profile,
        "why": "It is the rule.",
    }


MEAN = entry("fake.mean", {"low": 0.9})
SLOPE = entry("fake.slope", {"high": 0}, "workstation")
SIZE = entry("other_things.size", {"low": 0, "high": 10})
GOOD, BAD = Estimate(0.95, 0.92, 0.97), Estimate(0.5, 0.4, 0.6)
FALLING = Estimate(-1, -2, -0.5)


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Makes entries the ledger."""

    def write(*entries):
        path = tmp_path / "claims.yaml"
        path.write_text(yaml.safe_dump(entries))
        monkeypatch.setattr(load_ledger, "__defaults__", (path,))

    return write


def told(root, estimates, section="fake", profile="quick"):
    report(section, estimates, settings_label=profile, profile=profile, store_root=root)


def test_the_largest_profile_that_tested_a_claim_decides(listed, tmp_path):
    listed(MEAN, SLOPE)
    roots = {profile: tmp_path / profile for profile in PROFILES}
    told(roots["quick"], {"mean": BAD, "slope": FALLING})
    told(roots["workstation"], {"mean": GOOD, "slope": BAD}, profile="workstation")
    card = scorecard(roots)
    mean, slope = card.claims
    assert card.profiles == ["quick", "workstation"]
    assert card.verdict(mean, "quick") is Verdict.NOT_REPRODUCED
    assert card.standing(mean) is Verdict.REPRODUCED
    assert card.verdict(slope, "quick") is Verdict.NOT_TESTED
    assert card.standing(slope) is Verdict.NOT_REPRODUCED
    assert card.summary_lines() == [
        "✔ 1 of 2 claims reproduced",
        "◐ 0 of 2 claims partly",
        "✘ 1 of 2 claims not reproduced",
        "≈ 0 of 2 claims tested on a stand-in",
        "– 0 of 2 claims not tested at this scale",
        "not reproduced: fake.slope",
    ]
    content = json.loads(card.to_json())
    assert content["counts"]["reproduced"] == 1
    assert content["claims"][0]["runs"]["quick"]["verdict"] == "not reproduced"
    assert content["claims"][0]["runs"]["workstation"]["estimate"]["value"] == 0.95


def test_without_any_values_all_claims_are_untested(listed, tmp_path):
    listed(MEAN, SLOPE)
    card = scorecard({"quick": tmp_path})
    assert card.counts()[Verdict.NOT_TESTED] == 2
    assert "fake.mean" in card._repr_html_()


class Rows(HTMLParser):
    """Collects the cells of every row: tag, columns it spans, text; checks that tags are closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.rows = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "br":
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append((tag, int(dict(attributes).get("colspan", 1)), ""))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"th", "td"} & set(self.open):
            tag, columns, text = self.rows[-1][-1]
            self.rows[-1][-1] = tag, columns, text + data


def test_the_table_is_whole_html_with_escaped_text_and_verdicts_in_words(listed, tmp_path):
    listed(MEAN, SLOPE)
    told(tmp_path, {"mean": GOOD})
    page = scorecard({"quick": tmp_path})._repr_html_()
    table = Rows(page)
    assert table.open == []
    head, _, mean, slope = ([text for *_, text in row] for row in table.rows)
    assert head == ["Claim", "Paper", "quick"]
    assert mean[0].startswith("The mean <b> is high.")
    assert "reproduced0.95 [0.92, 0.97]quick; cpu" in mean[2]
    assert slope[2].endswith("not tested at this scale")
    assert "background" not in page  # colors come from the page, light or dark


def test_the_table_has_a_row_above_each_section_with_its_name_and_counts(listed, tmp_path):
    listed(SIZE, MEAN, {**SIZE, "id": "other_things.age"}, SLOPE, {**MEAN, "id": "fake.median"})
    roots = {profile: tmp_path / profile for profile in ("quick", "workstation")}
    told(roots["quick"], {"mean": BAD, "median": GOOD})
    told(roots["workstation"], {"mean": GOOD, "slope": BAD}, profile="workstation")
    told(roots["quick"], {"size": Estimate(9, 8, 11)}, "other_things")
    rows = Rows(scorecard(roots)._repr_html_()).rows[1:]
    assert all(sum(columns for _, columns, _ in row) == 4 for row in rows)
    assert [(row[0][0], row[0][2].removeprefix("The mean <b> is high.")) for row in rows] == [
        ("th", "Other things: 1 partly, 1 not tested at this scale"),
        ("td", "other_things.size, section 1"),
        ("td", "other_things.age, section 1"),
        ("th", "Fake: 2 reproduced, 1 not reproduced"),  # by their standing, not per profile
        ("td", "fake.mean, section 1"),
        ("td", "fake.slope, section 1"),
        ("td", "fake.median, section 1"),
    ]


def test_damaged_misplaced_or_outdated_values_are_refused_by_name(listed, tmp_path):
    listed(MEAN, SLOPE)
    told(tmp_path, {"mean": GOOD})
    with pytest.raises(ClaimError, match="reported under 'quick', not 'paper'"):
        scorecard({"paper": tmp_path})
    path = Path(tmp_path / "fake" / "values.json")
    whole = path.read_text()
    path.write_text(whole.replace("fake.mean", "fake.gone"))
    with pytest.raises(ClaimError, match=r"values.json: 'fake.gone' is not in the ledger"):
        scorecard({"quick": tmp_path})
    for damage in (whole[:50], "[]", "{}", whole.replace('"low": 0.92', '"low": "x"')):
        path.write_text(damage)
        with pytest.raises(ClaimError, match=r"values.json is damaged"):
            scorecard({"quick": tmp_path})


def test_a_stand_in_has_a_standing_of_its_own_and_says_what_came_out(listed, tmp_path):
    listed(MEAN, SLOPE)
    estimates = {"mean": GOOD._replace(stand_in="a toy"), "slope": BAD._replace(stand_in="a toy")}
    told(tmp_path, estimates, profile="workstation")
    card = scorecard({"workstation": tmp_path})
    assert {card.standing(claim) for claim in card.claims} == {Verdict.STAND_IN}
    assert card.counts()[Verdict.REPRODUCED] == card.counts()[Verdict.NOT_REPRODUCED] == 0
    page = card._repr_html_()
    assert "a toy: agrees" in page and "a toy: disagrees" in page
    assert "≈ 2 of 2 claims tested on a stand-in" in str(card)


def test_values_written_before_there_were_stand_ins_are_read(listed, tmp_path):
    listed(MEAN)
    told(tmp_path, {"mean": GOOD})
    path = tmp_path / "fake" / "values.json"
    content = json.loads(path.read_text())
    del content["estimates"]["fake.mean"]["stand_in"]
    path.write_text(json.dumps(content))
    card = scorecard({"quick": tmp_path})
    assert card.standing(card.claims[0]) is Verdict.REPRODUCED
