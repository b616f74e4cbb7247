"""report.html: one file that a real browser shows whole, with no request to anywhere."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from accl_harness.report import html
from accl_harness.report.table import Sheet
from PIL import Image

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PROBE = """<script>
window.addEventListener("load", () => {
  const seen = {
    cells: [...document.querySelectorAll("td")].map(cell => cell.textContent),
    widths: [...document.images].map(image => image.naturalWidth),
    requests: performance.getEntriesByType("resource")
      .map(entry => entry.name).filter(name => !name.startsWith("data:")),
    size: getComputedStyle(document.querySelector("h1")).fontSize,
  };
  document.title = "probe " + JSON.stringify(seen);
});
</script>"""


@pytest.fixture
def report(tmp_path):
    """A page with every kind of block; texts hold what HTML must escape."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    Image.fromarray(noise[:, :50]).save(tmp_path / "b.png")
    sheet = Sheet(
        ["Method", "DSC x100"], [["SCCL <b>", "57.5 ± 1.2"], ["FS CE & more", "81.2 ± 0.4"]]
    )
    blocks = [
        html.table(sheet),
        html.figure(tmp_path / "a.png", 'caption "quoted" <i>'),
        html.figure(tmp_path / "b.png", "second"),
        html.figure(None, "not drawn"),
        html.warnings(["D collapsed <script>alert(1)</script>"]),
        html.warnings([]),
        html.heading("Settings"),
        html.facts([("command", "`accl compare --out x`"), ("seeds", "0, 1")]),
        html.notes(["25 images"]),
    ]
    path = tmp_path / "report.html"
    path.write_text(html.page("Seven <methods>", "lead", blocks), encoding="utf-8")
    return path


def browse(page, profile):
    """The page's DOM after loading, by headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium found: chromium, chromium-browser or google-chrome")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={profile}",
        "--dump-dom",
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def probe(report, folder):
    """What the browser saw of a copy that reports on itself."""
    text = report.read_text(encoding="utf-8")
    policy = re.search(r"<meta http-equiv[^>]*>\n", text)[0]
    copy = folder / "probe.html"
    copy.write_text(text.replace(policy, "").replace("</body>", PROBE + "</body>"), "utf-8")
    dom = browse(copy, folder / "profile")
    title = re.search(r"<title>probe (.*?)</title>", dom, re.DOTALL)[1]
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        title = title.replace(entity, character)
    return json.loads(title)


def test_a_browser_shows_table_and_pictures_without_a_request(report, tmp_path):
    seen = probe(report, tmp_path)
    assert seen["cells"] == ["SCCL <b>", "57.5 ± 1.2", "FS CE & more", "81.2 ± 0.4"]
    assert seen["widths"] == [60, 50]
    assert seen["requests"] == []
    assert seen["size"] == "27px"


def test_the_pages_own_policy_lets_its_pictures_and_style_through(report, tmp_path):
    """A script that someone adds to the file as it is does not run."""
    changed = tmp_path / "changed.html"
    text = report.read_text(encoding="utf-8")
    changed.write_text(text.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    dom = browse(changed, tmp_path / "profile")
    assert "<title>Seven &lt;methods&gt;</title>" in dom


def test_nothing_points_outside(report):
    text = report.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href|action|data)\s*=\s*"([^"]{0,30})', text)
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    rest = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text)
    assert len(rest) < 10_000
    assert not re.search(r"https?:|//|@import|url\(", rest)
    assert "default-src 'none'" in text


def test_texts_are_escaped_and_empty_blocks_left_out(report):
    text = report.read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "D collapsed &lt;script&gt;" in text
    assert text.count('class="warning"') == 1
    assert "not drawn" not in text
    assert "<code>accl compare --out x</code>" in text
    assert "<td>SCCL &lt;b&gt;</td>" in text
    assert 'alt="caption &#34;quoted&#34; &lt;i&gt;"' in text
