
# --- BuildKit: the daemon buildkitd where it is installed, else a builder of Docker's buildx
# A builder is a container of its own: it knows nothing of this host's environment, files and trust store.

restart_words='restart buildkit.service'

prepare_client() {
    builder='registry-proxy'
    if has buildkitd; then
        need_root
        toml=/etc/buildkit/buildkitd.toml
    else
        if is_install && ! has docker; then die "neither buildkitd nor docker is installed here"; fi
        toml=${XDG_CONFIG_HOME:-$HOME/.config}/registry-proxy/buildkitd.toml
        restart_words="make the builder \"$builder\" anew"
        if ! is_install; then restart_words="remove the builder \"$builder\""; fi
    fi
    ca_file=$(dirname "$toml")/registry-proxy-ca.crt
}

plan_client() {
    their_lines "$toml" >"$work/theirs.toml"
    for registry in $registries; do
        if grep -qF -e "[registry.\"$registry\"" -e "[registry.'$registry'" "$work/theirs.toml"; then
            warn "$toml has $registry already: it is left out here; give it mirrors = [\"$(host_of)/$registry\"] yourself"
            continue
        fi
        if [ "$door" = mirror ]; then
            printf '[registry."%s"]\n  mirrors = ["%s/%s"]\n' "$registry" "$(host_of)" "$registry"
        else
            printf '[registry."%s"]\n  ca = ["%s"]\n' "$registry" "$ca_file"
        fi
    done >"$work/tables"
    case $door:$proxy in
        mirror:http://*) printf '[registry."%s"]\n  http = true\n' "$(host_of)" >>"$work/tables" ;;
    esac
    block <"$work/tables" | cat "$work/theirs.toml" - >"$work/buildkitd.toml"
    want block restart "$toml" <"$work/buildkitd.toml"
    if [ "$door" = proxy ]; then
        want whole restart "$ca_file" <"$work/ca.all"
        if has buildkitd; then want_environment buildkit ''; fi
        say "buildx asks for tokens itself: set BUILDKIT_NO_CLIENT_TOKEN=1 for it, or HTTPS_PROXY=$proxy/ and trust the CA"
    fi
}

restart_client() {
    if has buildkitd; then
        restart_service buildkit
        return
    fi
    docker buildx rm "$builder" >/dev/null 2>&1 || true
    if ! is_install; then return; fi
    set -- --name "$builder" --driver docker-container --config "$toml"
    if [ "$door" = proxy ]; then
        # A comma parts two options of buildx, so each network is quoted with its variable.
        set -- "$@" --driver-opt "env.HTTPS_PROXY=$proxy/" --driver-opt "\"env.NO_PROXY=$(no_proxy_list "")\""
    fi
    docker buildx create "$@" >/dev/null
    say "build with: docker buildx build --builder $builder ..."
}

check_client() {
    case $(name_of_proxy) in
        localhost | 127.*) failed "a builder is a container, and $(host_of) is itself there: fetch this script by a name or address of the host" ;;
        *) if [ "$door" = mirror ]; then check_mirror; else passed "the CA is in $ca_file"; fi ;;
    esac
}
