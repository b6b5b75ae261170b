
# --- k3s and RKE2

restart_words="restart the services of $client that run here (containers go on)"

prepare_client() {
    need_root
    services='k3s k3s-agent'
    if [ "$client" = rke2 ]; then services='rke2-server rke2-agent'; fi
    config=/etc/rancher/$client/registries.yaml
}

plan_client() {
    if [ "$door" = mirror ]; then
        plan_mirrors
        return
    fi
    want_ca
    # The prefix keeps it from kubelet and etcd: only the containerd inside takes these.
    for service in $services; do
        file=/etc/default/$service
        if [ "$client" = k3s ]; then file=/etc/systemd/system/$service.service.env; fi
        if [ "$client" = k3s ] && ! [ -f "/etc/systemd/system/$service.service" ]; then continue; fi
        {
            their_lines "$file"
            block <<END
CONTAINERD_HTTPS_PROXY=$proxy/
CONTAINERD_NO_PROXY=$(no_proxy_list "")
END
        } >"$work/environment"
        want block restart "$file" <"$work/environment"
    done
    [ -s "$work/wanted" ] || die "no service of $client is installed here"
}

# plan_mirrors: "*" stands for every registry that has no entry of its own.
plan_mirrors() {
    their_lines "$config" >"$work/theirs.yaml"
    if ! grep -q '^mirrors:' "$work/theirs.yaml"; then
        {
            cat "$work/theirs.yaml"
            { say "mirrors:"; entry '  '; } | block
        } >"$work/registries.yaml"
    elif grep -Eq '^mirrors:[[:space:]]*(#.*)?$' "$work/theirs.yaml" &&
        ! grep -Eq "^[[:space:]]+[\"']?\*[\"']?:" "$work/theirs.yaml"; then
        indent=$(sed -n '/^mirrors:/,$ { /^mirrors:/d; /^[[:space:]]*\(#.*\)*$/d; s/^\([ ]*\).*/\1/p; }' \
            "$work/theirs.yaml" | head -n 1)
        entry "${indent:-  }" | block >"$work/block"
        sed "/^mirrors:/r $work/block" "$work/theirs.yaml" >"$work/registries.yaml"
        warn "registries with an entry of their own in $config do not use \"*\": give them the endpoint $proxy, too"
    else
        die "$config has mirrors in a form that is not understood here, or has \"*\" already: add $proxy to its endpoints;" \
            "nothing was changed"
    fi
    want block restart "$config" <"$work/registries.yaml"
}

entry() {
    printf '%s"*":\n%s  endpoint:\n%s    - "%s"\n' "$1" "$1" "$1" "$proxy"
}

restart_client() {
    # shellcheck disable=SC2086  # a list of names
    restart_service $services
}

check_client() { check_door; }
