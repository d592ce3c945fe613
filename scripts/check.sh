#!/usr/bin/env bash
# Format, lint, types, the pages made from help texts, and the tests of the code's own shape (layers, lazy imports, ...).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONPATH
bash scripts/setup.sh dev
.venv/bin/python -m ruff format --check .
.venv/bin/python -m ruff check .
.venv/bin/python -m mypy
.venv/bin/python -m scripts.make_docs --check
.venv/bin/python -m pytest -q tests/meta
