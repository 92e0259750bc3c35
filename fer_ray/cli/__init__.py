"""Commands that parse, call `fer_ray.api` and print."""
