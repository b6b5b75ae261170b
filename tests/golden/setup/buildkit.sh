#!/bin/sh
# Points BuildKit and buildx at the registry proxy http://proxy.lan:3128. Shows what it would change and asks first.
# Set up:  curl -fsS 'http://proxy.lan:3128/setup/buildkit' | sh
# Undo:    curl -fsS 'http://proxy.lan:3128/setup/buildkit' | sh -s -- --uninstall
# shellcheck disable=SC2034  # not every script needs all of them

client='buildkit'
title='BuildKit and buildx'
proxy='http://proxy.lan:3128'
self='http://proxy.lan:3128/setup/buildkit'
door='mirror'
fingerprint=''
exceptions=''
exceptions_client=''
registries='docker.io registry.k8s.io quay.io reg.lan:5000'
test_registry='registry-1.docker.io'

### config/setup/parts/library.sh as it is
### config/setup/parts/daemon.sh as it is
### config/setup/clients/buildkit.sh as it is
# The last line, so that a script that arrived in part does nothing.
main "$@"
