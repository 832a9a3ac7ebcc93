# A plain place for any command, on any Debian or Ubuntu base; what the base has already is not installed
# again. The command itself comes with the base, or with a Dockerfile of the operator's.
ARG BASE_IMAGE=node:22-bookworm-slim
FROM ${BASE_IMAGE}
USER 0:0

RUN set -eu; missing=""; \
    command -v git >/dev/null || missing="$missing git"; \
    command -v curl >/dev/null || missing="$missing curl"; \
    command -v ps >/dev/null || missing="$missing procps"; \
    [ -s /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"; \
    [ -n "$missing" ] || exit 0; \
    command -v apt-get >/dev/null || { echo "the base image lacks$missing and has no apt-get" >&2; exit 1; }; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get -q update; \
    apt-get -q install -y --no-install-recommends $missing; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
