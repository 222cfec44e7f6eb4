#!/usr/bin/env bash
# Runs the tests that need a cluster, in a network of their own: job servers listen on every address.
#
#   tests/cluster/run.sh FOLDER [pytest arguments]     FOLDER as fetch.sh filled it; needs root, for the namespaces
set -euo pipefail

export FACELABEL_CLUSTER
FACELABEL_CLUSTER=$(cd -- "${1:?usage: run.sh FOLDER}" && pwd -P)
shift
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
exec unshare --net --mount -- bash -c 'ip link set lo up && exec .venv/bin/python -m pytest -m cluster tests/cluster -v "$@"' run "$@"
