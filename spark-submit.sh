#!/usr/bin/env bash
# The one way jobs run: ./spark-submit.sh JOB [job options] [-- spark-submit options]; without JOB it lists the jobs.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd -P)
# shellcheck source=local/bootstrap.sh
source "$here/local/bootstrap.sh"
tidemark_bootstrap runtime
tidemark_jars spark
tidemark_become "$TIDEMARK_VENV/bin/python" -P -m local.submit "$@"
