"""`python -m fer_ray`: the command line."""

from fer_ray.cli.main import main

main()
