# The sidecar's image: this package, the libraries it runs on, git with ssh, and nothing more.
# Its context is made by sidecar_image.py; a build needs a network only where the base lacks git, ssh or
# the system's roots.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
USER 0:0

# Each tree is copied over / as a whole: a folder that COPY itself made would bear the time of day.
COPY first/ /
RUN ["/bin/sh", "-eu", "/opt/bot-bottle/build/packages.sh"]

COPY second/ /
ENV PYTHONPATH=/opt/bot-bottle/lib \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN ["/bin/sh", "-eu", "/opt/bot-bottle/build/prepare.sh"]

HEALTHCHECK NONE
WORKDIR /
USER 65532:65532
ENTRYPOINT ["python3"]
CMD ["-m", "bot_bottle.sidecar.contained"]
