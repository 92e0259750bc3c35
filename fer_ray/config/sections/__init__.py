"""The sections of the config, a module each; `fer_ray.config.schema` puts them together."""
