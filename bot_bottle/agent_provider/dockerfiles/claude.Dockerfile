# Claude Code on any Debian or Ubuntu base; what the base has already is not installed again.
ARG BASE_IMAGE=node:22-bookworm-slim
FROM ${BASE_IMAGE}
ARG CLAUDE_CODE_VERSION=2.1.330
USER 0:0

RUN set -eu; missing=""; \
    command -v git >/dev/null || missing="$missing git"; \
    command -v curl >/dev/null || missing="$missing curl"; \
    command -v ps >/dev/null || missing="$missing procps"; \
    [ -s /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"; \
    command -v claude >/dev/null || command -v npm >/dev/null || missing="$missing nodejs npm"; \
    [ -n "$missing" ] || exit 0; \
    command -v apt-get >/dev/null || { echo "the base image lacks$missing and has no apt-get" >&2; exit 1; }; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get -q update; \
    apt-get -q install -y --no-install-recommends $missing; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*

RUN set -eu; \
    command -v claude >/dev/null && exit 0; \
    npm install --global --no-audit --no-fund --loglevel=error \
        "@anthropic-ai/claude-code@${CLAUDE_CODE_VERSION}"; \
    npm cache clean --force >/dev/null 2>&1; \
    rm -rf /root/.npm; \
    claude --version
