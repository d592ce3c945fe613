#!/usr/bin/env bash
# Sets up, then does the main job with the bundled model: a chat on a terminal, else one answer on stdout.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
if [[ -t 0 && -t 1 ]]; then
    exec .venv/bin/python -m llmcli chat "$@"
fi
exec .venv/bin/python -m llmcli chat "${@:-Tell me a story about a cat.}" </dev/null
