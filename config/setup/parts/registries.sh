
# --- registries.conf of podman, buildah, skopeo and CRI-O: one mirror for each registry

# want_registries FOLDER AFTERWARDS: FOLDER is that of registries.conf, its drop-ins are in registries.conf.d.
want_registries() {
    path=$1/registries.conf.d/50-registry-proxy-$client.conf
    insecure=
    case $proxy in http://*) insecure=yes ;; esac
    {
        say "# Put here by $proxy/setup/$client. If the mirror does not answer, the registry itself is asked."
        for registry in $registries; do
            if owner=$(registry_owner "$1" "$registry"); then
                warn "$owner has $registry already: it is left out here; add a [[registry.mirror]] there with" \
                    "location = \"$(host_of)/$registry\"${insecure:+ and insecure = true}"
                continue
            fi
            printf '\n[[registry]]\nprefix = "%s"\nlocation = "%s"\n\n' "$registry" "$registry"
            printf '[[registry.mirror]]\nlocation = "%s/%s"\n' "$(host_of)" "$registry"
            if [ -n "$insecure" ]; then say "insecure = true"; fi
        done
    } >"$work/registries.conf"
    want whole "$2" "$path" <"$work/registries.conf"
}

# registry_owner FOLDER REGISTRY: the file of somebody else that has an entry for it; a second entry would replace that.
registry_owner() {
    for file in "$1/registries.conf" "$1"/registries.conf.d/*.conf; do
        case $file in "$1"/registries.conf.d/50-registry-proxy-*) continue ;; esac
        [ -f "$file" ] || continue
        if awk -v registry="$2" '
            { line = $0; gsub(/[[:space:]]/, "", line) }
            line ~ /^\[/ { inside = (line == "[[registry]]") }
            inside && (line == "prefix=\"" registry "\"" || line == "location=\"" registry "\"") { found = 1 }
            END { exit !found }' "$file"; then
            say "$file"
            return
        fi
    done
    return 1
}
