"""Fuzzing of the parsers and of what decides about a request; `make fuzz` runs it, `make test` replays the corpus."""
