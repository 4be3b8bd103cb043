# The image of the webserver and the daemon. They ask the code server about our code and never load it, so this image
# has neither Bandscope nor torch.
#   docker build -f deploy/docker/control.Dockerfile -t REGISTRY/bandscope-control:0.2.0 .
# Behind a company's proxy or mirror: README.md in the folder above.

FROM python:3.11.14-slim-bookworm AS base
# Debian's certificates, and those of your company.
COPY deploy/docker/certificates /usr/local/share/ca-certificates/company
RUN update-ca-certificates
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt

FROM base AS libraries
# Your own mirrors; without them, PyPI.
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
ARG UV_FIND_LINKS
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy VIRTUAL_ENV=/opt/venv
WORKDIR /build
COPY constraints.txt hashes.txt ./
RUN pip install --no-cache-dir -c constraints.txt uv && uv venv "$VIRTUAL_ENV"
RUN uv pip install --no-cache -c constraints.txt -c hashes.txt dagster dagster-webserver dagster-postgres dagster-k8s \
    dagster-aws

FROM base
# A numeric user, so that Kubernetes can check that it is not root.
RUN groupadd --gid 10001 bandscope \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin bandscope \
    && install -d -o bandscope -g bandscope /opt/dagster/dagster_home /opt/dagster/dagster_home/storage
ENV PATH=/opt/venv/bin:$PATH DAGSTER_HOME=/opt/dagster/dagster_home HOME=/tmp PYTHONUNBUFFERED=1
COPY --from=libraries /opt/venv /opt/venv
USER 10001:10001
WORKDIR /tmp
