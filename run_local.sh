#!/usr/bin/env bash
# ./run_local.sh        makes an environment in .venv, then labels a built-in sample into out/sample
# ./run_local.sh test   runs the tests there, in two processes; with further words, pytest with those words in one
# ./run_local.sh ARGS   runs the pipeline there, from the folder you are in
#
# Packages are installed when setup.py or constraints.txt has changed since the last time, else it starts at once.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
venv=$here/.venv
# TensorFlow has no wheels for a Python newer than 3.13.
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

stop() {
    printf 'run_local.sh: %s\n' "$1" >&2
    exit 2
}

find_python() {
    local name
    for name in python3.13 python3.12 python3.11 python3; do
        # A version manager may leave a stub on the path that only says that it has no such version: so try it.
        if command -v "$name" >/dev/null 2>&1 && "$name" -c "$supported" >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    stop 'no Python 3.11, 3.12 or 3.13 on the path; install one of them and start again'
}

make_environment() {
    local python
    if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c "$supported; import pip" >/dev/null 2>&1; then
        return
    fi
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        stop "$python has no venv module; install it (Debian, Ubuntu: apt install python3-venv) and start again"
    printf 'run_local.sh: making %s with %s\n' "$venv" "$python" >&2
    "$python" -m venv --clear "$venv" || stop "$python cannot make $venv"
}

# install EXTRAS: stamps say which extras were installed for which files, so that nothing is done twice.
install() {
    local extras=$1 state stamp
    state=$(printf '%s\n' "$here" | cat - "$here/setup.py" "$here/constraints.txt" | cksum)
    stamp=$venv/installed-$extras
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$state" ]; then
        return
    fi
    printf 'run_local.sh: installing packages, about 2.5 GB; the next start skips this\n' >&2
    rm -f "$venv"/installed-*
    (cd "$here" && "$venv/bin/python" -m pip install --disable-pip-version-check --quiet \
        --constraint constraints.txt --editable ".[$extras]") ||
        stop 'packages could not be installed; the lines above say why, and the same command tries again'
    "$venv/bin/python" -c 'import cv2' >/dev/null 2>&1 ||
        stop 'OpenCV does not load; a server without a screen lacks libGL (Debian, Ubuntu: apt install libgl1)'
    printf '%s\n' "$state" >"$stamp"
    if [ "$extras" = dev,sample ]; then
        printf '%s\n' "$state" >"$venv/installed-evaluate,sample"
    fi
}

# Without -P, a folder called models where the user stands would take the place of ours.
run_pipeline() {
    exec "$venv/bin/python" -P -m pipeline "$@"
}

make_environment
case ${1-} in
    '')
        install evaluate,sample
        "$venv/bin/python" -P -m pipeline.sample "$here/local/sample"
        run_pipeline --runner=DirectRunner --config "$here/configs/local.yaml" --overwrite \
            --input "$here/local/sample" --output "$here/out/sample"
        ;;
    test)
        shift
        install dev,sample
        cd "$here"
        # All of them on two cores: a file stays in one process, since its tests share what is costly to make.
        # A process that dies is not replaced: xdist may then wait for ever for the rest of its file.
        [ "$#" -gt 0 ] || set -- -n 2 --dist loadfile --max-worker-restart 0
        exec "$venv/bin/python" -m pytest "$@"
        ;;
    *)
        install evaluate,sample
        run_pipeline "$@"
        ;;
esac
