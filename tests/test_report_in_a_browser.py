"""The page of `modelbuild report` in a real browser: Debian's Chromium, headless."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import Tiny
from report_workspace import EVIL

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

Open = Callable[..., "Page"]

# Of every element with text of its own, the worst contrast against what is painted behind it.
CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = parse(getComputedStyle(element).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  let worst = [99, ""];
  for (const element of document.body.querySelectorAll("*:not(script):not(.skip)")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || element.closest("script") || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const ink = element instanceof SVGElement && style.fill !== "none" ? style.fill : style.color;
    const [a, b] = [light(parse(ink)), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, element.outerHTML.slice(0, 120)];
  }
  return worst;
}"""


@pytest.fixture(scope="module")
def written(reported: Tiny) -> Path:
    assert reported.run("report", "-o", "seen.html").code == 0
    return reported.root / "seen.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root, nor in many containers.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, written: Path) -> Iterator[Open]:
    """Opens the page; fails where it says, asks for or does anything that it should not."""
    wrong: list[str] = []
    contexts = []

    def open_it(width: int = 1280, height: int = 900, **options: object) -> Page:
        viewport = {"width": width, "height": height}
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
        address = written.as_uri()
        page.on(
            "request",
            lambda asked: None if asked.url.split("#")[0] == address else wrong.append(asked.url),
        )
        page.goto(address)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert wrong == []


def chosen(page: Page) -> str:
    """What has the focus: where it leads, or its text."""
    return page.evaluate(
        "() => document.activeElement.getAttribute('href') ?? document.activeElement.tagName"
    )


def test_charts_and_lineage_are_drawn(open_page: Open):
    page = open_page()
    assert page.locator(".chart").count() == 5
    page.wait_for_function(
        "() => [...document.querySelectorAll('.plot')].every((each) => each.querySelector('svg'))"
    )
    assert page.locator(".lineage path[data-from]").count() == 10
    boxes = [each.bounding_box() for each in page.locator("a.node").all()]
    for place, one in enumerate(boxes):
        for other in boxes[place + 1 :]:
            apart = (
                one["x"] + one["width"] <= other["x"]
                or other["x"] + other["width"] <= one["x"]
                or one["y"] + one["height"] <= other["y"]
                or other["y"] + other["height"] <= one["y"]
            )
            assert apart, (one, other)


def test_every_node_is_reached_and_opened_by_keyboard(open_page: Open):
    page = open_page()
    nodes = {each.get_attribute("href") for each in page.locator("a.node").all()}
    reached: set[str] = set()
    page.keyboard.press("Tab")
    assert chosen(page) == "#content"
    for _ in range(60):
        page.keyboard.press("Tab")
        link = chosen(page)
        if link not in nodes or link in reached:
            continue
        reached.add(link)
        page.keyboard.press("Enter")
        page.wait_for_function("(id) => document.getElementById(id).open", arg=link[1:])
        assert chosen(page) == "SUMMARY"
        assert page.locator(".details details[open]").count() == 1
        assert page.locator("a.node[aria-current]").get_attribute("href") == link
        page.keyboard.press("Escape")
        assert chosen(page) == link
    assert reached == nodes


def test_a_node_that_is_clicked_twice_opens_again(open_page: Open):
    page = open_page()
    node = page.locator("a.node.stage").first
    details = page.locator(f'[id="{node.get_attribute("href")[1:]}"]')
    node.click()
    page.wait_for_function("() => document.querySelector('.details details[open]')")
    details.locator("summary").click()
    assert details.get_attribute("open") is None
    node.click()
    assert details.get_attribute("open") is not None


def test_a_link_to_a_node_opens_it(open_page: Open):
    page = open_page()
    link = page.locator("a.node.output").last.get_attribute("href")
    page.goto(f"{page.url}{link}")
    page.reload()
    assert page.locator(".details details[open]").get_attribute("id") == link[1:]


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_only_wide_things_scroll_never_the_page(open_page: Open, width: int):
    page = open_page(width=width)
    page.evaluate("() => document.querySelectorAll('details').forEach((each) => each.open = true)")
    page.wait_for_timeout(100)
    assert page.evaluate("() => document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_in_the_dark(open_page: Open, scheme: str):
    page = open_page(color_scheme=scheme)
    page.locator("a.node.stage").first.click()
    page.evaluate("() => document.querySelectorAll('details').forEach((each) => each.open = true)")
    page.wait_for_timeout(100)
    paper = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 19, 24)"}[scheme]
    ratio, where = page.evaluate(CONTRAST)
    assert ratio >= 4.5, where


def test_in_print_everything_is_open_and_on_white(open_page: Open):
    page = open_page(color_scheme="dark")
    inside = page.locator(".details dd", has_text="path numbers.txt")
    assert not inside.is_visible()
    page.emulate_media(media="print", color_scheme="dark")
    assert inside.evaluate("(each) => each.checkVisibility()")
    paper = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    assert page.pdf(format="A4").startswith(b"%PDF-")


def test_without_javascript_all_of_it_can_be_read(open_page: Open):
    page = open_page(java_script_enabled=False)
    node = page.locator("a.node.stage").first
    assert node.is_visible()
    assert page.locator(".lineage svg").count() == 0
    summary = page.locator("figure summary").first
    summary.click()
    assert page.locator("figure table").first.is_visible()


def test_a_chart_tells_the_point_that_is_pointed_at_as_text(open_page: Open):
    page = open_page()
    chart = page.locator(".chart").first.locator("svg").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = chart.locator("[aria-label=tip] text")
    tip.wait_for()
    assert "step" in tip.text_content()
    assert page.locator("img").count() == 0
    assert EVIL in page.locator("body").text_content()


def test_a_curve_can_be_drawn_on_a_logarithmic_scale(open_page: Open):
    page = open_page()
    figure = page.locator(".chart", has_text="loss over step").first
    before = figure.locator("svg path").last.get_attribute("d")
    figure.get_by_label("logarithmic").check()
    assert figure.locator("svg path").last.get_attribute("d") != before


def test_who_wants_no_motion_gets_none(open_page: Open):
    page = open_page(reduced_motion="reduce")
    page.locator("a.node.stage").first.click()
    assert page.evaluate("() => document.getAnimations().length") == 0
