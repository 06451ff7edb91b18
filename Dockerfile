# The server's image: its three programs, the libraries they need and the system's certificate authorities; no shell, no package
# manager, no root. docs/how-to/image.md says how to run it.
#
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION=$(git rev-parse HEAD) -t livepatch-onprem:0.1.0 .
#
# BASE is a name with a tag. To have the same input at each build, pin it: look up the digest of that tag where you trust it
# (`docker buildx imagetools inspect docker.io/library/rust:1.95-bookworm`) and give
#   --build-arg BASE=docker.io/library/rust@sha256:DIGEST
# The digest is not written here because it could not be looked up where this file was written.
ARG BASE=docker.io/library/rust:1.95-bookworm
# Which stage the programs come from: built, here and now; or given, from the folder GIVEN of the build context, by who has built
# them on the same distribution.
ARG BINARIES=built

FROM ${BASE} AS built
WORKDIR /source
COPY . .
ARG SOURCE_DATE_EPOCH=0
RUN cargo build --locked --release --bins && mkdir /binaries && \
    cp target/release/livepatch-server target/release/livepatch-admin target/release/livepatch-client /binaries/

FROM ${BASE} AS given
ARG GIVEN=target/image-binaries
COPY ${GIVEN} /binaries

FROM ${BINARIES} AS assembled
ARG SOURCE_DATE_EPOCH=0
COPY packaging/image /image
RUN sh /image/assemble.sh /binaries /assembled

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
COPY --from=assembled /assembled/ /
LABEL org.opencontainers.image.title="livepatch-onprem" \
      org.opencontainers.image.description="An open, on-premises distribution server for Ubuntu kernel live patches" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/usr/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# By number, so that an orchestrator can see that it is not root.
USER 65532:65532
WORKDIR /var/lib/livepatch
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=6s --start-period=60s --retries=3 CMD ["/usr/bin/livepatch-server", "healthcheck"]
ENTRYPOINT ["/usr/bin/livepatch-server"]
CMD ["serve"]
