# syntax=docker/dockerfile:1
# Semaforo and the extras that are asked for, nothing else, run by a user without rights.
#
#   docker build -t semaforo --build-arg EXTRAS=grpc,sklearn .
#   docker run -p 127.0.0.1:8080:8080 -v "$PWD/fleet:/fleet:ro" semaforo
#
# /fleet holds fleet.yaml and the models. Inside the container the server listens on all addresses, so the fleet file
# must list `server.keys`, or say `server: {allow_anonymous: true}`; it refuses to start otherwise. See deploy/README.md.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=""
WORKDIR /src
COPY constraints/core.txt constraints/core.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --prefix=/installed \
        -c constraints/core.txt ".${EXTRAS:+[${EXTRAS}]}"

FROM python:${PYTHON}-slim
RUN useradd --system --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin semaforo \
    && mkdir /fleet
COPY --from=build /installed /usr/local
ENV PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
WORKDIR /fleet
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/v2/health/ready', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["semaforo"]
CMD ["serve", "fleet.yaml", "--host", "0.0.0.0", "--http-port", "8080"]
