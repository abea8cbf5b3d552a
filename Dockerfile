# The image that ships: the `dist` build and CA certificates, a non-root user, no shell.
#
#   docker build -t attache .
#   docker run --rm --network host --no-healthcheck attache dev      # Linux: the first look, without a config
#
# The build image and the one that ships are both Debian 12, so that the binary meets the glibc it was linked against.
FROM rust:1.95-bookworm AS build
WORKDIR /src
# `benches` and `tests` are here because cargo wants every target that Cargo.toml names to exist; nothing of them is built.
COPY Cargo.toml Cargo.lock build.rs askama.toml ./
COPY providers providers
COPY benches benches
COPY tests tests
COPY src src
# Dependencies and crates stay in BuildKit's caches, so that an edit of the sources builds this crate alone.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --bin attache \
 && install -D -m 0755 target/dist/attache /out/attache \
 && install -d -m 0700 /out/state

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/attache /usr/local/bin/attache
# What a new volume is made of: its owner is the user that Attaché runs as (65532, `nonroot`).
COPY --from=build --chown=65532:65532 /out/state /var/lib/attache
# Mount a folder with routes.yaml at /etc/attache, and let the store and the files that Attaché makes live in the volume:
# relative paths in routes.yaml begin at its own folder, which is not writable here, so name them with /var/lib/attache/….
VOLUME /var/lib/attache
WORKDIR /var/lib/attache
ENV ATTACHE_CONFIG=/etc/attache/routes.yaml ATTACHE_STATE=/var/lib/attache
USER 65532:65532
# A drain takes up to `shutdown.drain` (30 s): stop with `docker stop -t 40`, or terminationGracePeriodSeconds: 40.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/usr/local/bin/attache", "health"]
ENTRYPOINT ["/usr/local/bin/attache"]
CMD ["run"]
