"""How far it goes: `make bench-scaling` measures it, and a model says what it means for a cluster.

- `workers`   rows for 1, 2 and 4 workers: requests/s, MB/s, CPU and memory, by the proxy door and the mirror door
- `replicas`  rows for two replicas that share a bucket: cold, from the bucket, warm
- `figures`   one series of figures, and its medians
- `report`    results-scaling.md and .json, beside the other results
- `model`     many nodes that pull one image at once, as flows that share limits; no I/O, no clock, no chance
- `inputs`    what the model takes for given: `inputs.toml`, with the source of each figure
- `tables`    the scenarios, and the tables of docs/scaling.md that follow from them
- `check`     the model against real clients on this machine, in network namespaces with a line of known speed
"""
