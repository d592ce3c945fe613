#!/usr/bin/env bash
# Makes .venv in the repository and installs llmcli into it, once; later calls return at once.
#
#   bash scripts/setup.sh        what llmcli needs to run
#   bash scripts/setup.sh dev    and what its tests and checks need
#
# PYTHON names the interpreter to use. Called by demo.sh, test.sh, check.sh and fix.sh; says what it does on stderr.
set -euo pipefail
exec >&2
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { echo "setup: $*" >&2; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    say "llmcli needs Python 3.11 or newer, and ${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>&1 || true)"
    say "install one, or name it: PYTHON=/path/to/python3.11 bash scripts/demo.sh"
    exit 2
}

make_venv() {
    local python
    python=$(find_python)
    say "making .venv with $("$python" --version)"
    if ! "$python" -m venv --clear .venv; then
        say "the venv module of $python failed; on Debian and Ubuntu: apt install python3-venv"
        exit 1
    fi
    echo "$PWD" >.venv/made-in
}

pip_install() {
    # The progress bars of pip are for people; a log gets only what goes wrong.
    local quiet=-qq
    [[ ! -t 2 ]] || quiet=--progress-bar=on
    .venv/bin/python -m pip install "$quiet" --disable-pip-version-check --constraint constraints.txt "$@"
}

install_llmcli() {
    say "installing PyTorch (the largest part, some minutes on a slow line)"
    pip_install torch
    if [[ $what == run ]]; then
        say "installing llmcli"
        pip_install --editable .
    else
        say "installing llmcli with its tests and checks"
        pip_install --editable '.[test,dev]'
        # One file of autoawq is the tests' truth; its dependencies are not needed, and its build wants no copy of torch.
        pip_install setuptools
        pip_install --no-deps --no-build-isolation --use-pep517 autoawq
    fi
}

what=${1:-run}
if [[ $what != run && $what != dev ]]; then
    say "unknown argument '$what'; use nothing, or dev"
    exit 2
fi

# A virtual environment holds its own absolute path, so one that was moved or copied is made anew.
if [[ "$(cat .venv/made-in 2>/dev/null)" != "$PWD" ]] || ! .venv/bin/python -c '' 2>/dev/null; then
    make_venv
fi

key=$(cat pyproject.toml constraints.txt scripts/setup.sh | cksum)
for stamp in ".venv/installed-$what" .venv/installed-dev; do
    [[ "$(cat "$stamp" 2>/dev/null)" != "$key" ]] || exit 0
done
install_llmcli
echo "$key" >".venv/installed-$what"
say "done"
