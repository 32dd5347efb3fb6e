# The image runs every process: `docker run IMAGE` serves web and tools on port 8787, `python -m workers` the jobs.
# docs/howto/containers.md describes it.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
COPY requirements.txt ./
# Wheels with hashes alone: no compiler is needed, and nothing but what was locked is installed.
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary :all: --require-hashes \
       -r requirements.txt

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 llm-bus \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin llm-bus
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY LICENSE NOTICE pyproject.toml Procfile Procfile.split ./
COPY bus bus
COPY cli cli
COPY docs docs
COPY kit kit
COPY mcp_gateway mcp_gateway
COPY migrations migrations
COPY templates templates
COPY webapp webapp
COPY workers workers
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOST=0.0.0.0 PORT=8787
# By number, so that Kubernetes can check that it is not root.
USER 10001:10001
EXPOSE 8787
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/readyz', timeout=4)"]
CMD ["python", "-m", "cli", "serve"]
