"""Ask a running `fer-ray serve` about images, one by one and as a batch.

    fer-ray serve                                   # in another terminal
    python examples/ask_endpoint.py face.jpg ...    # [--url http://127.0.0.1:8000] [--key KEY]

The client waits and asks again where the endpoint is busy or a replica has died.
"""

import argparse

from fer_ray.serve.client import Answer, Client


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", nargs="+")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key")
    arguments = parser.parse_args()
    with Client(arguments.url, api_key=arguments.key) as client:
        first = client.predict(arguments.images[0], top_k=3)
        for name, score in first.scores.items():
            print(f"{name:<10} {score:.3f}")
        answers = client.predict_batch(arguments.images)
        for path, answer in zip(arguments.images, answers, strict=True):
            told = answer.label if isinstance(answer, Answer) else answer.problem["detail"]
            print(f"{path}: {told}")


if __name__ == "__main__":
    main()
