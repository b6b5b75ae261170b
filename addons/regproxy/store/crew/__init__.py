"""The store as one of several workers has it: one directory, one index, one cap, one download of each content.

`store.CrewStore` is the door: a `content.Store` whose parts are told, and heard, by the other workers. docs/workers.md
says which state is shared how.
"""
