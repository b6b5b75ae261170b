"""Warm many images: some at a time, for the proxy remembers a limited number of them."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from regproxy.cli.api import Api, ApiError

AT_ONCE = 8
"""Images under way; the proxy fetches a few blobs at a time, whatever they belong to."""

POLL_S = 0.2

type Told = Mapping[str, Any]


def warm(api: Api, images: list[str], platforms: str | None) -> Iterator[dict[str, Told]]:
    """Give what is known of each image, by the name that was asked for, until all have ended. Raises ApiError.

    One that the proxy does not take is a failed one; the others go on.
    """
    told: dict[str, Told] = {}
    running: dict[str, str] = {}
    """What was asked for, by the name that the proxy has for it."""
    waiting = list(reversed(images))
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            asked = waiting.pop()
            begun = _begun(api, asked, platforms)
            told[asked] = begun
            if begun["state"] == "running":
                running[begun["image"]] = asked
        yield told
        if running:
            time.sleep(POLL_S)
            seen = {each["image"]: each for each in api.ask("GET", "/warmings")["images"]}
            for image, asked in list(running.items()):
                told[asked] = seen.get(image) or _failed(image, "the proxy has started anew meanwhile: warm it again")
                if told[asked]["state"] != "running":
                    del running[image]
            yield told


def _begun(api: Api, image: str, platforms: str | None) -> Told:
    try:
        begun: Told = api.ask("POST", "/warmings", target=image, platforms=platforms)["images"][0]
    except ApiError as error:
        if error.status != 400:
            raise
        return _failed(image, str(error))
    return begun


def _failed(image: str, reason: str) -> Told:
    return {
        "image": image,
        "state": "failed",
        "contents": 0,
        "stored": 0,
        "fetched_bytes": 0,
        "platforms": [],
        "error": reason,
    }
