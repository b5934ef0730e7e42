# What the scripts beside it share; they source it.

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# stage NAME COMMAND...: runs it, and remembers how long it took.
stages=()
stage() {
    local name=$1 start=$SECONDS
    shift
    printf '\n==> %s\n' "$name"
    "$@"
    stages+=("$(printf '%6d s  %s' $((SECONDS - start)) "$name")")
}

summary() {
    printf '\nseconds a stage:\n'
    printf '%s\n' "${stages[@]}"
    printf '%6d s  in all\n' "$SECONDS"
}
trap summary EXIT

# install_tools TOOL...: those that are not here, from the Debian packages of their names.
install_tools() {
    local missing=()
    for tool in "$@"; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
}

# install_packages PACKAGE...: Debian's.
install_packages() {
    local root=()
    [[ $EUID -eq 0 ]] || root=(sudo -n)
    timeout 120 "${root[@]}" apt-get -qq update
    timeout 600 "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@"
}
