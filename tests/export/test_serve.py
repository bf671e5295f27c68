"""`serve.py` in the folder of an exported model, as its users call it: with requests over HTTP."""

import asyncio
import http.client
import io
import json
import re
import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from atss.export import example

for package in ("fastapi", "uvicorn", "onnxruntime"):
    pytest.importorskip(package)
pytestmark = pytest.mark.slow

TIMEOUT = 3
LIMITS = ["--max-megabytes", "1", "--max-megapixels", "1", "--timeout", str(TIMEOUT), "--threads", "1"]


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory):
    """A server that runs where torch, Detectron2, OpenCV and this project cannot be imported.

    In the end SIGTERM ends it with status 0, and its log has no traceback."""
    script = f"""
        import runpy, sys
        sys.modules.update(dict.fromkeys(["torch", "torchvision", "detectron2", "cv2", "atss"]))
        sys.path.insert(0, {str(exported)!r})
        runpy.run_path({str(exported / "serve.py")!r}, run_name="__main__")
    """
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with open(log, "w") as file:
        command = [sys.executable, "-c", textwrap.dedent(script), "--port", "0", *LIMITS]
        process = subprocess.Popen(command, stderr=file, stdout=file)
    try:
        until = time.monotonic() + 120
        while not (address := re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield SimpleNamespace(port=int(address[1]), pid=process.pid)
        process.terminate()
        assert process.wait(30) == 0
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()


def ask(server, body=None, method="POST", path="/detect?threshold=0", headers=None):
    """Status, headers and json of the answer to a request; a body that is no bytes is sent in chunks."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)) as connection:
        chunked = body is not None and not isinstance(body, bytes)
        connection.request(method, path, body, headers or {}, encode_chunked=chunked)
        response = connection.getresponse()
        text = response.read().decode()
        assert "\n" not in text
        return response.status, response.headers, json.loads(text)


def file_of(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def noise(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def test_the_answer_is_what_the_example_finds_in_coco_format(server, exported):
    image = noise(120, 150)

    status, headers, answer = ask(server, file_of(image, "PNG"), path="/detect?threshold=0.2")

    boxes, scores, classes = example.Detector(str(exported / "model.onnx"))(np.asarray(image))
    kept = scores >= 0.2
    assert status == 200 and headers["content-type"] == "application/json"
    assert (answer["width"], answer["height"]) == (150, 120)
    found = answer["detections"]
    assert len(found) == kept.sum() > 5
    x, y, width, height = np.array([detection["bbox"] for detection in found]).T
    np.testing.assert_allclose(np.stack([x, y, x + width, y + height], 1), boxes[kept], atol=2e-3)
    np.testing.assert_allclose([detection["score"] for detection in found], scores[kept], atol=1e-4)
    assert [detection["category_id"] for detection in found] == (classes[kept] + 1).tolist()
    names = ["disc", "ring", "box", "frame", "triangle", "cross"]
    assert [detection["category_name"] for detection in found] == [names[label] for label in classes[kept]]


def test_images_are_turned_upright(server):
    exif = Image.Exif()
    exif[0x0112] = 6

    _, _, answer = ask(server, file_of(noise(60, 90), "JPEG", exif=exif))

    assert (answer["width"], answer["height"]) == (60, 90)


def test_health(server):
    status, _, answer = ask(server, method="GET", path="/health")

    assert status == 200 and answer == {"status": "ok"}


JPEG = file_of(noise(90, 90), "JPEG")
MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}
# Method, path, body, headers, and status and words of the answer.
BAD = {
    "empty": ("POST", "/detect", b"", {}, 400, "not a complete image"),
    "text": ("POST", "/detect", b"no image", {}, 400, "not a complete image"),
    "truncated": ("POST", "/detect", JPEG[: len(JPEG) // 2], {}, 400, "not a complete image"),
    "bomb": ("POST", "/detect", file_of(Image.new("1", (20000, 2000)), "PNG"), {}, 413, "20000 x 2000, more than"),
    "too large": ("POST", "/detect", bytes(1_000_001), {}, 413, "1000001 bytes, more than the 1000000"),
    "too large, in chunks": ("POST", "/detect", [bytes(300_000)] * 5, {}, 413, "more than 1000000 bytes"),
    "form": ("POST", "/detect", JPEG, MULTIPART, 415, "--data-binary"),
    "threshold": ("POST", "/detect?threshold=2", JPEG, {}, 422, "threshold: Input should be"),
    "no number": ("POST", "/detect?threshold=nan", JPEG, {}, 422, "threshold: Input should be"),
    "method": ("GET", "/detect", None, {}, 405, "Method Not Allowed"),
    "path": ("POST", "/nowhere", JPEG, {}, 404, "Not Found"),
}  # fmt: skip


@pytest.mark.parametrize("method, path, body, headers, status, words", BAD.values(), ids=BAD)
def test_what_cannot_be_answered_gets_one_line(server, method, path, body, headers, status, words):
    answered, _, answer = ask(server, body, method, path, headers)

    assert answered == status and isinstance(answer["detail"], str) and words in answer["detail"]


def test_a_body_without_a_length(server):
    _, _, expected = ask(server, JPEG)

    status, _, answer = ask(server, [JPEG[:100], JPEG[100:]])

    assert status == 200 and answer == expected


def test_a_body_with_a_second_length_is_no_larger_than_its_first(server):
    """Room is kept for the first, and chunks have lengths of their own."""
    with socket.create_connection(("127.0.0.1", server.port)) as client, client.makefile("rb") as answer:
        headers = b"Host: x\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        client.sendall(b"POST /detect HTTP/1.1\r\n" + headers + b"%x\r\n%s\r\n0\r\n\r\n" % (len(JPEG), JPEG))
        assert b" 413 " in answer.readline()


def test_clients_that_are_slow_or_hang_up_stop_nobody(server):
    """More of them than there is room for bodies of the largest size."""
    begun = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    for client in begun:
        client.sendall(b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" + bytes(1000))
    for client in begun[:-1]:
        client.close()

    begin = time.monotonic()
    assert ask(server, JPEG)[0] == 200
    assert time.monotonic() - begin < TIMEOUT

    with begun[-1] as slow, slow.makefile("rb") as answer:
        assert answer.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
        assert b"--timeout" in answer.read(), "and it is hung up on"


def peak_memory(pid):
    """In bytes."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_200_at_once_are_all_answered_in_bounded_memory(server):
    bodies = [file_of(noise(600, 500 + i, i), "BMP") for i in range(4)]
    answers = [ask(server, body) for body in bodies]
    assert all(status == 200 and answer["detections"] for status, _, answer in answers)
    before = peak_memory(server.pid)

    with ThreadPoolExecutor(200) as clients:
        found = list(clients.map(lambda i: ask(server, bodies[i % 4]), range(200)))

    for i, (status, _, answer) in enumerate(found):
        assert status == 200 and answer == answers[i % 4][2]
    sent = sum(len(bodies[i % 4]) for i in range(200))
    assert sent > 180e6 and peak_memory(server.pid) - before < 90e6


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.syspath_prepend(Path(example.__file__).parent)
    import serve

    return serve


def test_more_than_may_wait_are_told_to_come_back(serve, monkeypatch):
    monkeypatch.setattr(serve, "MAX_WAITING", 0)
    app = serve.make_app(None, max_bytes=10, max_pixels=10, timeout=1)
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/detect", "query_string": b"", "headers": []}
    asyncio.run(app(scope, None, send))

    assert sent[0]["status"] == 503 and (b"retry-after", b"5") in sent[0]["headers"]


def test_bodies_get_room_in_the_order_of_their_requests(serve):
    """Also a large one, before small ones that come later."""
    entered = []

    async def body(room, number, size):
        async with room.for_bytes(size):
            entered.append(number)
            await asyncio.sleep(0)

    async def bodies():
        room = serve.Room(10)
        await asyncio.gather(*(body(room, number, size) for number, size in enumerate([6, 10, 1, 1, 8])))
        assert room.free == 10

    asyncio.run(bodies())

    assert entered == [0, 1, 2, 3, 4]
