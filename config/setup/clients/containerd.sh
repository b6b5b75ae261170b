
# --- containerd, alone or under Kubernetes

restart_words='restart containerd.service (running containers go on)'

prepare_client() {
    need_root
    if is_install && ! has containerd; then
        die "containerd is not installed here (k3s and RKE2 bring their own: $proxy/setup/k3s)"
    fi
    config=/etc/containerd/config.toml
    folder=/etc/containerd/certs.d
}

plan_client() {
    if [ "$door" = proxy ]; then
        want_ca
        want_environment containerd ''
        return
    fi
    plan_config_path
    want_hosts_toml "$folder"
}

dump() { containerd --config "$1" config dump 2>/dev/null; }

# registry_table FILE: prints "path VALUE" and "mirrors" as the registry part of the image service has them.
registry_table() {
    awk '
        { line = $0; gsub(/[[:space:]"\047]/, "", line) }
        line ~ /^\[/ { table = line }
        table !~ /^\[plugins\.(io\.containerd\.grpc\.v1\.cri|io\.containerd\.cri\.v1\.images)\.registry/ { next }
        table ~ /registry\]$/ && line ~ /^config_path=./ { sub(/^config_path=/, "", line); print "path", line }
        table ~ /registry\.mirrors\../ || table ~ /registry\.configs\..*\.tls\]$/ { print "mirrors" }' "$1"
}

# plan_config_path: without it the image service does not look at hosts.toml.
plan_config_path() {
    theirs $config >"$work/config.toml"
    dump "$work/config.toml" >"$work/before.dump" || die "containerd cannot read $config: repair it first"
    if grep '^disabled_plugins' "$work/before.dump" | grep -Eq "[\"'](io\.containerd\.grpc\.v1\.)?cri[\"']"; then
        say "containerd's image service for Kubernetes is off: for ctr use --hosts-dir $folder, nerdctl finds it itself"
        return
    fi
    registry_table "$work/before.dump" >"$work/table"
    if grep -q '^path' "$work/table"; then
        folder=$(sed -n 's/^path //p' "$work/table" | head -n 1)
        folder=${folder%%:*}
        return
    fi
    if grep -q '^mirrors' "$work/table"; then
        die "$config has registry.mirrors or registry.configs.*.tls, which cannot stand beside hosts.toml:" \
            "move them to $folder (containerd's docs/hosts.md), then run this again; nothing was changed"
    fi
    version=$(sed -n 's/^version = \([0-9]*\).*/\1/p' "$work/before.dump")
    table='plugins."io.containerd.grpc.v1.cri".registry'
    if [ "${version:-2}" -ge 3 ]; then table="plugins.'io.containerd.cri.v1.images'.registry"; fi
    if ! [ -s "$work/config.toml" ]; then
        say "version = ${version:-2} # registry-proxy" >"$work/config.toml"
    elif ! grep -Eq '^[[:space:]]*version[[:space:]]*=[[:space:]]*[23]' "$work/config.toml"; then
        die "$config is of an old form (no version = 2): set config_path = \"$folder\" in its registry table yourself"
    fi
    set_config_path "$table" <"$work/config.toml" >"$work/after.toml"
    # containerd itself says whether this changes what is meant, and nothing else. The dump has the name of the file.
    mv "$work/after.toml" "$work/config.toml"
    dump "$work/config.toml" >"$work/after.dump" || die "containerd would not read the changed $config; nothing was changed"
    sed '/config_path = /d' "$work/before.dump" >"$work/before.rest"
    sed '/config_path = /d' "$work/after.dump" >"$work/after.rest"
    if ! registry_table "$work/after.dump" | grep -qxF "path $folder" ||
        ! cmp -s "$work/before.rest" "$work/after.rest"; then
        die "$config cannot be changed safely from here: set config_path = \"$folder\" in [$table] yourself; nothing was changed"
    fi
    want block restart $config <"$work/config.toml"
}

# set_config_path TABLE: the configuration of standard input with config_path in TABLE.
set_config_path() {
    awk -v wanted="$1" -v value="$folder" '
        function bare(line) { sub(/#.*/, "", line); gsub(/[[:space:]"\047]/, "", line); return line }
        BEGIN { setting = "  config_path = \"" value "\" # registry-proxy"; target = "[" bare(wanted) "]" }
        /^[[:space:]]*\[/ { inside = (bare($0) == target); print; if (inside) { print setting; found = 1 }; next }
        inside && /^[[:space:]]*config_path[[:space:]]*=/ { next }
        { print }
        END { if (!found) printf "[%s] # registry-proxy\n%s\n", wanted, setting }'
}

restart_client() { restart_service containerd; }

check_client() {
    check_door || return 1
    if [ "$door" = mirror ] && [ -f $config ] && dump $config >"$work/dump"; then
        if registry_table "$work/dump" | grep -q '^path'; then
            passed "containerd looks at $folder"
        elif grep '^disabled_plugins' "$work/dump" | grep -q cri; then
            passed "$folder/_default/hosts.toml names the mirror"
        else
            failed "containerd does not look at $folder: $config needs config_path"
        fi
    fi
}
