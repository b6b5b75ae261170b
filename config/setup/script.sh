#!/bin/sh
# Points {{ title }} at the registry proxy {{ base_url }}. Shows what it would change and asks first.
# Set up:  curl -fsS {{ own_url | sh }} | {{ "sh" if for_user else "sudo sh" }}
# Undo:    curl -fsS {{ own_url | sh }} | {{ "sh" if for_user else "sudo sh" }} -s -- --uninstall
# shellcheck disable=SC2034  # not every script needs all of them

client={{ client | sh }}
title={{ title | sh }}
proxy={{ base_url | sh }}
self={{ own_url | sh }}
door={{ door | sh }}
fingerprint={{ fingerprint | sh }}
exceptions={{ no_proxy | join(",") | sh }}
exceptions_client={{ no_proxy_client | sh }}
registries={{ registries | join(" ") | sh }}
test_registry={{ test_registry | sh }}

{% for part in parts %}{{ source(part) }}{% endfor %}
# The last line, so that a script that arrived in part does nothing.
main "$@"
