#!/bin/sh
# Deletes an image from the registry by the digest of one of its tags: delete-image.sh NAME TAG
# All tags of the same digest go with it. The space is free after collect-garbage.sh.
# REGISTRY (registry.local), PROXY (http://localhost:3128) and CA (a file; by default the proxy is asked) may be set.
set -eu

[ "$#" = 2 ] || { echo "usage: delete-image.sh NAME TAG" >&2; exit 2; }
proxy=${PROXY:-http://localhost:3128}
url=https://${REGISTRY:-registry.local}/v2/$1/manifests

ca=${CA:-}
if [ -z "$ca" ]; then
    ca=$(mktemp)
    trap 'rm -f "$ca"' EXIT
    curl -fsS "$proxy/ca.crt" >"$ca"
fi

types=application/vnd.oci.image.index.v1+json,application/vnd.oci.image.manifest.v1+json
types=$types,application/vnd.docker.distribution.manifest.list.v2+json,application/vnd.docker.distribution.manifest.v2+json
digest=$(curl -fsS --cacert "$ca" --proxy "$proxy" --head -H "Accept: $types" "$url/$2" |
    tr -d '\r' | sed -n 's/^docker-content-digest: //Ip')
[ -n "$digest" ] || { echo "$1:$2: the registry told no digest" >&2; exit 1; }

curl -fsS --cacert "$ca" --proxy "$proxy" -X DELETE "$url/$digest"
echo "deleted $1@$digest"
