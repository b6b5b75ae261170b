"""Which images something needs: a list of names, Kubernetes manifests, a compose file. Text in, names out.

Names are returned as they are written, with the tag that is meant when none is: `latest`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from regproxy.cli.interpolation import interpolated

_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")


@dataclass(frozen=True, slots=True)
class Compose:
    """What a compose file needs."""

    images: tuple[str, ...]
    built: tuple[str, ...]
    """Services that are built, and have no image that could be pulled."""


def listed_images(lines: Iterable[str]) -> list[str]:
    """Return the images of a list, one a line; what follows `#` is a comment."""
    bare = (line.partition("#")[0].strip() for line in lines)
    return list(dict.fromkeys(filter(None, bare)))


def kubernetes_images(text: str) -> list[str]:
    """Return the images of manifests: any number of documents, lists, and kinds with pods somewhere in them.

    Custom resources count as well: what looks like the containers of a pod is taken for them. Raises ValueError.
    """
    try:
        documents = list(yaml.safe_load_all(text))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"no YAML: {' '.join(str(error).split())}") from None
    found = dict.fromkeys(with_tag(image) for document in documents for image in _images_within(document))
    return list(found)


def compose_images(text: str, environ: Mapping[str, str]) -> Compose:
    """Return the images of a compose file's services, of all profiles. Raises ValueError.

    Variables are put in by compose's rules (Compose specification, "Interpolation").
    """
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"no YAML: {' '.join(str(error).split())}") from None
    services = document.get("services") if isinstance(document, dict) else None
    if not isinstance(services, dict):
        raise ValueError("no compose file: there are no services in it")  # noqa: TRY004 - a text, not a type, is wrong
    images: dict[str, None] = {}
    built: list[str] = []
    for name, service in services.items():
        image = service.get("image") if isinstance(service, dict) else None
        if isinstance(image, str):
            try:
                wanted = interpolated(image, environ)
            except ValueError as error:
                raise ValueError(f"service {name}: {error}") from None
        else:
            wanted = ""
        if wanted:
            images[with_tag(wanted)] = None
        else:
            built.append(str(name))
    return Compose(tuple(images), tuple(built))


def with_tag(image: str) -> str:
    """Return a name with the tag that it means when it has none."""
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def _images_within(document: Any) -> Iterator[str]:
    """Give the images of all that looks like a pod. What a document names twice, by an anchor, is looked at once."""
    seen: set[int] = set()
    waiting = [document]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or not isinstance(each, dict | list):
            continue
        seen.add(id(each))
        if isinstance(each, dict):
            yield from _images_of_pod(each)
        waiting += reversed(list(each.values() if isinstance(each, dict) else each))


def _images_of_pod(spec: dict[Any, Any]) -> Iterator[str]:
    for field in _CONTAINERS:
        containers = spec.get(field)
        for container in containers if isinstance(containers, list) else ():
            image = container.get("image") if isinstance(container, dict) else None
            if isinstance(image, str) and image.strip():
                yield image.strip()
    volumes = spec.get("volumes")
    for volume in volumes if isinstance(volumes, list) else ():
        source = volume.get("image") if isinstance(volume, dict) else None
        reference = source.get("reference") if isinstance(source, dict) else None
        if isinstance(reference, str) and reference.strip():
            yield reference.strip()
