"""The store room: verified content on disk, the index that remembers it, and the files that are still being filled.

`content.Store` is the only door for other rooms, `ingest.Ingest` what it hands out for a miss, `records` the tag
records, `errors` what can go wrong, `adoption` what takes over a predecessor's cache. Content lies at a path derived
from its digest, so a hit is one `open` and no SQL; diskcache keeps the sizes, access times, media types and tag
records, and is imported nowhere else.

Below the directory: `content/<algorithm>/<hex[:2]>/<hex>`, `partial/<algorithm>-<hex>` with a `.json` sidecar,
`cache.db` (SQLite), `running`, a heartbeat file that is there while the store is open, and `stopped` when it is not.
"""
