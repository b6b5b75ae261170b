"""Load and disturbance for a bounded time, and what is left of it afterwards: `make soak`."""
