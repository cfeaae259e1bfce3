"""Every page of the book, as a reader's browser shows it."""

import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONTENTS = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [CONTENTS["root"], *(o["file"] for p in CONTENTS["parts"] for o in p["chapters"])]
LARGEST = 3_000_000  # bytes of a page with its images
PHONE, DESK = (390, 844), (1300, 1000)  # pixels

every_page = pytest.mark.parametrize("page", PAGES)


@pytest.mark.parametrize("way", ["http", "file"])
@every_page
def test_a_page_asks_for_nothing_outside_the_book_and_complains_about_nothing(
    page, way, opened, address, book
):
    root = address if way == "http" else f"file://{book}/"
    found = opened(f"{root}{page}.html")
    outside = [url for url in found.requested if not url.startswith((root, "data:", "blob:"))]
    assert found.requested and not outside
    assert not found.complaints


@every_page
def test_every_formula_is_typeset(page, opened, address, chromium):
    opened(f"{address}{page}.html")
    formulas, typeset, wrong = chromium.execute_script("""
        const formulas = [...document.querySelectorAll('.math')];
        return [formulas.length, formulas.filter(f => f.querySelector('mjx-container')).length,
                document.querySelectorAll('mjx-merror, [data-mjx-error]').length];
    """)
    assert (typeset, wrong) == (formulas, 0)


@every_page
def test_every_figure_has_a_text_and_a_size(page, opened, address, chromium):
    opened(f"{address}{page}.html")
    images = chromium.execute_script("""
        return [...document.querySelectorAll('article img')].map(image => ({
            alt: image.alt, size: image.naturalWidth * image.naturalHeight,
            shown: image.offsetWidth * image.offsetHeight,
            hidden: getComputedStyle(image).display == 'none'}));
    """)
    for image in images:
        assert len(image["alt"].split()) > 2, image
        assert image["size"] > 1000
        assert image["hidden"] or image["shown"] > 1000


@pytest.mark.parametrize("window", [PHONE, DESK], ids=["phone", "desk"])
@every_page
def test_a_page_fits_its_window_without_sideways_scrolling(page, window, opened, address, chromium):
    opened(f"{address}{page}.html")
    size = {"width": window[0], "height": window[1]}
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {**size, "deviceScaleFactor": 1, "mobile": window == PHONE},
    )
    try:
        wide = chromium.execute_script("""
            const room = document.documentElement.clientWidth;
            return [room, document.documentElement.scrollWidth];
        """)
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide[0] == window[0]
    assert wide[1] <= wide[0]


@every_page
def test_figures_stay_on_white_in_dark_mode(page, opened, address, chromium):
    opened(f"{address}{page}.html")
    page_color, images = chromium.execute_script("""
        document.documentElement.dataset.theme = 'dark';
        const color = element => getComputedStyle(element).backgroundColor;
        return [color(document.body), [...document.querySelectorAll('article img')].map(color)];
    """)
    assert page_color != "rgb(255, 255, 255)"
    assert set(images) <= {"rgb(255, 255, 255)"}


CONTRASTS = """
    document.documentElement.dataset.theme = arguments[0];
    const numbers = color => color.match(/[\\d.]+/g).map(Number);
    const light = color => numbers(color).slice(0, 3)
        .map(c => c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = element => {
        for (; element; element = element.parentElement) {
            const color = getComputedStyle(element).backgroundColor;
            if (numbers(color)[3] !== 0) return color;
        }
        return "rgb(255, 255, 255)";
    };
    return [...document.querySelectorAll('article p, article td, article pre')].map(element => {
        const pair = [light(getComputedStyle(element).color), light(ground(element))];
        return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), element.textContent];
    });
"""
"""The contrast of every text with what is under it, by the formula of WCAG 2."""


@pytest.mark.parametrize("theme", ["light", "dark"])
@every_page
def test_every_text_stands_out_from_its_ground(page, theme, opened, address, chromium):
    opened(f"{address}{page}.html")
    found = chromium.execute_script(CONTRASTS, theme)
    assert found
    assert not [(round(ratio, 1), text[:40]) for ratio, text in found if ratio < 4.5]


@every_page
def test_every_slider_changes_its_figure_on_a_key_press(page, opened, address, chromium):
    opened(f"{address}{page}.html")
    sliders = chromium.find_elements("css selector", "article input[type=range]")
    for slider in sliders:
        figure = slider.find_element("xpath", "ancestor::figure")
        before = _shown(chromium, figure)
        at_end = int(slider.get_attribute("value")) >= int(slider.get_attribute("max"))
        slider.send_keys("\ue012" if at_end else "\ue014")  # left, right
        assert len(before) == 1
        assert _shown(chromium, figure) != before


@every_page
def test_on_paper_a_slider_is_gone_and_one_image_stays(page, opened, address, chromium):
    opened(f"{address}{page}.html")
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        figures = [
            (figure.find_element("css selector", "input").is_displayed(), _shown(chromium, figure))
            for figure in chromium.find_elements("css selector", "article figure:has(input)")
        ]
    finally:
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert all(not slider and len(images) == 1 for slider, images in figures)


@pytest.mark.parametrize("page", [page for page in PAGES if "/executed/" in page])
def test_a_chapter_has_a_figure_that_moves(page, opened, address, chromium):
    opened(f"{address}{page}.html")
    assert chromium.find_elements("css selector", "article figure input[type=range]")


@every_page
def test_under_every_figure_of_a_chapter_stands_where_its_numbers_are_from(
    page, opened, address, chromium
):
    opened(f"{address}{page}.html")
    for figure in chromium.find_elements("css selector", "article figure"):
        (source,) = figure.find_elements("css selector", "figcaption .source")
        links = source.find_elements("css selector", "a")
        words = source.text
        assert len(words.removesuffix("Data (CSV)").split()) > 3
        if words.startswith("Experiment"):
            targets = [link.get_attribute("href") for link in links]
            assert any("/source/superpos/experiments/" in target for target in targets)
            assert any("/records/" in target for target in targets)
        assert any(link.get_attribute("download") for link in links)


def _shown(chromium, figure):
    """Sources of a figure's visible images."""
    return chromium.execute_script(
        "return [...arguments[0].querySelectorAll('img')]"
        ".filter(i => getComputedStyle(i).display != 'none').map(i => i.src)",
        figure,
    )


@every_page
def test_a_page_is_no_larger_than_a_reader_would_wait_for(page, book):
    folder = book / "figures"
    images = folder.glob(f"{Path(page).name}-*.png")
    assert sum(file.stat().st_size for file in [book / f"{page}.html", *images]) <= LARGEST


def test_search_finds_the_superposition_ratio(opened, address, chromium):
    opened(f"{address}search.html?q=superposition+ratio")
    for _ in range(200):
        found = chromium.execute_script(
            "return [...document.querySelectorAll('#search-results li a')].map(a => a.href)"
        )
        if any("/measure" in address for address in found):
            return
        time.sleep(0.1)
    raise AssertionError(f"the page on the measure is not among {found}")


def test_the_book_has_formulas_figures_and_sliders_to_test(opened, address, chromium):
    counts = dict.fromkeys((".math", "article img", "article input[type=range]"), 0)
    for page in PAGES:
        opened(f"{address}{page}.html")
        for selector in counts:
            counts[selector] += len(chromium.find_elements("css selector", selector))
    assert counts[".math"] > 200
    assert counts["article img"] > 40
    assert counts["article input[type=range]"] >= 15
