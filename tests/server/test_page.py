"""The page in a real browser: upload, stream, errors, screens; and that nothing a model writes becomes markup."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from insightv import Completion, Reasoner
from insightv.testing import ScriptedModel, sample_picture
from tests.browser import Browser, Page, needs_browser
from tests.server.serving import Served
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import wait_for

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
THOUGHTS = f"<thoughts>\n### Look {HOSTILE}\nB ends at 7. {HOSTILE}\n### Compare\nSo the answer is B.\n</thoughts>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def upload(page: Page, folder: Path) -> None:
    file = folder / "chart.png"
    file.write_bytes(sample_picture((20, 50, 35)).data)
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])
    page.wait("!document.querySelector('#preview').hidden && document.querySelector('#preview').naturalWidth === 64")


def ask(page: Page, text: str) -> None:
    page.click("#question")
    page.type(text)
    page.click("#send")


def shown(page: Page, selector: str) -> str:
    return str(page.run(f"document.querySelector('{selector}').innerText"))


@needs_browser
def test_a_question_is_answered_step_by_step_and_markup_stays_text(browser: Browser, tmp_path: Path) -> None:
    model = ScriptedModel([THOUGHTS, f"B {HOSTILE}"])
    with Served(lambda: Reasoner.of(model)) as served:
        page = browser.open(served.url)
        upload(page, tmp_path)
        ask(page, "Which bar is tallest?")
        page.wait("document.querySelector('#figures').innerText.includes('written')")
        assert page.run("[...document.querySelectorAll('#steps h3')].map(h => h.innerText)") == [
            f"Look {HOSTILE}",
            "Compare",
        ]
        assert shown(page, "#text") == f"B {HOSTILE}"
        assert shown(page, "#steps li:last-child p") == "So the answer is B."
        assert page.run("document.querySelectorAll('#result img, #result script').length") == 0
        assert page.run("document.title") == "insightv"
        assert page.run("document.querySelector('#send').disabled") is False
        assert page.complaints == []
        assert all(url.startswith((served.url, "data:")) for url in page.requests)
    sent = model.asked[0].messages[1].parts
    assert [getattr(part, "width", part) for part in sent] == [64, "Which bar is tallest?"]


@needs_browser
def test_steps_appear_before_the_answer_and_stop_ends_the_engines_work(browser: Browser) -> None:
    with (
        FakeServer(Settings(piece_s=0.05)) as fake,
        Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url)) as served,
    ):
        page = browser.open(served.url)
        ask(page, "What is 3 + 4? [truth=7] [steps=30]")
        page.wait("document.querySelectorAll('#steps li').length >= 2")
        assert page.run("document.querySelector('#answer').hidden") is True
        assert page.run("document.querySelectorAll('#steps li.now').length") == 1
        page.click("#stop")
        page.wait("document.querySelector('#figures').innerText === 'Stopped.'")
        wait_for(lambda: [entry["gone"] for entry in fake.log()] == [True])
        assert page.run("document.querySelector('#send').disabled") is False


@needs_browser
def test_a_path_that_was_cut_is_told_and_answered(browser: Browser) -> None:
    cut = Completion(text="<thoughts>\n### Look\nB ends at 7.\n### Compare\nSo th", finish="length")
    with Served(lambda: Reasoner.of(ScriptedModel([cut, "B"]))) as served:
        page = browser.open(served.url)
        ask(page, "Which bar is tallest?")
        page.wait("document.querySelector('#figures').innerText.includes('written')")
        assert shown(page, "#ended") == "The reasoning did not end well: it reached the limit of tokens."
        assert shown(page, "#text") == "B"
        assert page.run("document.querySelector('#verdict').hidden") is True
        assert page.run("document.querySelector('#status').hidden") is True


@needs_browser
def test_a_picture_can_be_taken_back_and_the_keyboard_asks(browser: Browser, tmp_path: Path) -> None:
    model = ScriptedModel([THOUGHTS, "C"])
    with Served(lambda: Reasoner.of(model)) as served:
        page = browser.open(served.url)
        upload(page, tmp_path)
        page.click("#remove")
        assert page.run("document.querySelector('#preview').hidden") is True
        page.click("#question")
        page.type("Which bar is tallest?")
        page.run("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', ctrlKey: true}))")
        page.wait("document.querySelector('#verdict').innerText.includes('Overrules')")
        assert page.complaints == []
    assert model.asked[0].messages[1].parts == ("Which bar is tallest?",)


@needs_browser
def test_errors_are_told(browser: Browser) -> None:
    refusing = ScriptedModel([THOUGHTS, *[Completion(text="", finish="stop")] * 3])
    with Served(lambda: Reasoner.of(refusing), max_text=100) as served:
        page = browser.open(served.url)
        ask(page, "long " * 30)
        page.wait("document.querySelector('#error').innerText.includes('the limit is 100')")
        page.run("document.querySelector('#question').value = ''")
        ask(page, "Which bar is tallest?")
        page.wait("document.querySelector('#error').innerText.includes('no answer that can be used')")
        assert shown(page, "#steps").startswith("Look")


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (360, False), (360, True)])
def test_it_fits_the_screen_and_can_be_read(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    with Served(lambda: Reasoner.of(ScriptedModel([THOUGHTS, "B"]))) as served:
        page = browser.open(served.url, width=width, height=800, dark=dark)
        upload(page, tmp_path)
        ask(page, "Which bar is tallest?")
        page.wait("document.querySelector('#figures').innerText.includes('written')")
        assert page.run("document.documentElement.scrollWidth") <= width
        ground = page.run("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)[0]")
        assert (ground < 60) is dark
        for selector in ("#steps p", "#steps h3", "#text", "#verdict", "#figures", "h2", ".name", "#send"):
            assert page.run(f"({CONTRAST})(document.querySelector('{selector}'))") >= 4.5, selector


CONTRAST = """function (element) {
  const light = (rgb) => {
    const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = rgb.match(/[0-9.]+/g).map((v) => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  let under = element;
  while (getComputedStyle(under).backgroundColor === 'rgba(0, 0, 0, 0)') under = under.parentElement;
  const [a, b] = [light(getComputedStyle(element).color), light(getComputedStyle(under).backgroundColor)];
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
}"""


def test_the_page_forbids_everything_it_does_not_need() -> None:
    with Served(lambda: Reasoner.of(ScriptedModel([]))) as served:
        reply = served.request("GET", "/")
        policy = str(reply.getheader("Content-Security-Policy"))
        kinds = [served.request("GET", path).getheader("Content-Type") for path in ("/page.js", "/page.css")]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert reply.getheader("X-Content-Type-Options") == "nosniff"
    assert [str(kind).partition(";")[0] for kind in kinds] == ["text/javascript", "text/css"]
    assert "innerHTML" not in (Path(__file__).parents[2] / "insightv/server/page/page.js").read_text(encoding="utf-8")
