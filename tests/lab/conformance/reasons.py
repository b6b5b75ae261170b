"""Why an answer through the proxy may differ from the registry's own: the notes of docs/conformance.md."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lab.conformance.differences import Difference


@dataclass(frozen=True, slots=True)
class Reason:
    """One note, and the differences that it is for."""

    mark: str
    text: str
    covers: re.Pattern[str]
    """Found in `way | chapter | title | what`."""


def _reason(mark: str, text: str, covers: str) -> Reason:
    return Reason(mark, " ".join(text.split()), re.compile(covers))


EVERYWHERE = _reason(
    "a",
    """Every answer of the mirror door names its registry in `OCI-Namespace` (distribution-spec, "Registry
    Proxying").""",
    r"^mirror .* OCI-Namespace: ",
)
REASONS = (
    EVERYWHERE,
    _reason(
        "b",
        """A path outside the specification's grammar reaches no registry. The proxy answers 400 with a code of the
        specification, where docker-registry has 404 or, for a digest that is too short, 500.""",
        r"400 instead of (404|500)$|(GET of a blob's digest that is too short|unknown algorithm) \| ",
    ),
    _reason(
        "c",
        """`If-None-Match` is not looked at: the answer is 200 with the content, where RFC 9111 section 4.3.2 would have
        a cache answer 304.""",
        r"If-None-Match \| 200 instead of 304$",
    ),
    _reason(
        "d",
        """The 416 has no body, and has `Content-Range` with the blob's length in every case (RFC 9110 section
        15.5.17).""",
        r"(from its end on|backwards) \| (other body|Content-Type:|Content-Range:|Accept-Ranges:)",
    ),
    _reason(
        "e",
        "The last 0 bytes of anything cannot be had: 416 by RFC 9110 section 14.1.2. docker-registry sends no byte.",
        r"the last 0 bytes \| 416 instead of 206$",
    ),
    _reason(
        "f",
        "A `Range` that cannot be read, or of another unit than bytes, is ignored (RFC 9110 section 14.2).",
        r"Range (no number|another unit) \| 200 instead of 416$",
    ),
    _reason(
        "g",
        """Several ranges are answered with the whole blob, as RFC 9110 section 14.2 allows. docker-registry's 206 has
        parts but the length of the whole, so it breaks off.""",
        r"Range two parts \| 200 instead of 206$",
    ),
    _reason(
        "h",
        "`Range` is defined for GET only (RFC 9110 section 14.2); where pushes are allowed the registry is asked.",
        r"HEAD with a Range \| 200 instead of 206$",
    ),
    _reason(
        "i",
        "The proxy follows the redirect itself: so the blob gets into its cache, and the client needs no other way.",
        r"\| redirects \| .* (200|206) instead of 307$",
    ),
    _reason(
        "j",
        """The proxy has the content, asked the registry by HEAD whether this client may have it in this repository,
        and was refused. Status, code and challenge are the registry's, the words are the proxy's.
        `Docker-Distribution-API-Version` is left out: the specification tells clients not to depend on it.""",
        r"(without login|GET before|deleted (manifest|blob)) \| "
        r"(other words in the error$|Docker-Distribution-API-Version: |Content-Length: )",
    ),
    _reason(
        "k",
        "The mirror door answers `/v2/` itself: no registry is named in it, and clients need no login.",
        r"^mirror .* the API with(out)? login \| |^mirror .* support of the API \| ",
    ),
    _reason(
        "l",
        """What a client sends for the mirror's address is shown to no registry, and a registry's 401 becomes 403:
        the client asks the registry itself, with its own login.""",
        r"^mirror \| logins .* 403 instead of (401|200)$",
    ),
    _reason(
        "m",
        "A mirror has manifests, blobs, tags and referrers only.",
        r"^mirror .* a path that is none \| error NAME_UNKNOWN instead of None$",
    ),
    _reason(
        "n",
        "No pushes by default, and never through a mirror (`ALLOW_PUSH`): 405.",
        r"on its own \| 405 instead of ",
    ),
)


def reason_for(difference: Difference) -> Reason | None:
    """Return the first reason that covers a difference."""
    text = f"{difference.way} | {difference.chapter} | {difference.title} | {difference.what}"
    return next((reason for reason in REASONS if reason.covers.search(text)), None)


def unexplained(differences: Iterable[Difference]) -> list[Difference]:
    """Return the differences without a reason."""
    return [difference for difference in differences if reason_for(difference) is None]
