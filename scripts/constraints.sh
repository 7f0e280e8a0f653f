#!/usr/bin/env bash
# Writes constraints.txt: the newest versions that fit pyproject.toml, resolved in an environment of their own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install 'hatchling>=1.27'
"${pip[@]}" install --no-build-isolation '.[dev,kube,sweep]'
{
  echo "# The versions every environment of this project is installed with. Made by \`make constraints\`; do not edit."
  echo "# libvirt-python is left out: it is compiled against the machine's own libvirt."
  "${pip[@]}" freeze --exclude harmony-fleet
} >"$work/constraints.txt"
mv "$work/constraints.txt" constraints.txt
