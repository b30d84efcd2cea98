"""Configuration, wiring, mount life cycle, control socket."""
