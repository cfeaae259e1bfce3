"""A table of measured values: whose value it shows, and how."""

import json
import re

import pytest

from superpos.findings import findings
from superpos.ledger import ClaimError, load_ledger
from superpos.scorecard import scorecard
from superpos.settings import project_root

GROWTH = "dictionary_scaling.growth_tied"
CEILING = "calibration.overcomplete_ceiling"
LAW = "pythia.power_law_line"


def keep(root, profile, values):
    """Values of claims in a folder of results, as chapters keep them."""
    for section in {name.split(".")[0] for name in values}:
        own = {
            name: dict(zip(("value", "low", "high", "note", "stand_in"), value, strict=True))
            for name, value in values.items()
            if name.startswith(f"{section}.")
        }
        content = {
            "section": section, "profile": profile, "label": profile, "estimates": own,
            "provenance": {"devices": ["cpu"], "date": "2026-01-01"},
        }  # fmt: skip
        path = root / profile / section / "values.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def card(tmp_path):
    keep(tmp_path, "quick", {GROWTH: (0.5, 0.4, 0.6, "", ""), CEILING: (1.5, 1.5, 1.5, "top", "")})
    keep(tmp_path, "workstation", {GROWTH: (0.024, 0.0187, 0.0292, "1x to 16x", "")})
    keep(tmp_path, "paper", {LAW: (0.61, 0.6, 0.62, "", "a <small> network")})
    return scorecard({name: tmp_path / name for name in ("quick", "workstation", "paper")})


def test_the_value_is_that_of_the_largest_profile_that_holds_it(card):
    table = findings([("growth", GROWTH), ("ceiling", CEILING), ("law", LAW)], card)
    assert [row.profile for row in table.rows] == ["workstation", "quick", "paper"]
    assert [row.estimate.value for row in table.rows] == [0.024, 1.5, 0.61]


def test_text_shows_words_value_interval_note_profile_and_the_papers_value(card):
    text = str(findings([("growth of F", GROWTH)], card))
    assert text.splitlines()[0] == "growth of F: 0.024 [0.0187, 0.0292] (workstation; 1x to 16x)"
    assert text.splitlines()[1] == f"    {GROWTH}; paper: {load_ledger()[GROWTH].paper}"


def test_a_value_without_an_interval_says_why(card):
    (row,) = findings([("ceiling", CEILING)], card).rows
    assert (row.value, row.remark) == ("1.5", "quick; top")


def test_a_claim_without_a_value_says_so(card):
    table = findings([("fall", "grokking.fall_recipe")], card)
    assert table.rows[0].estimate is None
    assert "fall: no value (no profile has it)" in str(table)
    assert "no value" in table._repr_html_()


def test_a_stand_in_is_named_as_one(card):
    table = findings([("law", LAW)], card)
    assert "on a stand-in: a <small> network" in str(table)
    assert "on a stand-in: a &lt;small&gt; network" in table._repr_html_()


def test_the_page_links_to_the_chapters_page_beside_it(card):
    shown = findings([("growth & more", GROWTH), ("law", LAW)], card)._repr_html_()
    assert re.findall(r'href="([^"]*)"', shown) == ["dictionary_scaling.html", "pythia.html"]
    assert "growth &amp; more" in shown
    assert shown.count("<tr>") == 3


def test_rows_keep_their_order_and_are_found_by_their_claim(card):
    table = findings([("law", LAW), ("growth", GROWTH)], card)
    assert [row.words for row in table.rows] == ["law", "growth"]
    assert table[GROWTH].words == "growth"
    with pytest.raises(KeyError, match=CEILING):
        table[CEILING]


def test_an_unknown_claim_is_refused_with_what_is_allowed(card):
    with pytest.raises(ClaimError, match=r"'dropout\.rise' is not .*dropout\.fall_tied"):
        findings([("rise", "dropout.rise")], card)


def test_every_claim_of_the_ledger_can_be_shown_from_the_committed_values():
    card = scorecard({"workstation": project_root() / "results" / "workstation"})
    table = findings([(claim.text, claim.id) for claim in card.claims], card)
    assert len(table.rows) == len(load_ledger())
    assert {row.profile for row in table.rows} == {"workstation", ""}
