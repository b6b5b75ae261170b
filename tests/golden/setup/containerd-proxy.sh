#!/bin/sh
# Points containerd at the registry proxy http://proxy.lan:3128. Shows what it would change and asks first.
# Set up:  curl -fsS 'http://proxy.lan:3128/setup/containerd?door=proxy&no_proxy=10.0.0.0/8,.lan&fp=cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd' | sudo sh
# Undo:    curl -fsS 'http://proxy.lan:3128/setup/containerd?door=proxy&no_proxy=10.0.0.0/8,.lan&fp=cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd' | sudo sh -s -- --uninstall
# shellcheck disable=SC2034  # not every script needs all of them

client='containerd'
title='containerd'
proxy='http://proxy.lan:3128'
self='http://proxy.lan:3128/setup/containerd?door=proxy&no_proxy=10.0.0.0/8,.lan&fp=cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd'
door='proxy'
fingerprint='cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd'
exceptions='10.0.0.0/8,.lan'
exceptions_client='10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,.svc,.cluster.local'
registries='docker.io registry.k8s.io quay.io reg.lan:5000'
test_registry='registry-1.docker.io'

### config/setup/parts/library.sh as it is
### config/setup/parts/daemon.sh as it is
### config/setup/parts/hosts_toml.sh as it is
### config/setup/clients/containerd.sh as it is
# The last line, so that a script that arrived in part does nothing.
main "$@"
