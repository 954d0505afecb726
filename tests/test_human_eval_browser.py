"""The pages in a real browser: answers by keyboard and mouse, kept over a reload, downloaded, nothing fetched."""

import json
import shutil
import time

import pytest

from pess_hf.human_eval import ASPECTS, ReplyPair, write_pages
from pess_hf.human_eval_scores import read_judgements

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no browser: apt-get install chromium chromium-driver"
)
FLAGS = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync disable-dev-shm-usage"
)
EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"user-data-dir={tmp_path / 'profile'}"]:
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def wait_for(path, seconds=20):
    end = time.monotonic() + seconds
    while not path.is_file() and time.monotonic() < end:
        time.sleep(0.1)
    assert path.is_file(), "the download did not arrive"
    return json.loads(path.read_text())


def test_a_rater_answers_leaves_comes_back_and_downloads(browser, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    talk = [{"speaker": "seeker", "text": f"I lost my job. {EVIL}"}]
    pairs = [ReplyPair(f"d/{n}", 1, talk, f"A{n} {EVIL}", f"B{n}") for n in range(2)]
    page, other = write_pages(tmp_path / "study", pairs, {"a": "x", "b": "y"}, raters=2, seed=0)
    browser.get(page.as_uri())
    assert browser.title == "Which reply is better?", "no text of a reply is run"
    assert EVIL in browser.find_element(By.CSS_SELECTOR, ".talk p").text

    # The first question by keyboard alone: "next open question", then the arrow to the second choice.
    browser.find_element(By.ID, "next").send_keys(Keys.ENTER)
    focused = browser.switch_to.active_element
    assert focused.get_attribute("type") == "radio"
    focused.send_keys(Keys.ARROW_RIGHT)
    # Then the first item's other questions by mouse.
    first = browser.find_element(By.CSS_SELECTOR, ".item")
    for question in first.find_elements(By.TAG_NAME, "fieldset")[1:]:
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", question)
        question.find_element(By.CSS_SELECTOR, "input[value=tie]").click()
    assert browser.find_element(By.ID, "count").text == "5 of 10 questions answered"
    assert "answered" in first.get_attribute("class")

    browser.refresh()
    assert browser.find_element(By.ID, "count").text == "5 of 10 questions answered"
    chosen = browser.find_elements(By.CSS_SELECTOR, "input:checked")
    assert [box.get_attribute("value") for box in chosen] == ["right", *["tie"] * 4]

    browser.execute_script("window.scrollTo(0, 0)")
    browser.find_element(By.ID, "download").click()
    given = wait_for(tmp_path / "downloads" / "answers_rater_1.json")
    [(item, said)] = given["answers"].items()
    assert said == {name: "right" if name == "fluency" else "tie" for name in ASPECTS}
    key = tmp_path / "study" / "key" / "key.json"
    left = json.loads(key.read_text())["left"]["rater_1"][item]
    judgements = read_judgements(key, [tmp_path / "downloads" / "answers_rater_1.json"])
    assert judgements["fluency"][item] == {"rater_1": "b" if left == "a" else "a"}

    # Another rater at the same browser starts with nothing answered.
    browser.get(other.as_uri())
    assert browser.find_element(By.ID, "count").text == "0 of 10 questions answered"
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
