#!/usr/bin/env python
"""Detect objects in images that are sent over HTTP, with model.onnx. Needs five packages:

    pip install onnxruntime numpy pillow fastapi uvicorn
    python serve.py --port 8000
    curl --data-binary @street.jpg "http://127.0.0.1:8000/detect?threshold=0.5"

An image file is the whole body of the request, whatever its Content-Type. The answer is

    {"width": 640, "height": 480,
     "detections": [{"bbox": [x, y, width, height], "score": 0.93, "category_id": 1, "category_name": "cat"}, ...]}

as in COCO, best first, in pixels of the upright image; category ids count the model's classes from 1. A request that
cannot be answered gets {"detail": "one line"} with status 400, 408, 413, 415, 422 or 503. GET /health answers
{"status": "ok"}, and /docs describes all this to a browser. SIGTERM ends the server when the requests that it has are
answered, or after 20 seconds.
"""

import argparse
import asyncio
import contextlib
import io
import os
import signal
import sys

import uvicorn
from example import FORMATS, Detector, read
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from PIL import Image
from starlette.requests import ClientDisconnect

# Requests that may wait, and bodies as large as is allowed that are in memory at a time: while there is no room for
# the body of a request, it stays with the client.
MAX_WAITING, BODIES = 500, 8
RETRY_LATER = {"Retry-After": "5"}
IMAGE_BODY = {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}


class Room:
    """Bytes that bodies of requests may take together. Who comes first gets room first."""

    def __init__(self, num_bytes):
        self.free, self.turn, self.change = num_bytes, asyncio.Lock(), asyncio.Condition()

    @contextlib.asynccontextmanager
    async def for_bytes(self, number):
        async with self.turn, self.change:
            await self.change.wait_for(lambda: self.free >= number)
            self.free -= number
        try:
            yield
        finally:
            async with self.change:
                self.free += number
                self.change.notify_all()


def make_app(detector, max_bytes, max_pixels, timeout):
    """The web application; the options are those of the command, in bytes, pixels and seconds."""
    app = FastAPI(title="Object detection")
    room, model, waiting = Room(BODIES * max_bytes), asyncio.Lock(), set()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError):
        reasons = [f"{reason['loc'][-1]}: {reason['msg']}" for reason in error.errors()]
        return JSONResponse({"detail": "; ".join(reasons)}, 422)

    @app.get("/health")
    async def health():
        return {"status": "ok"}

    @app.post("/detect", openapi_extra={"requestBody": IMAGE_BODY})
    async def detect(request: Request, threshold: float = Query(0.5, ge=0, le=1)):
        if len(waiting) >= MAX_WAITING:
            raise HTTPException(503, "too many requests are waiting", RETRY_LATER)
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise HTTPException(415, "send the image itself as the body, as curl --data-binary @image.jpg does")
        waiting.add(request)
        try:
            num_bytes = int(request.headers.get("content-length", max_bytes))
            if num_bytes > max_bytes:
                raise too_large(f"the body has {num_bytes} bytes, more than the {max_bytes} of --max-megabytes")
            async with room.for_bytes(num_bytes):
                body = await asyncio.wait_for(receive(request, num_bytes), timeout)
                async with model:
                    if await request.is_disconnected():
                        raise ClientDisconnect
                    return await run_in_threadpool(find, detector, body, threshold, max_pixels)
        except asyncio.TimeoutError:
            what = f"the body was not complete after the {timeout:g} seconds of --timeout"
            raise HTTPException(408, what, {"Connection": "close"}) from None
        except asyncio.CancelledError:
            raise HTTPException(503, "the server is stopping", RETRY_LATER) from None
        except ClientDisconnect:
            raise HTTPException(400, "the client has hung up") from None
        finally:
            waiting.remove(request)

    return app


async def receive(request, max_bytes):
    """The body of a request. What is too much is received, since most clients read no answer before, but not kept."""
    body, number = bytearray(), 0
    async for chunk in request.stream():
        number += len(chunk)
        if number <= max_bytes:
            body += chunk
    if number > max_bytes:
        raise too_large(f"the body has more than {max_bytes} bytes, see --max-megabytes")
    return body


def too_large(what):
    return HTTPException(413, f"{what}: send a smaller image")


def find(detector, body, threshold, max_pixels):
    """What the detector finds in an image file, as a dict for json."""
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            width, height = image.size
        if width * height > max_pixels:
            raise too_large(f"the image is {width} x {height}, more than the {max_pixels} pixels of --max-megapixels")
        image = read(io.BytesIO(body))
    except HTTPException:
        raise
    except Exception as error:  # whatever a decoder raises on a damaged image
        what = "the body is not a complete image file of a known format"
        raise HTTPException(400, f"{what}: {', '.join(FORMATS)}") from error
    detections = []
    for (x1, y1, x2, y2), score, label in zip(*(values.tolist() for values in detector(image)), strict=True):
        if score >= threshold:
            detections.append(
                {
                    "bbox": [round(side, 3) for side in (x1, y1, x2 - x1, y2 - y1)],
                    "score": round(score, 5),
                    "category_id": label + 1,
                    "category_name": detector.settings["class_names"][label],
                }
            )
    return {"width": image.shape[1], "height": image.shape[0], "detections": detections}


def main():
    folder = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.path.join(folder, "model.onnx"), metavar="FILE")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for all of this machine")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free")
    parser.add_argument("--max-megabytes", type=float, default=32, help="of an image file (32)")
    parser.add_argument("--max-megapixels", type=float, default=64, help="of an image (64)")
    parser.add_argument("--timeout", type=float, default=30, help="seconds in which a client must send its image (30)")
    parser.add_argument("--threads", type=int, default=0, help="CPU cores that the model may use; 0 for all (0)")
    args = parser.parse_args()

    Image.MAX_IMAGE_PIXELS = None  # `find` has its own limit
    app = make_app(
        Detector(args.model, args.threads), int(args.max_megabytes * 1e6), int(args.max_megapixels * 1e6), args.timeout
    )
    # uvicorn raises the signal again when it has ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(app, host=args.host, port=args.port, http="h11", ws="none", timeout_graceful_shutdown=20)


if __name__ == "__main__":
    main()
