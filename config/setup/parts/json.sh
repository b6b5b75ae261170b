
# --- JSON, by python3 or jq: a shell cannot merge it safely

# json merge FILE ADDITION: lists get what is new in front, objects are merged, other values replaced.
# json undo BEFORE AFTER NOW: NOW without what AFTER has and BEFORE has not.
# json has FILE KEY: 0 if the object has it, 2 if not, 1 if it cannot be read.
json() {
    if has python3; then
        python3 - "$@" <<'PYTHON'
import json, sys


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.loads(file.read().strip() or "{}")


def merge(old, new):
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: merge(old.get(key), value) for key, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        return [item for item in new if item not in old] + old
    return new


def undo(before, after, now):
    for key, ours in after.items():
        theirs = before.get(key)
        if key not in now or ours == theirs:
            continue
        if isinstance(ours, dict) and isinstance(now[key], dict):
            now[key] = undo(theirs or {}, ours, now[key])
        elif isinstance(ours, list) and isinstance(now[key], list):
            now[key] = [item for item in now[key] if item not in ours or item in (theirs or [])]
        elif now[key] == ours:
            now[key] = theirs
        if not now[key] and key not in before:
            del now[key]
    return now


action, *paths = sys.argv[1:]
if action == "has":
    sys.exit(0 if paths[1] in load(paths[0]) else 2)
texts = [load(path) for path in paths]
result = {"merge": merge, "undo": undo}[action](*texts)
if result == load(paths[0 if action == "merge" else -1]):
    with open(paths[0 if action == "merge" else -1], encoding="utf-8") as file:
        sys.stdout.write(file.read())
else:
    print(json.dumps(result, indent=2, ensure_ascii=False))
PYTHON
    elif has jq; then
        case $1 in
            has)
                jq -e --arg key "$3" 'has($key)' "$2" >/dev/null && return
                # 1 is jq's word for false.
                if [ "$?" = 1 ]; then return 2; else return 1; fi
                ;;
            merge)
                jq -n --slurpfile old "$2" --slurpfile new "$3" '
                    def merge($old; $new):
                        if ($old | type) == "object" and ($new | type) == "object" then
                            reduce ($new | keys_unsorted[]) as $key ($old; .[$key] = merge($old[$key]; $new[$key]))
                        elif ($old | type) == "array" and ($new | type) == "array" then ($new - $old) + $old
                        else $new end;
                    merge($old[0] // {}; $new[0])'
                ;;
            undo)
                jq -n --slurpfile before "$2" --slurpfile after "$3" --slurpfile now "$4" '
                    def undo($before; $after; $now):
                        reduce ($after | keys_unsorted[]) as $key ($now;
                            if has($key) and $after[$key] != $before[$key] then
                                (if ($after[$key] | type) == "object" and (.[$key] | type) == "object" then
                                    .[$key] = undo($before[$key] // {}; $after[$key]; .[$key])
                                elif ($after[$key] | type) == "array" and (.[$key] | type) == "array" then
                                    .[$key] -= ($after[$key] - ($before[$key] // []))
                                elif .[$key] == $after[$key] then .[$key] = $before[$key]
                                else . end)
                                | if (.[$key] == [] or .[$key] == {} or .[$key] == null) and ($before | has($key) | not)
                                    then del(.[$key]) else . end
                            else . end);
                    undo($before[0] // {}; $after[0]; $now[0])'
                ;;
        esac
    else
        die "$2 is there already, and merging it needs python3 or jq: install one of them; nothing was changed"
    fi
}

# want_json AFTERWARDS PATH: standard input is an object that PATH is to contain.
want_json() {
    cat >"$work/addition.json"
    theirs "$2" >"$work/theirs.json" || exit 1
    if [ ! -s "$work/theirs.json" ]; then
        cp "$work/addition.json" "$work/merged.json"
    else
        json merge "$work/theirs.json" "$work/addition.json" >"$work/merged.json" ||
            die "$2 cannot be merged: it must be valid JSON; nothing was changed"
    fi
    want json "$1" "$2" <"$work/merged.json"
}
