"""What a pull cost the upstream."""

from collections import Counter

from lab.access_log import AccessLog


def content_gets(log: AccessLog) -> Counter[str]:
    """Return how often each manifest and blob was fetched, by path; what was asked by HEAD or refused costs no pull."""
    gets = log.requests(method="GET")
    return Counter(
        request.path
        for request in gets
        if request.status < 400 and ("/manifests/" in request.path or "/blobs/" in request.path)
    )


def blob_gets(log: AccessLog) -> Counter[str]:
    """Return how often each blob was fetched, by digest."""
    return Counter({path.rpartition("/")[2]: count for path, count in content_gets(log).items() if "/blobs/" in path})
