#!/bin/sh
# Frees the space of deleted images and of images that no tag names any more. The registry is down meanwhile: an upload
# during the collection would lose layers. COMPOSE may name another compose program.
set -eu
cd -- "$(dirname -- "$0")"

compose=${COMPOSE:-docker compose}
# A failed collection must not leave the office without its registry.
trap '$compose start registry.local' EXIT
$compose stop registry.local
# shellcheck disable=SC2086  # a command and its arguments
$compose run --rm --no-deps registry.local registry garbage-collect --delete-untagged /etc/docker/registry/config.yml
