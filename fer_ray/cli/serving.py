"""`fer-ray serve`, `update` and `serve-key`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_ray.cli.output import BundleOption, Precision, Runtime, result, say, say_bundle

if TYPE_CHECKING:
    from fer_ray.serve.endpoint import Endpoint

MODES = {
    "direct": "the replica listens itself",
    "haproxy": "HAProxy before the replicas",
    "proxy": "through Serve's own proxy (--high-throughput is faster)",
}

Port = Annotated[int, typer.Option(help="1..65535.")]


def register(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(update)
    app.command("serve-key")(serve_key)


def serve(
    bundle: BundleOption = None,
    host: Annotated[str, typer.Option(help="Loopback, unless you know better.")] = "127.0.0.1",
    port: Port = 8000,
    replicas: Annotated[int, typer.Option(help="Processes with the model.")] = 1,
    max_replicas: Annotated[
        int | None, typer.Option(help="Let their number follow the load, up to this.")
    ] = None,
    high_throughput: Annotated[
        bool, typer.Option("--high-throughput", help="HAProxy before several replicas.")
    ] = False,
    precision: Precision = "auto",
    runtime: Runtime = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Of the network in each replica; default all cores, shared.")
    ] = None,
    api_keys: Annotated[
        Path | None, typer.Option(help="File of key hashes; see serve-key.", metavar="FILE")
    ] = None,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Let everyone in who reaches the host.")
    ] = False,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM with the chain: HTTPS.", metavar="FILE")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM.", metavar="FILE")] = None,
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="The page for people at /.")
    ] = True,
    notice: Annotated[
        str | None, typer.Option(help="What the page says this is and is not.", metavar="TEXT")
    ] = None,
    faces: Annotated[
        str,
        typer.Option(metavar="none|haar|yunet:PATH", help="Let requests ask for faces in photos."),
    ] = "none",
    access_log: Annotated[
        Path | None, typer.Option(help="One JSON line a request.", metavar="FILE")
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print YAML for `serve deploy`; start nothing.")
    ] = False,
) -> None:
    """Answer over HTTP, on Ray Serve, until stopped: fer-ray serve --bundle runs/cnn"""
    from fer_ray import api

    endpoint = api.endpoint(
        host=host,
        port=port,
        replicas=replicas,
        max_replicas=max_replicas,
        high_throughput=high_throughput,
        precision=precision,
        runtime=runtime,
        num_threads=threads,
        api_keys=api_keys,
        page=page,
        notice=notice,
        faces=faces,
        access_log=access_log,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        allow_open=insecure_no_auth,
    )
    loaded = api.load_bundle(bundle)
    say_bundle(loaded)
    if print_config:
        from fer_ray.serve.serve_yaml import serve_yaml

        result(serve_yaml(endpoint, str(Path(bundle).absolute()) if bundle else None).rstrip())
        return
    api.serve(loaded, endpoint, on_ready=lambda: _say_ready(endpoint))
    say("stopped")


def update(bundle: BundleOption = None, port: Port = 8000) -> None:
    """A new bundle behind a running endpoint of this machine: fer-ray update --bundle runs/new"""
    from fer_ray import api

    result(f"serving: {api.update(bundle, port=port)}")


def serve_key(
    name: Annotated[str, typer.Argument(help="Whose key it is; stands in the logs.")],
    api_keys: Annotated[Path, typer.Option(help="The file of key hashes.", metavar="FILE")],
) -> None:
    """Make an API key, print it once, keep its hash: fer-ray serve-key alice --api-keys keys"""
    from fer_ray.serve.keys import add_key

    key = add_key(api_keys, name)
    say(f"its hash is in {api_keys}; the key itself is kept nowhere:")
    result(key)


def _say_ready(endpoint: Endpoint) -> None:
    most = f" to {endpoint.max_replicas}" if endpoint.max_replicas > endpoint.num_replicas else ""
    threads = endpoint.settings.num_threads
    say(
        f"replicas: {endpoint.num_replicas}{most}, threads each: {threads}, "
        f"{endpoint.mode}: {MODES[endpoint.mode]}, faces: {endpoint.settings.faces}"
    )
    key = ' -H "Authorization: Bearer $KEY"' if endpoint.settings.api_keys else ""
    address = f"{endpoint.url}/v1/predict"
    say(f"  curl -H 'Content-Type: image/jpeg'{key} --data-binary @face.jpg {address}")
    result(f"ready: {address}")
