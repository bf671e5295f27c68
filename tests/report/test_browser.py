"""The page in a real browser: it shows all images, loads nothing from elsewhere, and has no errors."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from atss.report import write_report
from tests.report.runs import whole_run

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

# The first script in a copy of the page: collects errors, and writes them into the page once it is loaded.
SCRIPT = """
<script>
const problems = [];
addEventListener("error", event => problems.push(String(event.message || event.target.outerHTML)), true);
addEventListener("unhandledrejection", event => problems.push(String(event.reason)));
addEventListener("securitypolicyviolation", event => problems.push("refused: " + event.blockedURI));
addEventListener("load", () => {
  const images = [...document.images];
  const found = {
    title: document.title,
    problems,
    images: images.length,
    empty: images.filter(image => !(image.complete && image.naturalWidth > 0)).map(image => image.alt),
    dark: images.filter(image => image.currentSrc !== image.src).length,
    requests: performance.getEntriesByType("resource").map(e => e.name).filter(name => !name.startsWith("data:")),
    overflow: document.documentElement.scrollWidth - innerWidth,
    policy: document.querySelector("meta[http-equiv]").content,
  };
  const place = document.createElement("pre");
  place.id = "found";
  place.textContent = JSON.stringify(found);
  document.body.append(place);
});
</script>
"""


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip(f"there is no browser to open the page with: {', '.join(BROWSERS)}")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Path(write_report(whole_run(tmp_path_factory.mktemp("page")))).read_text(encoding="utf-8")


@pytest.fixture
def opened(browser, page, tmp_path):
    """Function: HTML to append to the page, browser flags -> what the script found, and the console's lines."""

    def open_page(more="", *flags):
        text = page.replace(POLICY, POLICY + "; script-src 'unsafe-inline'", 1)
        text = text.replace("<title>", SCRIPT + "<title>", 1).replace("</body>", more + "</body>", 1)
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path}/profile", "--enable-logging=stderr", "--virtual-time-budget=10000",
            "--window-size=1280,1000", *flags, "--dump-dom", (tmp_path / "page.html").as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
        (found,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return json.loads(html.unescape(found)), console

    return open_page


def test_all_images_are_shown_and_nothing_is_loaded(opened):
    found, console = opened()

    assert found["title"] == "run: report"
    assert found["images"] > 40 and found["empty"] == []
    assert found["problems"] == [] and console == []
    assert found["requests"] == []
    assert POLICY in found["policy"]


def test_dark_pages_have_dark_charts_and_narrow_pages_fit(opened):
    """A window of this browser is at least 500 pixels wide."""
    found, _ = opened("", "--blink-settings=preferredColorScheme=0", "--window-size=500,900")

    assert found["dark"] >= 14 and found["empty"] == [] and found["overflow"] <= 0


def test_the_script_reports_errors(opened):
    """A broken image, one from elsewhere, an error in a script."""
    found, console = opened(
        '<img src="data:image/png;base64,AAAA" alt="none"><img src="https://example.org/x.png" alt="outside">'
        "<script>nothing.here()</script>"
    )

    assert set(found["empty"]) == {"none", "outside"}
    assert any("nothing is not defined" in problem for problem in found["problems"])
    assert any("refused: https://example.org" in problem for problem in found["problems"]) and console
