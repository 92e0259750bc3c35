"""The page in a real browser: uploads, the camera, keys, and what it must never run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fer_ray.bundle.load import find_bundle, load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.serve.app import Surroundings, build_app
from fer_ray.serve.classifier import Classifier, Slot
from fer_ray.serve.detection import FaceFinder
from fer_ray.serve.keys import KeyBook, add_key
from fer_ray.serve.limits import Limits
from tests.photos import encoded, photo
from tests.serving import expected_scores, faces, listening

CHROMIUM = Path("/usr/bin/chromium")
CAMERA = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(load_bundle(find_bundle(None)), "fp32")


@pytest.fixture(scope="module")
def slot(predictor: Predictor) -> Iterator[Slot]:
    classifier = Classifier(predictor, num_threads=1)
    yield Slot(classifier)
    classifier.close()


@pytest.fixture(scope="module")
def url(slot: Slot) -> Iterator[str]:
    with listening(build_app(slot)) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", *CAMERA]
        )
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page that fails its test on any error or request to elsewhere."""
    context = browser.new_context(permissions=["camera"], viewport={"width": 900, "height": 900})
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    hosts: set[str] = set()
    opened.on("request", lambda request: hosts.add(request.url.split("/")[2].split(":")[0]))
    yield opened
    context.close()
    assert hosts <= {"127.0.0.1", ""}
    ignored = "Failed to load resource"  # Chromium's line for the 4xx that a test asks for
    assert [fault for fault in faults if ignored not in fault] == []


def upload(name: str, data: bytes) -> Any:
    return {"name": name, "mimeType": "image/jpeg", "buffer": data}


def test_several_uploads_and_their_bars(page: Page, url: str, predictor: Predictor) -> None:
    files = faces(3, "JPEG")
    page.goto(url)
    page.set_input_files(
        "#files", [upload(f"face {index}.jpg", file) for index, file in enumerate(files)]
    )
    cards = page.locator("#results > li")
    expect(cards).to_have_count(3)
    expect(page.locator("#results .latency")).to_have_count(3)
    for index, file in enumerate(files):
        card = cards.filter(has_text=f"face {index}.jpg")
        scores = expected_scores(predictor, file)
        best = max(scores, key=lambda name: scores[name])
        rows = card.locator("tr")
        expect(rows).to_have_count(7)
        expect(rows.first).to_contain_text(best)
        shown = float(str(rows.first.locator("meter").get_attribute("value")))
        assert shown == pytest.approx(scores[best], abs=1e-5)
        unsure = scores[best] < predictor.bundle.contents.calibration.threshold
        expect(card.locator(".unsure")).to_have_count(int(unsure))
        assert f"--data-binary @'face {index}.jpg'" in str(card.locator("pre").text_content())
    expect(page.locator("#status")).to_contain_text("%")  # read out by screen readers


def test_a_file_name_made_of_html_stays_text(page: Page, url: str) -> None:
    name = "<img src=x onerror=document.title='hacked'>'.jpg"
    page.goto(url)
    page.set_input_files("#files", [upload(name, faces(1, "JPEG")[0])])
    expect(page.locator("#results h3")).to_have_text(name)
    expect(page.locator("#results .latency")).to_have_count(1)
    assert page.locator("#results img").count() == 1
    assert "hacked" not in page.title()
    assert r"'\''" in str(page.locator("pre").text_content())


def test_a_refused_image_says_why(page: Page, url: str) -> None:
    page.goto(url)
    page.set_input_files("#files", [upload("x.jpg", b"not an image")])
    expect(page.locator(".bad")).to_contain_text("The image cannot be decoded")


def test_dropping_and_pasting(page: Page, url: str) -> None:
    page.goto(url)
    for event in ("drop", "paste"):
        page.evaluate(
            """([event, bytes]) => {
              const transfer = new DataTransfer();
              const data = new Uint8Array(bytes);
              transfer.items.add(new File([data], event + ".jpg", {type: "image/jpeg"}));
              dispatchEvent(event === "drop"
                ? new DragEvent("drop", {dataTransfer: transfer, cancelable: true})
                : new ClipboardEvent("paste", {clipboardData: transfer}));
            }""",
            [event, list(faces(1, "JPEG")[0])],
        )
        card = page.locator("#results > li").filter(has_text=f"{event}.jpg")
        expect(card.locator(".latency")).to_have_count(1)


def test_the_camera(page: Page, url: str) -> None:
    page.goto(url)
    page.click("#open-camera")
    expect(page.locator("#shoot")).to_be_focused()
    expect(page.locator("video")).to_have_js_property("readyState", 4)  # it shows pictures
    page.keyboard.press("Enter")
    card = page.locator("#results > li").filter(has_text="camera.jpg")
    expect(card.locator(".latency")).to_have_count(1)
    page.click("#close-camera")
    expect(page.locator("#camera-box")).to_be_hidden()
    expect(page.locator("#open-camera")).to_be_focused()


@pytest.fixture(scope="module")
def finding_url(predictor: Predictor) -> Iterator[str]:
    """The page of a server that finds faces, three of a photo at most."""
    limits = Limits(faces=3)
    finder = FaceFinder("haar", predictor.source_px, 1, limits)
    classifier = Classifier(predictor, num_threads=1, finder=finder)
    with listening(build_app(Slot(classifier), Surroundings(limits, finds_faces=True))) as address:
        yield address
    classifier.close()


def test_the_faces_of_a_photo_each_have_their_bars(page: Page, finding_url: str) -> None:
    canvas = photo((40, 60), (300, 60), (560, 60), (820, 60), size=(1020, 280))
    page.goto(finding_url)
    expect(page.get_by_label("Find the faces in each photo")).to_be_checked()
    page.set_input_files("#files", [upload("four.jpg", encoded(canvas, "JPEG", quality=95))])
    card = page.locator("#results > li")
    expect(card.locator(".face")).to_have_count(3)
    expect(card.locator(".answer")).to_have_text("4 faces, the 3 largest are shown")
    for index in range(3):
        face = card.locator(".face").nth(index)
        expect(face.locator("h4")).to_contain_text(f"Face {index + 1}: ")
        expect(face.locator("tr")).to_have_count(7)
        # The cut shows the drawn face, which is anything but the flat grey of the photo.
        page.wait_for_function(
            """index => {
              const canvas = document.querySelectorAll(".face canvas")[index];
              const { width, height } = canvas;
              const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
              let least = 255, most = 0;
              for (let at = 0; at < data.length; at += 4) {
                least = Math.min(least, data[at]);
                most = Math.max(most, data[at]);
              }
              return width === 144 && most - least > 60;
            }""",
            arg=index,
        )
    assert "/v1/predict?faces=true" in str(card.locator("pre").text_content())
    expect(page.locator("#status")).to_contain_text("face 3")


def test_a_photo_without_a_face_can_be_classified_whole(page: Page, finding_url: str) -> None:
    page.goto(finding_url)
    page.set_input_files("#files", [upload("wall.jpg", encoded(photo(), "JPEG"))])
    cards = page.locator("#results > li")
    expect(cards.locator(".answer")).to_have_text("No face was found.")
    page.get_by_role("button", name="Classify the whole picture").click()
    expect(cards).to_have_count(2)
    expect(cards.first.locator("tr")).to_have_count(7)
    assert "faces=true" not in str(cards.first.locator("pre").text_content())
    page.get_by_label("Find the faces in each photo").uncheck()
    page.set_input_files("#files", [upload("again.jpg", faces(1, "JPEG")[0])])
    expect(cards).to_have_count(3)
    expect(cards.first.locator("tr")).to_have_count(7)


def test_the_camera_sends_the_whole_picture_where_faces_are_found(
    page: Page, finding_url: str
) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.goto(finding_url)
    page.click("#open-camera")
    expect(page.locator("#camera-how")).to_contain_text("the faces are found")
    expect(page.locator("#oval")).to_be_hidden()
    expect(page.locator("video")).to_have_js_property("readyState", 4)  # it shows pictures
    page.click("#shoot")
    # The fake camera shows no face.
    expect(page.locator("#results .answer")).to_have_text("No face was found.")
    assert sum(url.endswith("/v1/predict?faces=true") for url in sent) == 1
    page.get_by_label("Find the faces in each photo").uncheck()
    expect(page.locator("#oval")).to_be_visible()
    page.click("#shoot")
    expect(page.locator("#results > li").first.locator("tr")).to_have_count(7)


def test_without_https_the_camera_says_what_it_needs(page: Page, url: str) -> None:
    page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    page.goto(url)
    page.click("#open-camera")
    expect(page.locator("#camera-why")).to_contain_text("HTTPS")


def test_the_key_field(page: Page, slot: Slot, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    key = add_key(keys, "alice")
    app = build_app(slot, Surroundings(keys=KeyBook(keys), notice="<b>Only</b> for us"))
    face = faces(1, "JPEG")[0]
    with listening(app) as address:
        page.goto(address)
        expect(page.locator(".notice")).to_have_text("<b>Only</b> for us")
        page.set_input_files("#files", [upload("a.jpg", face)])
        expect(page.locator(".bad")).to_contain_text("An API key is wanted")
        page.get_by_label("API key").fill(key)
        page.set_input_files("#files", [upload("b.jpg", face)])
        expect(page.locator(".latency")).to_have_count(1)
        assert "$FER_RAY_KEY" in str(page.locator("pre").text_content())
        assert key not in page.locator("#results").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_width_keyboard_and_names(page: Page, url: str, scheme: Any, tmp_path: Path) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(url)
    page.set_input_files("#files", [upload("a" * 120 + ".jpg", faces(1, "JPEG")[0])])
    expect(page.locator(".latency")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.reload()
    focused = []
    for _ in range(3):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert focused == ["files", "open-camera", "A"]
    tree = page.locator("body").aria_snapshot()
    for name in ("Choose images", "Use the camera", "heading"):
        assert name in tree


def test_the_docs_page_needs_no_network(page: Page, url: str) -> None:
    page.goto(f"{url}/docs")
    expect(page.get_by_role("heading", name="POST /v1/predict", exact=True)).to_be_visible()
    expect(page.locator("body")).to_contain_text("The image cannot be decoded")


def test_no_page(slot: Slot) -> None:
    import httpx

    with listening(build_app(slot, Surroundings(has_page=False))) as address:
        assert httpx.get(address).status_code == 405
        face = faces(1, "JPEG")[0]
        headers = {"content-type": "image/jpeg"}
        assert httpx.post(address, content=face, headers=headers).status_code == 200
