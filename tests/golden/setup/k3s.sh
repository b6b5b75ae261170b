#!/bin/sh
# Points k3s at the registry proxy http://proxy.lan:3128. Shows what it would change and asks first.
# Set up:  curl -fsS 'http://proxy.lan:3128/setup/k3s' | sudo sh
# Undo:    curl -fsS 'http://proxy.lan:3128/setup/k3s' | sudo sh -s -- --uninstall
# shellcheck disable=SC2034  # not every script needs all of them

client='k3s'
title='k3s'
proxy='http://proxy.lan:3128'
self='http://proxy.lan:3128/setup/k3s'
door='mirror'
fingerprint=''
exceptions=''
exceptions_client='10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,.svc,.cluster.local'
registries='docker.io registry.k8s.io quay.io reg.lan:5000'
test_registry='registry-1.docker.io'

### config/setup/parts/library.sh as it is
### config/setup/parts/daemon.sh as it is
### config/setup/clients/k3s.sh as it is
# The last line, so that a script that arrived in part does nothing.
main "$@"
