#!/bin/sh
# Lets this node's containerd pull through the registry proxy's mirror door, and takes that back.
#
#   node-mirrors.sh run       apply now and every INTERVAL_S seconds; restore at TERM
#   node-mirrors.sh apply     write the files once
#   node-mirrors.sh restore   remove what was written, put back what was there
#
# containerd reads HOSTS_DIRECTORY/<registry>/hosts.toml at every pull, so nothing is restarted. Each file ends in the
# registry itself: a node whose proxy is gone pulls from there. Nothing that others wrote is touched, unless
# REPLACE_FOREIGN=true; then it is kept beside ours and comes back. Every step may be the last one: the next start, of
# any command, goes on from what it finds.
set -eu

# http://HOST_IP:<port> is a port of this node itself.
proxy_url=${PROXY_URL:-}
# The names that images begin with; http://<registry> for one without TLS.
registries=${REGISTRIES:-docker.io registry.k8s.io gcr.io quay.io ghcr.io}
hosts_directory=${HOSTS_DIRECTORY:-/etc/containerd/certs.d}
containerd_config=${CONTAINERD_CONFIG:-/etc/containerd/config.toml}
# false: containerd has its config_path where this script does not see it.
check_config_path=${CHECK_CONFIG_PATH:-true}
replace_foreign=${REPLACE_FOREIGN:-false}
# How long containerd (2.1 and later; others ignore it) tries to connect before it goes to the registry itself.
dial_timeout=${DIAL_TIMEOUT:-1s}
interval_s=${INTERVAL_S:-60}
# There while the files are as they should be.
applied_file=${APPLIED_FILE:-}

mark='# Written by node-mirrors.sh of registry-proxy, which also removes it. Changes do not last.'
# What restore may remove besides our files: one folder a line, in HOSTS_DIRECTORY; "." is that one itself.
made_folders=$hosts_directory/.registry-proxy-made
new_file=.hosts.toml.registry-proxy-new
old_file=hosts.toml.before-registry-proxy

say() {
    echo "node-mirrors: $*"
}

# --- What containerd reads ---

# Prints the config_path of each registry section of the files.
config_paths() {
    awk '
        { sub(/^[ \t]+/, "") }
        /^\[/ { registry = /^\[[^]]*\.registry\]/; next }
        registry && /^config_path[ \t]*=/ {
            sub(/^[^=]*=[ \t]*/, "")
            end = index(substr($0, 2), substr($0, 1, 1))
            print substr($0, 2, end - 1)
        }' "$@"
}

# Prints the patterns of the files that containerd's configuration imports, if they stand in one line.
imports() {
    awk '/^[ \t]*imports[ \t]*=/ { gsub(/^[^[]*\[|\].*$|[",'\'']/, " "); print }' "$containerd_config"
}

reads_hosts_directory() {
    [ -r "$containerd_config" ] || return 1
    set -- "$containerd_config"
    for pattern in $(imports); do
        case $pattern in
            /*) ;;
            *) pattern=${containerd_config%/*}/$pattern ;;
        esac
        for file in $pattern; do
            [ ! -r "$file" ] || set -- "$@" "$file"
        done
    done
    # config_path is a list, separated by colons.
    case :$(config_paths "$@" | tr '\n' ':'): in
        *":$hosts_directory:"* | *":$hosts_directory/:"*) return 0 ;;
        *) return 1 ;;
    esac
}

explain_config_path() {
    say "containerd does not read $hosts_directory: nothing is written. In $containerd_config of this node set"
    say "    version = 2: [plugins.\"io.containerd.grpc.v1.cri\".registry] config_path = \"$hosts_directory\""
    say "    version = 3: [plugins.\"io.containerd.cri.v1.images\".registry] config_path = \"$hosts_directory\""
    say "and restart containerd, or set CHECK_CONFIG_PATH=false if it is set elsewhere."
}

# --- The files ---

# A node does not ask the cluster's name server, so it is given an address.
resolved_url() {
    case $proxy_url in
        https://* | http://\[*) echo "$proxy_url" && return ;;
        http://*) ;;
        *) return 1 ;;
    esac
    authority=${proxy_url#http://}
    authority=${authority%%/*}
    host=${authority%%:*}
    case $host in
        HOST_IP) address=${HOST_IP:-} ;;
        *) address=$(getent ahosts "$host" | awk 'NR == 1 { print $1 }') ;;
    esac
    case $address in
        '') return 1 ;;
        *:*) address="[$address]" ;;
    esac
    echo "http://$address${authority#"$host"}"
}

hosts_toml() {
    case $1 in
        docker.io) upstream=https://registry-1.docker.io ;;
        http://*) upstream=$1 ;;
        *) upstream=https://$1 ;;
    esac
    printf '%s\nserver = "%s"\n\n[host."%s"]\n' "$mark" "$upstream" "$2"
    printf '  capabilities = ["pull", "resolve"]\n  dial_timeout = "%s"\n' "$dial_timeout"
}

is_name() {
    case $1 in
        '' | *[!A-Za-z0-9.:_-]* | [!A-Za-z0-9]*) return 1 ;;
        *) return 0 ;;
    esac
}

is_ours() {
    first_line=
    [ ! -f "$1" ] || read -r first_line <"$1" || :
    [ "$first_line" = "$mark" ]
}

is_there() {
    [ -e "$1" ] || [ -L "$1" ]
}

has_entries() {
    for entry in "$1"/* "$1"/.[!.]*; do
        case $entry in
            "$1/$new_file") ;;
            *) ! is_there "$entry" || return 0 ;;
        esac
    done
    return 1
}

# Makes a folder that restore removes again: it is noted first.
make_folder() {
    [ -d "$hosts_directory/$1" ] || { echo "$1" >>"$made_folders" && mkdir "$hosts_directory/$1"; }
}

make_hosts_directory() {
    [ -d "$hosts_directory" ] || { mkdir -p "$hosts_directory" && echo . >"$made_folders"; }
}

# Says why a registry must be left as it is; silent if it may be changed.
why_not() {
    folder=$hosts_directory/$1
    if is_there "$folder/hosts.toml"; then
        is_ours "$folder/hosts.toml" || [ "$replace_foreign" = true ] || echo "$folder/hosts.toml is not ours"
    elif has_entries "$folder"; then
        # Certificates, which containerd looks at only where there is no hosts.toml.
        echo "$folder has files of others"
    elif is_there "$hosts_directory/_default/hosts.toml" && [ "$replace_foreign" != true ]; then
        echo "$hosts_directory/_default/hosts.toml is for it"
    fi
}

write_file() {
    folder=$hosts_directory/$1
    make_folder "$1" || return 1
    if is_there "$folder/hosts.toml" && ! is_ours "$folder/hosts.toml"; then
        # A link, not a copy: what comes back is the very file.
        ln -P -f "$folder/hosts.toml" "$folder/$old_file" || return 1
    fi
    # containerd may read at any moment: the file is complete or not there.
    echo "$2" >"$folder/$new_file" && chmod 644 "$folder/$new_file" && mv -f "$folder/$new_file" "$folder/hosts.toml"
}

apply_registry() {
    name=${1#http://}
    if ! is_name "$name"; then
        say "left alone: $1 is not the name of one registry"
        return 0
    fi
    reason=$(why_not "$name")
    if [ -n "$reason" ]; then
        say "left alone: $name, as $reason"
        return 0
    fi
    wanted=$(hosts_toml "$1" "$2")
    if [ "$(cat "$hosts_directory/$name/hosts.toml" 2>/dev/null)" != "$wanted" ]; then
        write_file "$name" "$wanted" || { say "cannot write to $hosts_directory/$name" && return 1; }
    fi
    say "$name is pulled through $2"
}

restore_registry() {
    folder=$hosts_directory/$1
    rm -f "$folder/$new_file"
    if is_there "$folder/$old_file" && { is_ours "$folder/hosts.toml" || ! is_there "$folder/hosts.toml"; }; then
        mv -f "$folder/$old_file" "$folder/hosts.toml"
        say "$1: what was there before is back"
    elif is_ours "$folder/hosts.toml"; then
        rm -f "$folder/hosts.toml"
        say "$1: removed"
    elif cmp -s "$folder/$old_file" "$folder/hosts.toml"; then
        # Killed after the link was made and before it was needed.
        rm -f "$folder/$old_file"
    elif is_there "$folder/$old_file"; then
        say "$1: somebody has written $folder/hosts.toml; what was there before is $folder/$old_file"
    fi
    if grep -qxF -e "$1" "$made_folders" 2>/dev/null; then
        rmdir "$folder" 2>/dev/null || :
    fi
}

is_wanted() {
    for registry in $registries; do
        [ "${registry#http://}" != "$1" ] || return 0
    done
    return 1
}

# --- Commands ---

apply() {
    if [ "$check_config_path" = true ] && ! reads_hosts_directory; then
        explain_config_path
        return 1
    fi
    if ! url=$(resolved_url); then
        say "PROXY_URL=$proxy_url: not http:// or https:// with a name that has an address; the files stay as they are"
        return 1
    fi
    make_hosts_directory || { say "cannot make $hosts_directory" && return 1; }
    for folder in "$hosts_directory"/*/; do
        name=$(basename "$folder")
        is_wanted "$name" || restore_registry "$name"
    done
    failed=0
    for registry in $registries; do
        apply_registry "$registry" "$url" || failed=1
    done
    return "$failed"
}

restore() {
    [ -z "$applied_file" ] || rm -f "$applied_file"
    for folder in "$hosts_directory"/*/; do
        [ ! -d "$folder" ] || restore_registry "$(basename "$folder")"
    done
    made_by_us=$(grep -xF . "$made_folders" 2>/dev/null) || made_by_us=
    rm -f "$made_folders"
    [ -z "$made_by_us" ] || rmdir "$hosts_directory" 2>/dev/null || :
}

run() {
    sleeper=
    trap '[ -z "$sleeper" ] || kill "$sleeper" 2>/dev/null || :; restore; exit 0' TERM INT
    told=
    while :; do
        if report=$(apply 2>&1); then
            [ -z "$applied_file" ] || : >"$applied_file"
        else
            [ -z "$applied_file" ] || rm -f "$applied_file"
        fi
        # Once, not every minute.
        [ "$report" = "$told" ] || echo "$report"
        told=$report
        sleep "$interval_s" &
        sleeper=$!
        wait "$sleeper" || :
    done
}

case ${1:-} in
    run | apply | restore) "$1" ;;
    *)
        echo "usage: node-mirrors.sh run | apply | restore" >&2
        exit 2
        ;;
esac
