"""`fer-ray serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fer_ray.cli.output import BundleOption, Precision, Runtime, result, say, say_bundle

if TYPE_CHECKING:
    from fer_ray.serve.endpoint import Endpoint


def register(app: typer.Typer) -> None:
    app.command()(serve)


def serve(
    bundle: BundleOption = None,
    host: Annotated[str, typer.Option(help="Loopback, unless you know better.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="1..65535.")] = 8000,
    replicas: Annotated[int, typer.Option(help="Processes with the model.")] = 1,
    precision: Precision = "auto",
    runtime: Runtime = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Of the network in each replica; default all cores, shared.")
    ] = None,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Let everyone in who reaches the host.")
    ] = False,
) -> None:
    """Answer over HTTP, on Ray Serve, until stopped: fer-ray serve --bundle runs/cnn"""
    from fer_ray import api

    loaded = api.load_bundle(bundle)
    say_bundle(loaded)
    api.serve(
        loaded,
        host=host,
        port=port,
        replicas=replicas,
        precision=precision,
        runtime=runtime,
        num_threads=threads,
        allow_open=insecure_no_auth,
        on_ready=_say_ready,
    )
    say("stopped")


def _say_ready(endpoint: Endpoint) -> None:
    way = "the replica listens itself" if endpoint.is_direct else "through Serve's proxy"
    say(f"replicas: {endpoint.num_replicas}, threads each: {endpoint.num_threads}, {way}")
    say(f"  curl -H 'Content-Type: image/jpeg' --data-binary @face.jpg {endpoint.url}/v1/predict")
    result(f"ready: {endpoint.url}/v1/predict")
