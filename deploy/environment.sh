# The private environment of this checkout, sourced by deploy/start and tests/run. Nothing here runs by itself.
#
# prepare_environment SPEC makes .venv when it is absent, broken or older than pyproject.toml, and otherwise does
# nothing, so that a second start costs no pip. SPEC is what pip installs: "." or ".[test]". pip reads HTTPS_PROXY,
# PIP_INDEX_URL and PIP_CERT by itself.

give_up() {
    printf 'tidegate: %s\n' "$1" >&2
    exit 1
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local name
    for name in python3.11 python3 python3.14 python3.13 python3.12; do
        if new_enough "$name"; then
            printf '%s\n' "$name"
            return
        fi
    done
    return 1
}

make_environment() {
    local python output
    python=$(find_python) ||
        give_up "needs Python 3.11 or newer, found $(python3 --version 2>/dev/null || echo none); on Debian 12: apt-get install python3 python3-venv"
    "$python" -c 'import venv, ensurepip' >/dev/null 2>&1 ||
        give_up "$("$python" --version) has no venv or ensurepip; on Debian: apt-get install python3-venv"
    output=$("$python" -m venv --clear .venv 2>&1) || give_up "cannot make $PWD/.venv: ${output##*$'\n'}"
}

# The checkout's path counts too: scripts in an environment name their interpreter by its full path.
prepare_environment() {
    local spec=$1 stamp=.venv/.made-for-$1 made_for
    made_for="$PWD $(sha256sum <pyproject.toml)"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$made_for" ] && new_enough .venv/bin/python && [ -x .venv/bin/tidegate ]; then
        return
    fi
    if ! new_enough .venv/bin/python || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
        make_environment
    fi
    printf 'tidegate: installing into %s\n' "$PWD/.venv" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --use-pep517 -e "$spec" ||
        give_up "pip could not install, its own words are above; behind a firewall set HTTPS_PROXY, PIP_INDEX_URL or PIP_CERT"
    printf '%s\n' "$made_for" >"$stamp"
}
