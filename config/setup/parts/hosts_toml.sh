
# --- containerd's way to name a mirror: hosts.toml, read at every pull

# want_hosts_toml DIRECTORY: every registry without a folder of its own asks the proxy first, then its own host.
want_hosts_toml() {
    path=$1/_default/hosts.toml
    block >"$work/block" <<END
[host."$proxy"]
  capabilities = ["pull", "resolve"]
  dial_timeout = "1s"
END
    their_lines "$path" >"$work/theirs.toml"
    # Tables may stand in any order, and the first host is asked first: ours comes before theirs.
    first=$(grep -n '^[[:space:]]*\[' "$work/theirs.toml" | head -n 1) || first=
    case $first in
        '') cat "$work/theirs.toml" "$work/block" >"$work/hosts.toml" ;;
        *[0-9]:*'[host'*)
            line=${first%%:*}
            {
                head -n "$((line - 1))" "$work/theirs.toml"
                cat "$work/block"
                tail -n "+$line" "$work/theirs.toml"
            } >"$work/hosts.toml"
            ;;
        *) die "$path is there already and is not understood here: add this to it yourself: $(cat "$work/block")" ;;
    esac
    want block - "$path" <"$work/hosts.toml"
    for own in "$1"/*/hosts.toml; do
        case $own in
            "$path" | "$1/*/hosts.toml") ;;
            *) warn "$own is asked instead for its registry: add the table [host.\"$proxy\"] there, before the others" ;;
        esac
    done
}
