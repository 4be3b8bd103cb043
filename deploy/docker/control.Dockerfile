# The image of the webserver and the daemon. They ask the code server about our code and never load it, so this image
# has neither Bandscope nor torch.
#   docker build -f deploy/docker/control.Dockerfile -t REGISTRY/bandscope-control:0.2.0 .

FROM python:3.11.14-slim-bookworm AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy VIRTUAL_ENV=/opt/venv
WORKDIR /build
COPY constraints.txt hashes.txt ./
RUN pip install --no-cache-dir -c constraints.txt uv && uv venv "$VIRTUAL_ENV"
RUN uv pip install --no-cache -c constraints.txt -c hashes.txt dagster dagster-webserver dagster-postgres dagster-k8s

FROM python:3.11.14-slim-bookworm
# A numeric user, so that Kubernetes can check that it is not root.
RUN groupadd --gid 10001 bandscope \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin bandscope \
    && install -d -o bandscope -g bandscope /opt/dagster/dagster_home/storage
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH DAGSTER_HOME=/opt/dagster/dagster_home HOME=/tmp PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
