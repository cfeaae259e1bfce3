"""The built book in a real Chromium, over http and as files.

`make book` comes first. Without the book, Chromium or its driver these tests are skipped with the
reason, unless the variable SUPERPOS_BROWSER is "required".
"""

import functools
import json
import os
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOOK = Path(os.environ.get("SUPERPOS_BOOK", ROOT / "_build" / "html"))
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1300,1000"),
)
SETTLED = """
    const done = arguments[arguments.length - 1];
    const images = [...document.images].map(image => image.decode().catch(() => null));
    const math = window.MathJax && MathJax.startup ? MathJax.startup.promise : null;
    Promise.all([document.fonts.ready, math, ...images]).then(() => done(true));
"""
"""Waits for fonts, images and formulas."""


def pytest_collection_modifyitems(items):
    """Mark these tests."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def _missing(reason):
    if os.environ.get("SUPERPOS_BROWSER") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def book():
    """The folder of the built book."""
    if not (BOOK / "index.html").exists():
        _missing(f"there is no built book in {BOOK}: run `make book` first")
    return BOOK


@pytest.fixture(scope="session")
def address(book):
    """Where the book is served over http."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(book)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """One browser for all tests."""
    try:
        from selenium import webdriver
    except ImportError:
        _missing("selenium is not installed: run `make install`")
    browsers = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, browsers)), None)
    driver = shutil.which("chromedriver")
    if not (browser and driver):
        _missing(
            "Chromium or its driver was not found (Debian: apt install chromium chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    running = webdriver.Chrome(options=options, service=service)
    running.set_script_timeout(60)
    yield running
    running.quit()


class Opened:
    """What a page asked for and complained about while it was loaded."""

    def __init__(self, chromium, url):
        chromium.get_log("performance"), chromium.get_log("browser")  # those of the page before
        chromium.get(url)
        chromium.execute_async_script(SETTLED)
        events = [
            json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")
        ]
        self.requested = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        self.complaints = [
            entry["message"] for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"
        ]


@pytest.fixture
def opened(chromium):
    """Open an address; every test has the window's usual size to start with."""
    chromium.set_window_size(1300, 1000)
    return lambda url: Opened(chromium, url)
