"""The servers that benchmarks/serve.py compares with, each started as a process of its own.

python benchmarks/serve_rivals.py bare|litserve PORT PRECISION THREADS
"""

from __future__ import annotations

import asyncio
import base64
import sys
from typing import Any

import litserve
import numpy as np
import uvicorn
from fastapi import FastAPI, Request

from fer_ray import api


class Faces(litserve.LitAPI):  # type: ignore[misc]
    """LitServe's own way: decode, batch, predict, unbatch."""

    def __init__(self, precision: str, threads: int) -> None:
        super().__init__(max_batch_size=64, batch_timeout=0.001)
        self._precision = precision
        self._threads = threads

    def setup(self, device: Any) -> None:
        self.predictor = api.load_predictor(precision=self._precision, num_threads=self._threads)

    # Without types: LitServe takes an annotated argument for one of the query.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        return self.predictor.decode(base64.b64decode(request["image"])).pixels

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, batch: Any) -> Any:
        return self.predictor.predict(batch)

    def unbatch(self, output: Any) -> Any:
        return [(output, row) for row in range(len(output.probabilities))]

    def encode_response(self, output: Any) -> Any:
        answer, row = output
        return {"predictions": answer.ranked(row), "uncertain": bool(answer.uncertain[row])}


def bare_app(precision: str, threads: int) -> FastAPI:
    """What one writes in ten lines: decode and predict in a thread pool, no batching, no limits."""
    predictor = api.load_predictor(precision=precision, num_threads=threads)
    app = FastAPI()

    def classify(body: bytes) -> dict[str, Any]:
        answer = predictor.predict(np.stack([predictor.decode(body).pixels]))
        return {"predictions": answer.ranked(0), "uncertain": bool(answer.uncertain[0])}

    @app.post("/v1/predict")
    async def predict(request: Request) -> dict[str, Any]:
        body = await request.body()
        return await asyncio.get_running_loop().run_in_executor(None, classify, body)

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


def main() -> None:
    mode, port, precision, threads = sys.argv[1:]
    if mode == "bare":
        app = bare_app(precision, int(threads))
        uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)
        return
    server = litserve.LitServer(Faces(precision, int(threads)), accelerator="cpu")
    server.run(port=int(port), host="127.0.0.1", generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
